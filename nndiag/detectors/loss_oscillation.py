"""The detector of `loss-oscillation`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag.curves import robust
from nndiag.curves.climbs import divergence_of
from nndiag.curves.courses import Course, courses
from nndiag.curves.excursions import are_swings, excursions, is_sudden
from nndiag.curves.robust import probability
from nndiag.curves.segments import epoch_edges, is_fragment
from nndiag.curves.shape import Curve, curve_of, trend
from nndiag.detectors.base import Detector
from nndiag.records import Abstention, Evidence, Finding, Run, Series, Severity


@dataclass(frozen=True, kw_only=True)
class LossOscillation(Detector):
    """The loss swings up and down by more than it falls, and the swings do not average out.

    What it sees
        In the newer half of the run: levels of neighbouring blocks that differ by far more than
        batch noise leaves after averaging, and by more than the trend. Or one period that holds
        most of the variance. Spikes are left out; what repeats with the epoch is the order of the
        data and no oscillation; noise that averages out is the batch, however wide.

    Why it happens
        A learning rate, or a momentum, near the edge of stability: the iterate is thrown from one
        wall of the valley to the other.

    Evidence
        24 block medians b of u in the newer half, without their Theil-Sen trend
        swing = q90(b) - q10(b); excess = MAD(b) sqrt(points per block) / (1.25 noise), 1 for noise
        reported when swing > 0.5 (65 %), swing > trend, excess > 2, and it is more than 5 % of
        what had been gained; or when one period holds half of the variance with that swing.
        A validation loss that jumps about alone is told as `info`.

    Remedy
        1. Lower the learning rate by a factor of 3, or decay it from here on.
        2. Lower a momentum above 0.9.
        3. If the period is an epoch after all: shuffle the data.

    Source
        Cohen et al. 2021, arXiv:2103.00065 (edge of stability; periods of 2 to 20 steps at full
        batch are healthy). In our own measurement healthy runs of batch 1 to 64 had an excess of
        at most 1.8. Weak evidence: no curve statistic tells a mildly too high rate from a right
        one.
    """

    name = "loss-oscillation"
    fewest: int = 100  # points. Our choice
    swing: float = 0.5  # in u; our choice, see Source
    excess: float = 2.0  # times what noise alone leaves
    share_of_way: float = 0.05  # of the fall. Our choice
    periodic_share: float = 0.5  # of the variance, in one period. Our choice
    fewest_validations: int = 30  # for a remark on their swings. Our choice
    val_swing: float = 0.4  # in u, q90 - q10. Our choice
    val_jumps: float = 0.12  # in u, from one validation to the next. Our choice
    shortest_period: int = 20  # points; faster is the edge of stability

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        found = courses(run)
        if not found:
            yield Abstention(self.name, "no loss in this log")
        for course in found:
            curve = course.curve
            if course.rival:
                yield Abstention(
                    self.name, "several losses are trained in this run and may swing by nature"
                )
            elif len(curve) < self.fewest:
                yield Abstention(self.name, f"{len(curve)} points; {self.fewest} needed")
            elif is_fragment(curve.steps) or course.schedule.restarts:
                yield Abstention(self.name, "the log begins late, or the learning rate restarts")
            elif divergence_of(curve, course.gradient) is None:
                said = list(self.judged(course, run.companion("epoch", course.loss)))
                yield from said or self.validations(run, course)

    def judged(self, course: Course, epoch: Series | None) -> Iterator[Finding]:
        curve = course.curve
        half = curve.row_of((int(curve.steps[0]) + int(curve.steps[-1])) // 2)
        u = curve.u[half:][calm_points(course)[half:]]
        if u.size < max(self.fewest // 2, 0.7 * (len(curve) - half)):
            return
        wide = wide_swings(u)
        period, share = main_period(u, self.shortest_period)
        linear = wide.linear / curve.way if curve.way > 0 else math.inf
        periodic = share > self.periodic_share
        if periodic and self.is_epoch(curve, period, epoch):
            return
        large = wide.swing > max(self.swing, abs(wide.trend)) and linear > self.share_of_way
        if large and wide.excess > self.excess:
            yield self.finding(course, half, wide, period if periodic else 0)
        elif periodic:
            height = float(np.subtract(*np.quantile(u, (0.9, 0.1))))
            if height > max(self.swing, abs(wide.trend)) and linear > self.share_of_way:
                yield self.finding(course, half, wide, period)

    def validations(self, run: Run, course: Course) -> Iterator[Finding]:
        """A validation loss that jumps about while the training loss does not: a remark."""
        val = run.one("val_loss")
        if val is None or course.validation or len(val) < self.fewest_validations:
            return
        curve = curve_of(val)
        newer = curve.u[len(curve) // 2 :]
        if not curve.positive or newer.size < self.fewest_validations // 2:
            return
        swing = float(np.subtract(*np.quantile(newer, (0.9, 0.1))))
        jumps = robust.step_noise(curve.u)
        if swing > self.val_swing and jumps > self.val_jumps and swing > abs(trend(newer).change):
            low, high = np.quantile(curve.values[len(curve) // 2 :], (0.1, 0.9))
            yield Finding(
                name=self.name,
                severity=Severity.INFO,
                confidence=0.6,
                message=(
                    f"{val.label} swings between {low:.3g} and {high:.3g} in the newer half of the "
                    f"run, while {course.loss.label} does not."
                ),
                step_start=int(curve.steps[len(curve) // 2]),
                step_end=int(curve.steps[-1]),
                series=val.label,
                evidence=(
                    Evidence("swing", round(swing, 3), self.val_swing),
                    Evidence("noise", round(jumps, 3), self.val_jumps),
                ),
            )

    def is_epoch(self, curve: Curve, period: int, epoch: Series | None) -> bool:
        """The period is a whole part or a multiple of the epoch, as far as the log tells."""
        edges = epoch_edges(epoch)
        if edges.size < 2:
            return False
        rows = float(np.median(np.diff(edges))) / max(1.0, float(np.median(np.diff(curve.steps))))
        ratio = max(rows, period) / max(1.0, min(rows, period))
        return abs(ratio - round(ratio)) < 0.1

    def finding(self, course: Course, half: int, wide: Swings, period: int) -> Finding:
        curve = course.curve
        how = f"with a period of {period} points" if period else "without a fixed period"
        return Finding(
            name=self.name,
            severity=Severity.WARNING,
            confidence=probability(-0.5, wide.excess / 2.0, min(1.5, wide.swing)),
            message=(
                f"{course.loss.label} swings by a factor of {math.exp(wide.swing):.1f} in the "
                f"newer half of the run, {how}; batch noise alone would leave swings "
                f"{wide.excess:.1f} times smaller, and the trend is a factor of "
                f"{math.exp(abs(wide.trend)):.1f}."
            ),
            step_start=int(curve.steps[half]),
            step_end=int(curve.steps[-1]),
            series=course.loss.label,
            evidence=(
                Evidence("swing", round(wide.swing, 3), self.swing),
                Evidence("trend", round(wide.trend, 3)),
                Evidence("excess", round(wide.excess, 2), self.excess),
                Evidence("period_points", period),
            ),
        )


@dataclass(frozen=True, slots=True)
class Swings:
    """How the level of a stretch wanders, in u."""

    swing: float  # q90 - q10 of the block medians around their trend
    trend: float  # change over the stretch
    excess: float  # wander over what point-to-point noise leaves in a block median
    linear: float  # q90 - q10 of the block medians, in units of the loss up to a factor


def wide_swings(u_T: np.ndarray, blocks: int = 24) -> Swings:
    """Compare the wander of block medians with what independent noise would leave in them."""
    medians = robust.block_medians(u_T, blocks)
    slope, _, _ = robust.theil_sen(medians)
    rest = medians - slope * np.arange(medians.size)
    low, high = np.quantile(rest, (0.1, 0.9))
    below, above = np.quantile(np.exp(medians), (0.1, 0.9))
    left = 1.25 * max(robust.step_noise(u_T), 1e-3) / math.sqrt(max(1.0, u_T.size / medians.size))
    return Swings(
        float(high - low), slope * medians.size, robust.spread(rest) / left, float(above - below)
    )


def main_period(u_T: np.ndarray, shortest: int) -> tuple[int, float]:
    """The period with the largest share of the variance around a smooth course, and that share."""
    u = u_T[: 2 ** int(math.log2(max(2, u_T.size)))][:16384]
    rest = u - np.polyval(np.polyfit(np.arange(u.size), u, 2), np.arange(u.size))
    power = np.abs(np.fft.rfft(rest * np.hanning(rest.size))) ** 2
    power[:4] = 0.0  # fewer than four swings in the stretch are no oscillation
    total = float(power.sum())
    slow_enough = power.copy()
    slow_enough[u.size // shortest + 1 :] = 0.0
    if total <= 0 or not slow_enough.any():
        return 0, 0.0
    at = int(np.argmax(slow_enough))
    share = float(power[max(0, at - 2) : at + 3].sum()) / total
    return round(u.size / at), share


def calm_points(course: Course) -> np.ndarray:
    """(T,) True where no spike stands."""
    curve = course.curve
    calm = np.ones(len(curve), dtype=bool)
    events = [e for e in excursions(curve, course.gradient) if is_sudden(curve, e)]
    if not are_swings(curve, events):
        for e in events:
            calm[e.first : e.last + 1] = False
    return calm
