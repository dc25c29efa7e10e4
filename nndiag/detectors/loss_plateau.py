"""The detector of `loss-plateau`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nndiag.curves import robust
from nndiag.curves.climbs import climb_of
from nndiag.curves.courses import Course, courses
from nndiag.curves.segments import is_fragment
from nndiag.curves.shape import Curve
from nndiag.detectors.base import Detector
from nndiag.records import Abstention, Evidence, Finding, Run, Severity

FITS = 4.0  # times the loss: the variance of outputs that explain their targets. Our choice
FAIR_NOISE = 0.15  # in u; the cross-entropy of guessing is quieter. Our choice


@dataclass(frozen=True, kw_only=True)
class LossPlateau(Detector):
    """The loss makes no progress beyond noise, though there was, or should be, room.

    What it sees
        Four kinds. Stuck from the start: the end is where the beginning was, or at the loss of a
        blind guess. Stopped early: flat since the learning rate had fallen to almost nothing, far
        too soon. Flat since a rise, above the best level. A shelf: flat for a good part of the
        run, then progress again (told as `info`, since many healthy runs have one). A curve that
        fell far and is flat now may be finished; that is `converged`, and from the curve alone
        nobody can tell more.

    Why it happens
        Dead or saturated units, vanishing gradients, zero initialisation, a learning rate of
        nearly 0 or decayed too early, parameters that no optimizer holds, labels that have
        nothing to do with the inputs. "A local minimum" is rarely the reason.

    Evidence
        stuck: 1 - end / start < 2 %, or less than 3 standard deviations of a block median
        hardly moved: less than 8 %, and the newest 70 % of the points flat within 5 %
        at chance: flat within 5 %, and the level is ln(C) for the C outputs of the last layer
        after a rise: flat for the newest quarter, 28 % or more above the best level
        stopped early: learning rate under 1 % of its peak before 60 % of the run, flat since,
        and still falling when that happened
        "flat" is an equivalence claim: the whole 95 % interval of the Theil-Sen change over 20
        block medians lies within the limit.

    Remedy
        1. Look at the layers: dead units, vanishing gradients and frozen parameters come first.
        2. With healthy layers and updates that never overshoot: raise the learning rate.
        3. With noisy updates and a constant rate: decay the rate now, or take larger batches.
        4. At chance with healthy layers: look at labels and inputs; overfit one batch as a test.

    Source
        Dauphin et al. 2014, arXiv:1406.2572 (saddles, not minima). Of 51 flat states in our
        measurement raising the learning rate helped 3, annealing it 25. Limits are our choice.
    """

    name = "loss-plateau"
    explains: ClassVar[tuple[str, ...]] = ("loss-oscillation",)
    fewest_steps: int = 100  # optimizer steps of a watched run; fewer say nothing. Our choice
    fewest_rows: int = 10  # rows of any other log, where a row is often an epoch. Our choice
    stuck_fall: float = 0.02  # share of the start level; our experiments
    small_fall: float = 0.08  # share of the start level. Our choice
    flat: float = 0.05  # in u; TOST of experiment E9, 89 % precision
    chance_tolerance: float = 0.015  # share of ln(C). Our choice
    above_best: float = 0.25  # in u, 28 %. Our choice
    early: float = 0.6  # of the run; a schedule that ends before is early. Our choice
    shelf: float = 0.25  # of the run. Our choice
    shelf_change: float = 0.015  # in u from one end of a shelf to the other. Our choice

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        found = courses(run)
        if not found:
            yield Abstention(self.name, "no loss in this log")
        for course in found:
            why = self.why_not(run, course)
            if why:
                yield Abstention(self.name, why)
                continue
            finding = (
                self.stuck(run, course)
                or self.at_chance(run, course)
                or self.stopped_early(course)
                or self.after_a_rise(course)
                or self.on_a_shelf(course)
            )
            if finding is not None:
                yield finding

    def why_not(self, run: Run, course: Course) -> str:
        """The reason for an abstention; "" where the curve can be judged."""
        curve = course.curve
        if course.rival:
            return "several losses are trained in this run; a level may mean nothing there"
        fewest = self.fewest_steps if run.format == "nndiag" else self.fewest_rows
        if run.format != "nndiag" and len(curve) >= 4 and frozen(curve):
            return ""
        if len(curve) < fewest:
            return f"{len(curve)} steps; {fewest} needed"
        if is_fragment(curve.steps):
            return "the log begins in the middle of the run"
        warm = course.schedule.warmup_end
        if warm is not None and warm - curve.steps[0] > 0.5 * (curve.steps[-1] - curve.steps[0]):
            return "the learning rate warmed up for more than half of the run"
        return ""

    def stuck(self, run: Run, course: Course) -> Finding | None:
        curve = course.curve
        if climb_of(curve) is not None or not curve.values.any():
            return None
        if not curve.positive:
            return self.stuck_signed(course)
        start = start_level(curve)
        if curve.typical_noise < 0.1:  # the first value is one batch, but a fair one
            start = min(start, max(float(curve.values[0]), curve.end))
        fall = 1.0 - curve.end / start if start > 0 else 1.0
        lowest = 1.0 - curve.best / start if start > 0 else 1.0
        fits = already_fits(run, course)
        if fits:
            return None  # a pretrained model, say, that has little left to learn
        # A noisy loss without outputs to compare it with may stand at its floor already.
        unsure = fits is None and run.format == "nndiag" and curve.typical_noise > FAIR_NOISE
        severity = Severity.INFO if unsure else Severity.CRITICAL
        if lowest < self.stuck_fall:
            confidence = 0.5 if unsure else 0.92
            return self.finding(course, 0, start, fall, severity, confidence, "start")
        within_noise = fall < min(3.0 * curve.level_noise, self.small_fall)
        if within_noise and lowest < 2 * self.small_fall and curve.part(0).kendall > -2.0:
            confidence = 0.5 if unsure else 0.75
            return self.finding(course, 0, start, fall, severity, confidence, "start")
        rest = int(0.3 * len(curve))
        if fall < self.small_fall and lowest < 1.5 * self.small_fall:
            trend = curve.part(rest)
            if trend.flat(self.flat) and trend.change > -0.4 * max(fall, self.stuck_fall):
                return self.finding(course, rest, start, fall, Severity.WARNING, 0.65, "start")
        return None

    def stuck_signed(self, course: Course) -> Finding | None:
        """For a loss without a lower bound only the noise tells what no progress is."""
        curve = course.curve
        trend = curve.part(0)
        spread = robust.spread(curve.u)
        if spread == 0 or abs(trend.kendall) >= 2 or len(curve) < 2 * self.fewest_steps:
            return None
        fall = float(curve.blocks[0] - curve.blocks[-1])
        if abs(fall) < 3.0 * curve.level_noise and curve.level_noise < 0.2:
            return self.finding(course, 0, curve.start, 0.0, Severity.WARNING, 0.6, "start")
        return None

    def at_chance(self, run: Run, course: Course) -> Finding | None:
        """Fell from a bad initialisation to the loss of a blind guess, and stays there."""
        curve = course.curve
        half = len(curve) // 2
        if not curve.positive or not run.parameters or not curve.part(half).flat(self.flat):
            return None
        for chance in guesses(run):
            if abs(curve.end - chance) < self.chance_tolerance * chance:
                return self.finding(course, half, chance, 0.0, Severity.CRITICAL, 0.85, "chance")
        return None

    def stopped_early(self, course: Course) -> Finding | None:
        curve, finished = course.curve, course.schedule.finished
        if finished is None or not curve.positive:
            return None
        row = curve.row_of(finished)
        if row > self.early * len(curve) or len(curve) - row < 30 or row < 4:
            return None
        before, after = curve.part(0, row), curve.part(row)
        left = curve.end / start_level(curve)
        if not after.flat(self.flat) or left < 0.2 or before.kendall > -1.5:
            return None
        pace = before.change / max(1, row) * (len(curve) - row)  # had it gone on like that
        if pace > -2 * self.flat:
            return None
        return self.finding(
            course, row, start_level(curve), 1.0 - left, Severity.WARNING, 0.8, "lr"
        )

    def after_a_rise(self, course: Course) -> Finding | None:
        """Flat ever since a sudden rise, at a level clearly above the best one."""
        curve = course.curve
        if not curve.positive or len(curve) < 50:
            return None
        high = curve.smooth - curve.baseline > self.above_best
        first = len(curve) - int(np.argmin(high[::-1])) if not high.all() else 0
        if not high[-1] or len(curve) - first < self.shelf * len(curve):
            return None
        settled = first + (len(curve) - first) // 4  # the way down from the peak left out
        if not curve.part(settled).flat(self.flat):
            return None
        level = float(np.exp(curve.baseline[-1]))
        return self.finding(course, settled, level, 0.0, Severity.WARNING, 0.75, "rise")

    def on_a_shelf(self, course: Course) -> Finding | None:
        """Flat after some progress, then progress again; or flat for very long, then progress."""
        curve = course.curve
        if len(curve) < 60 or not curve.positive:
            return None
        first, last = shelf_of(curve)
        steps = curve.steps
        share = (steps[min(last, len(curve) - 1)] - steps[first]) / max(1, steps[-1] - steps[0])
        if share < self.shelf or last - first < 20 or len(curve) - last < 0.05 * len(curve):
            return None
        level, start = robust.middle(curve.values[first:last]), start_level(curve)
        later = 1.0 - curve.best / level if level > 0 else 0.0
        fell_before = start - level > 0.1 * (start - curve.best)
        long = share > 0.4
        inside = curve.part(first, last)
        still = abs(inside.change) < max(self.shelf_change, 3.0 * curve.level_noise)
        lost_again = curve.best < curve.values[first:last].min() and curve.end < level
        if not (still and (fell_before or long) and later > 0.04 and lost_again):
            return None
        return self.finding(course, first, level, later, Severity.INFO, 0.6, "shelf", last)

    def finding(
        self,
        course: Course,
        first: int,
        level: float,
        fall: float,
        severity: Severity,
        confidence: float,
        kind: str,
        last: int | None = None,
    ) -> Finding:
        curve = course.curve
        steps = curve.steps
        end_row = len(curve) - 1 if last is None else min(last, len(curve) - 1)
        if len(curve) < 50:
            confidence = min(confidence, 0.6)
        label, begin, end = course.loss.label, steps[first], steps[end_row]
        message = {
            "start": f"{label} began at {level:.4g} and is at {curve.end:.4g} after "
            f"{end - steps[0]} steps: {100 * max(0.0, fall):.1f} % progress.",
            "chance": f"{label} is flat at {curve.end:.4g} from step {begin} on, the loss of a "
            "blind guess over as many classes as the last layer has outputs.",
            "lr": f"{label} has been flat at {curve.end:.4g} since step {begin}, when the learning "
            f"rate had fallen below 1 % of its peak ({course.schedule.peak:.3g} to "
            f"{course.schedule.last:.3g}); it was still falling then.",
            "rise": f"{label} has been flat at {curve.end:.4g} since step {begin}, above the best "
            f"level it had ({level:.4g}).",
            "shelf": f"{label} stood still near {level:.4g} from step {begin} to {end}, then fell "
            f"by another {100 * fall:.0f} %.",
        }[kind]
        return Finding(
            name=self.name,
            severity=severity,
            confidence=confidence,
            message=message,
            step_start=int(begin),
            step_end=int(end),
            series=label,
            owner=course.owner,
            evidence=(
                Evidence("kind", {"lr": "stopped-early", "start": "from-start"}.get(kind, kind)),
                Evidence("level", curve.end if kind != "shelf" else level),
                Evidence("start", start_level(curve)),
                Evidence("fall_fraction", round(fall, 4), self.stuck_fall),
                Evidence("noise", round(curve.typical_noise, 4)),
            ),
        )


def start_level(curve: Curve) -> float:
    """The first value, or the first few, where they stand clear of the noise of the first block."""
    block = float(curve.blocks[0])
    first = float(curve.values[0])
    if first > curve.start and curve.u[0] - block > 4.0 * curve.typical_noise:
        return first
    few = robust.middle(curve.u[: max(1, min(5, len(curve) // 20))])
    stands_clear = few - block > 2.0 * curve.typical_noise
    return curve.start if stands_clear else float(curve.value_blocks[0])


def frozen(curve: Curve) -> bool:
    """Nothing changes but the last digits: no noise at all, so few rows suffice."""
    middle = abs(robust.middle(curve.values))
    return middle > 0 and float(np.ptp(curve.values)) < 1e-4 * middle


def already_fits(run: Run, course: Course) -> bool | None:
    """Whether the net's outputs differ between samples by far more than the loss leaves open.

    For squared errors that is an R squared of 0.8; a cross-entropy must be well below ln(C), too.
    None where outputs were not recorded.
    """
    outputs = [
        (layer.order, series)
        for layer in run.layers
        for series in run.series_of("activation_sample_variance")
        if series.where == layer.name and series.owner in ("", course.loss.owner)
    ]
    if not outputs:
        return None
    last = max(outputs, key=lambda pair: pair[0])[1].values[-10:]
    explained = float(np.nanmedian(last)) if np.isfinite(last).any() else 0.0
    guess = max(guesses(run), default=math.inf)
    return explained > FITS * course.curve.end and course.curve.end < 0.5 * guess


def guesses(run: Run) -> Iterator[float]:
    """The cross-entropy of a uniform guess for the last weight matrix of each model."""
    last = {p.model: p.shape[0] for p in run.parameters if len(p.shape) == 2}
    for outputs in sorted(set(last.values())):
        yield math.log(max(2, outputs))


def shelf_of(curve: Curve, blocks: int = 40, within: float = 0.03) -> tuple[int, int]:
    """The longest stretch whose block medians stay within `within` of each other, as rows."""
    medians = robust.block_medians(curve.u, min(blocks, max(1, len(curve) // 3)))
    edges = robust.block_edges(len(curve), medians.size)
    noise = 1.25 * curve.typical_noise / math.sqrt(max(1.0, len(curve) / medians.size))
    best = (0, 0)
    for first in range(medians.size):
        window = medians[first:]
        ranges = np.maximum.accumulate(window) - np.minimum.accumulate(window)
        outside = np.flatnonzero(ranges > max(within, 4.0 * noise))
        last = first + (int(outside[0]) if outside.size else window.size)
        if last - first > best[1] - best[0]:
            best = (first, last)
    return int(edges[best[0]]), int(edges[best[1]])
