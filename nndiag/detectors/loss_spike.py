"""The detector of `loss-spike`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import numpy as np

from nndiag.curves.climbs import blow_up_of, divergence_of
from nndiag.curves.courses import RIVALS_OF_ANY_SIGN, Course, courses
from nndiag.curves.excursions import STANDARD, Limits, are_swings, excursions, is_sudden
from nndiag.curves.robust import probability
from nndiag.curves.segments import regularly_spaced, seams
from nndiag.curves.shape import Curve, Excursion
from nndiag.detectors.base import Detector
from nndiag.records import Abstention, Evidence, Finding, Run, Severity


@dataclass(frozen=True, kw_only=True)
class LossSpike(Detector):
    """The loss suddenly rises far above its own noise, for a short time or for good.

    What it sees
        A rise above the best level held so far, by more than the upper tail of the curve's own
        noise explains, and within a few points. A single point counts only where the gradient
        norm jumps with it, or where it is enormous. Not a spike: the opening of a run, a bump
        while the learning rate warms up, the rise after a warm restart or a resume, and what
        comes back at every epoch edge.

    Why it happens
        One bad batch, a step too large for the curvature at hand, an Adam second moment that has
        gone stale, a learning rate that was raised, or an optimizer state lost at a resume.

    Evidence
        u = log(loss + eps); height = u - lowest trailing median so far; s = max(1.48 MAD,
        (q95 - q50) / 1.645) of u around its course, in windows of 100 points.
        reported when two of three points are higher than 6 s and 22 %, or one is higher than 5 s
        while the log gradient norm exceeds its own running median by 4 s within steps [-3, +2].
        recovered: the median of the next points is back within 15 % of the rise.

    Remedy
        1. Look where the gradient norm went: with it, clip lower; Adam, try beta2 = 0.95.
        2. Lower the learning rate if it happens again, or if the loss did not come back.
        3. If only one batch was bad, look at that batch and leave the learning rate alone.

    Source
        PaLM, arXiv:2204.02311 (rewinding); OLMo 2, arXiv:2501.00656 (spike score); Wortsman et
        al. 2023, arXiv:2304.13013 (stale second moments). A rule of this kind, with a co-spike,
        blamed 0 of 70 healthy runs where 6 sigma on the loss alone blamed 48; our measurement.
    """

    name = "loss-spike"
    explains: ClassVar[tuple[str, ...]] = ("loss-oscillation", "exploding-gradient")
    fewest: int = 30  # points; fewer do not show what is usual. Our choice
    share_of_way: float = 0.05  # of the fall so far; smaller rises harm nothing. Our choice
    tenfold: float = 10.0  # times its level; on a loss that fell by orders, too. Our choice
    onset_share: float = 0.01  # of the points, for half of the height; slower is a climb
    crowded: float = 0.2  # of the points above half the height: that is an oscillation. Our choice
    long_share: float = 0.1  # of the run until it is back; longer is critical. Our choice
    above_start: float = 1.05  # times the first value; an early blow-up that ends higher diverged
    judged_after: int = 5  # points; at the very end only twice the score counts. Our choice
    warm_factor: float = 2.0  # times the start; less is a warm-up bump. Our choice
    restart_share: float = 0.5  # of the way: a warm restart seldom gives back more. Our choice

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
            spikes = self.spikes(course)
            if spikes:
                yield self.finding(course, spikes)

    def spikes(self, course: Course) -> list[Excursion]:
        """The excursions of a loss that nothing but a fault explains."""
        curve = course.curve
        limits = Limits(held_score=10.0, rise=np.log(10)) if course.rival else Limits()
        events = [e for e in excursions(curve, course.gradient, limits) if self.matters(course, e)]
        if divergence_of(curve, course.gradient) is not None:
            events = [e for e in events if e.recovered]
        events = [e for e in events if not self.is_explained(course, e)]
        crowded = are_swings(curve, [e for e in events if e.recovered], self.crowded)
        seam = regularly_spaced(curve.steps[[e.peak for e in events]]) if events else False
        return self.opening(course) + ([] if crowded or seam else events)

    def opening(self, course: Course) -> list[Excursion]:
        """A blow-up in the first steps from which the run came back, if only to where it began."""
        curve = course.curve
        early = blow_up_of(curve)
        if early is None or course.rival:
            return []
        if early.back is None and curve.end > self.above_start * early.start:
            return []  # that is a divergence
        warming = course.schedule.warming(int(curve.steps[early.peak]))
        if warming and early.highest < self.warm_factor * early.start:
            return []
        rise = float(curve.u[early.peak] - curve.u[0])
        return [
            Excursion(
                first=0,
                peak=early.peak,
                last=min(early.back or len(curve), len(curve) - 1),
                recovered=early.back is not None,
                score=rise / curve.typical_noise,
                rise=rise,
                onset=early.peak,
                baseline=early.start,
            )
        ]

    def matters(self, course: Course, e: Excursion) -> bool:
        """Sharp, after the opening, and large enough to do harm."""
        curve = course.curve
        if not is_sudden(curve, e, self.onset_share):
            return False
        at_the_end = len(curve) - e.peak <= self.judged_after
        if not e.recovered and at_the_end and e.score < 2 * STANDARD.held_score:
            return False  # too few points to tell a spike from the tail of the noise
        rise = float(curve.values[e.peak]) - e.baseline
        far = rise > self.share_of_way * max(0.0, curve.way) or e.rise > math.log(self.tenfold)
        return far or not e.recovered

    def is_explained(self, course: Course, e: Excursion) -> bool:
        """By the warm-up, a raised learning rate, or a gap in the log."""
        curve = course.curve
        first, peak = int(curve.steps[e.first]), int(curve.steps[e.peak])
        height = float(curve.values[e.peak])
        bump = height < self.warm_factor * curve.start
        if course.schedule.warming(peak) and e.recovered and bump:
            return True
        seam_steps = curve.steps[seams(curve.steps)]
        causes = [*course.schedule.restarts, *seam_steps.tolist()]
        return height - e.baseline < self.restart_share * curve.way and any(
            first <= step <= peak for step in causes
        )

    def finding(self, course: Course, spikes: list[Excursion]) -> Finding:
        curve, steps = course.curve, course.curve.steps
        worst = max(spikes, key=lambda e: (not e.recovered, e.rise))
        back = [e.recovered for e in spikes]
        long = any(e.last - e.first > self.long_share * len(curve) for e in spikes)
        severity = Severity.WARNING if all(back) and not long else Severity.CRITICAL
        peak = float(curve.values[worst.peak])
        message = (
            f"{course.loss.label} rose from {worst.baseline:.3g} to {peak:.3g} at step "
            f"{steps[worst.peak]} ({worst.score:.0f} times its noise) and "
            + came_back(curve, worst)
        )
        if len(spikes) > 1:
            message += f" {len(spikes)} such spikes; this is the worst."
        cospike = 1.5 if worst.together > 4.0 else 0.0
        return Finding(
            name=self.name,
            severity=severity,
            confidence=probability(0.5, min(3.0, worst.score / 8.0), cospike),
            message=message,
            step_start=int(steps[spikes[0].first]),
            step_end=int(steps[spikes[-1].last]),
            series=course.loss.label,
            owner=course.owner,
            evidence=(
                Evidence("peak", peak),
                Evidence("baseline", worst.baseline),
                Evidence("score", round(worst.score, 2), Limits().held_score),
                Evidence("recovered", worst.recovered),
                *([Evidence("recovered_step", int(steps[worst.last]))] if worst.recovered else []),
                *gradient_around(course, worst),
                Evidence("count", len(spikes)),
                *frequency(course, spikes),
            ),
        )


def came_back(curve: Curve, worst: Excursion) -> str:
    """How it ended, in words."""
    if worst.recovered:
        return f"came back by step {curve.steps[worst.last]}."
    if worst.first == 0:
        return f"has stayed at {curve.end:.3g} since, no better than it began."
    return "did not come back."


def gradient_around(course: Course, e: Excursion) -> Iterator[Evidence]:
    """The gradient norm at the spike and its usual value before."""
    gradient = course.gradient
    if gradient is None or len(gradient) < 5:
        return
    low, high = course.curve.steps[e.first], course.curve.steps[e.peak]
    at = gradient.values[gradient.row_of(int(low)) : gradient.row_of(int(high)) + 3]
    before = gradient.values[: max(1, gradient.row_of(int(low)))][-100:]
    if at.size:
        yield Evidence("grad_norm_peak", float(np.max(at)))
        yield Evidence("grad_norm_baseline", float(np.median(before)))


def frequency(course: Course, spikes: list[Excursion]) -> Iterator[Evidence]:
    """How often they come, and whether ever closer together."""
    if len(spikes) < 2:
        return
    yield Evidence("per_1000_points", round(1000.0 * len(spikes) / len(course.curve), 3))
    if len(spikes) >= 5:
        gaps = np.array([b.peak - a.peak for a, b in pairwise(spikes)], dtype=float)
        half = gaps.size // 2
        yield Evidence("more_often", bool(np.median(gaps[half:]) < 0.5 * np.median(gaps[:half])))
