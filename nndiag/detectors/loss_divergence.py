"""The detector of `loss-divergence`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

from nndiag.curves.climbs import BlowUp, Climb, blow_up_of, divergence_of
from nndiag.curves.courses import RIVALS_OF_ANY_SIGN, Course, courses
from nndiag.curves.robust import probability
from nndiag.curves.segments import is_fragment
from nndiag.detectors.base import Detector
from nndiag.records import Abstention, Evidence, Finding, Run, Severity


@dataclass(frozen=True, kw_only=True)
class LossDivergence(Detector):
    """The loss climbs and does not come back.

    What it sees
        A run that ends far above the best level it had held, or above where it began; one that
        climbs into NaN. One that falls back to its start is stuck, not gone: `loss-spike` or
        `loss-plateau`.

    Why it happens
        The step is too large for the curvature: a learning rate too high, a warm-up that is
        missing, gradients that add up because they are never set to zero, a loss without a lower
        bound, or a recurrent net whose gradients explode.

    Evidence
        end = median of the last 5 % of the points; best = lowest trailing median
        reported when end > 3 best (1.35 best, where nothing sudden began it) and a quarter of the
        progress is lost, or end > 1.05 start, beyond 4 standard deviations of the noise; or when
        the loss rises by half and is then NaN; or when five points lie above 1.5 times the first
        value within the first eighth of a run that ends above its start. A loss of any sign must
        end further above its start than it had been below: that of a policy gradient wanders.

    Remedy
        1. Lower the learning rate by a factor of 3 to 10.
        2. Warm it up, if the loss rose within the first steps.
        3. Clip gradients at the norm that healthy steps had.

    Source
        "1.5 times its start in the first eighth": 0 of 242 good runs, 61 % of those with a too
        high rate, in our measurement. Goodfellow et al., Deep Learning (2016), section 8.1.
    """

    name = "loss-divergence"
    explains: ClassVar[tuple[str, ...]] = (
        "loss-spike",
        "loss-oscillation",
        "loss-plateau",
        "slow-convergence",
        "overfitting",
        "exploding-gradient",
        "dead-relu",
    )
    fewest: int = 5  # points. Our choice
    certain_points: int = 30  # points; with fewer only a tenfold climb counts. Our choice
    factor: float = 3.0  # times the best level; our experiments
    above_start: float = 1.05  # times the first value, at the end of an early blow-up. Our choice
    early_factor: float = 1.5  # times the first value; experiment E3
    rival_factor: float = 10.0  # times, where losses play against each other. Our choice

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        found = courses(run)
        if not found:
            yield Abstention(self.name, "no loss in this log")
        for course in found:
            if len(course.curve) < self.fewest:
                yield Abstention(self.name, f"{len(course.curve)} points; {self.fewest} needed")
                continue
            if course.rival and not course.curve.positive:
                yield Abstention(self.name, RIVALS_OF_ANY_SIGN)
                continue
            climb = divergence_of(course.curve, course.gradient, factor=self.factor)
            if climb is not None and self.is_certain(course, climb):
                yield self.climbing(course, climb)
                continue
            early = blow_up_of(course.curve, factor=self.early_factor)
            if early is None or early.back is not None or course.rival:
                continue
            if course.curve.end > self.above_start * early.start:  # else it is stuck, not gone
                yield self.blown_up(course, early)

    def is_certain(self, course: Course, climb: Climb) -> bool:
        """Short runs, rival losses and fragments of a log must show more."""
        tenfold = climb.rise > math.log(self.rival_factor)
        if course.rival:
            return tenfold and climb.above_start > math.log(self.rival_factor)
        if len(course.curve) < self.certain_points:
            return tenfold or (climb.into_nonfinite and climb.rise > math.log(2.0))
        if not course.curve.positive:
            start = course.curve.start
            return climb.rise > math.log(self.factor) and climb.end - start > start - climb.best
        if is_fragment(course.curve.steps):
            return climb.rise > math.log(self.factor)
        return True

    def climbing(self, course: Course, climb: Climb) -> Finding:
        steps = course.curve.steps
        ratio = climb.end / climb.best if climb.best > 0 else math.nan
        times = f" ({ratio:.3g} times)" if ratio > 1 else ""
        message = (
            f"{course.loss.label} climbed from {climb.best:.3g} to {climb.end:.3g}{times} from "
            f"step {steps[climb.first]} on"
            + (", then became NaN or infinite." if climb.into_nonfinite else ", and stayed there.")
        )
        return Finding(
            name=self.name,
            severity=Severity.CRITICAL,
            confidence=probability(0.8, 1.2 * climb.rise, 3.0 * max(0.0, climb.above_start)),
            message=message,
            step_start=int(steps[climb.first]),
            step_end=int(steps[-1]),
            series=course.loss.label,
            owner=course.owner,
            evidence=(
                Evidence("best", climb.best),
                Evidence("end", climb.end),
                Evidence("start", course.curve.start),
                Evidence("peak", float(course.curve.values[climb.peak])),
                Evidence("ratio_to_best", ratio, self.factor),
                Evidence("ends_nonfinite", climb.into_nonfinite),
            ),
        )

    def blown_up(self, course: Course, early: BlowUp) -> Finding:
        steps, curve = course.curve.steps, course.curve
        return Finding(
            name=self.name,
            severity=Severity.CRITICAL,
            confidence=probability(1.0, math.log(early.highest / early.start)),
            message=(
                f"{course.loss.label} rose from {early.start:.3g} to {early.highest:.3g} within "
                f"the first {steps[early.peak] - steps[0] + 1} steps and ends at {curve.end:.3g}, "
                "above where it began."
            ),
            step_start=int(steps[0]),
            step_end=int(steps[-1]),
            series=course.loss.label,
            owner=course.owner,
            evidence=(
                Evidence("start", early.start),
                Evidence("peak", early.highest, self.early_factor * early.start),
                Evidence("end", curve.end),
                Evidence("ends_nonfinite", False),
            ),
        )
