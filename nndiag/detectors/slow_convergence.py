"""The detector of `slow-convergence`."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nndiag.curves import robust
from nndiag.curves.climbs import climb_of
from nndiag.curves.courses import Course, courses
from nndiag.curves.robust import probability
from nndiag.curves.segments import is_fragment
from nndiag.detectors.base import Detector
from nndiag.records import Abstention, Evidence, Finding, Run, Series, Severity


@dataclass(frozen=True, kw_only=True)
class SlowConvergence(Detector):
    """The loss falls, but far more slowly than the steps would allow.

    What it sees
        kappa, the cosine between each update and the gradient of the next batch. Where it stays
        below 0, the next batch still asks for the same direction: the step was too short, again
        and again. Without kappa only a clear curve counts: a straight, smooth fall that covers a
        small part of the way.

    Why it happens
        A learning rate too low, or decayed too early, or a clip threshold so low that it does the
        same. Seldom the batch size: batch times 4 and rate divided by 3 are the same remedy.

    Evidence
        kappa(t) = cos(gradient at t + 1, update made at t), after a quarter of the run, while the
        rate is above a tenth of its peak
        reported when mean kappa < -0.05 with t < -3 over 30 samples or more, also in their newer
        half, and the loss is still above 60 % of its start; above 20 % where kappa < -0.1
        curve alone: a fall of less than 10 % with the second half as steep as the first

    Remedy
        1. Raise the learning rate: 3 times where kappa > -0.15, 10 times below.
        2. If clipping cuts nearly every step of SGD, raise the threshold first.
        3. If the schedule is at its end, keep the rate up for longer.

    Source
        Our measurement over 360 runs: kappa < -0.05 finds 88 % of the runs whose rate is too low
        with a precision of 90 %; the cosine of consecutive gradients manages 52 %.
    """

    name = "slow-convergence"
    explains: ClassVar[tuple[str, ...]] = ("loss-plateau",)
    fewest_steps: int = 100  # optimizer steps. Our choice
    fewest_samples: int = 30  # values of kappa; fewer are too noisy. Research section 5
    fewest_clear_samples: int = 10  # where all are negative and far below the limit. Our choice
    kappa_limit: float = -0.05  # cosine; experiment E1
    strict_kappa: float = -0.1  # cosine, for a run that has made good progress; experiment E1
    much_left: float = 0.6  # of the start level; with less the strict limit holds. Our choice
    t_limit: float = -3.0  # mean over its standard error; our experiments
    after: float = 0.25  # of the run; before, 57 % of healthy runs are below, too. Research E1
    left: float = 0.2  # of the start level; below, a run is done rather than slow. Our choice
    still: float = -0.01  # in u over the newest half: it must be moving where nothing is noisy
    small_fall: float = 0.1  # of the start level, for the curve alone. Our choice
    curve_points: int = 200  # for the curve alone; our experiments

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        found = courses(run)
        if not found:
            yield Abstention(self.name, "no loss in this log")
        for course in found:
            why = self.why_not(course)
            if why:
                yield Abstention(self.name, why)
                continue
            kappa = run.companion("update_gradient_cosine", course.loss)
            samples = None if kappa is None else self.samples(course, kappa)
            if samples is not None and self.suffice(samples):
                verdict = self.from_kappa(course, samples)
            elif len(course.curve) < self.curve_points:
                seen = 0 if samples is None else samples.size
                yield Abstention(
                    self.name,
                    f"{len(course.curve)} steps and {seen} samples of the update direction; "
                    f"{self.curve_points} or {self.fewest_samples} needed",
                )
                continue
            else:
                verdict = self.from_curve(course)
            if verdict is not None:
                yield verdict

    def why_not(self, course: Course) -> str:
        """The reason for an abstention; "" where the curve can be judged."""
        curve = course.curve
        if course.rival:
            return "several losses are trained in this run; progress cannot be read from one"
        if len(curve) < self.fewest_steps:
            return f"{len(curve)} steps; {self.fewest_steps} needed"
        if is_fragment(curve.steps):
            return "the log begins in the middle of the run"
        warm = course.schedule.warmup_end
        if warm is not None and warm - curve.steps[0] > 0.5 * (curve.steps[-1] - curve.steps[0]):
            return "the learning rate warmed up for more than half of the run"
        return ""

    def samples(self, course: Course, kappa: Series) -> np.ndarray:
        """kappa where it can be judged: late enough, the rate neither warming up nor decayed."""
        steps = course.curve.steps
        begin = steps[0] + self.after * (steps[-1] - steps[0])
        begin = max(begin, course.schedule.warmup_end or 0)
        use = (kappa.steps >= begin) & (kappa.steps <= steps[-1]) & np.isfinite(kappa.values)
        lr = course.lr
        if lr is not None and course.schedule.known:
            at = np.clip(np.searchsorted(lr.steps, kappa.steps), 0, len(lr) - 1)
            use &= lr.values[at] >= 0.1 * course.schedule.peak
        chosen: np.ndarray = kappa.values[use]
        return chosen

    def suffice(self, samples: np.ndarray) -> bool:
        """Enough values of kappa; a few are, where they agree as they do at a rate far too low."""
        few = samples.size >= self.fewest_clear_samples
        clear = few and float(samples.mean()) < 3.0 * self.kappa_limit and samples.max() < 0.0
        return samples.size >= self.fewest_samples or clear

    def from_kappa(self, course: Course, samples: np.ndarray) -> Finding | None:
        curve = course.curve
        if climb_of(curve) is not None:
            return None
        mean = float(samples.mean())
        error = float(samples.std(ddof=1)) / math.sqrt(samples.size)
        t = mean / error if error > 0 else math.copysign(math.inf, mean)
        start = max(curve.start, float(curve.values[0]))
        left = curve.end / start if curve.positive and start > 0 else math.nan
        newer = float(samples[samples.size // 2 :].mean())
        limit = self.kappa_limit if left > self.much_left else self.strict_kappa
        if max(mean, newer) >= limit or t > self.t_limit or left < self.left:
            return None
        newest = curve.part(len(curve) // 2)
        # full batches: successive gradients agree as a matter of course
        quiet = robust.turning_share(curve.u) < 0.3
        if quiet and (newest.change > self.still or not self.unbent(course)):
            return None
        strength = 2.5 * min(1.0, abs(mean) / 0.2)
        went = "fell from" if curve.end < start else "went from"
        few = samples.size < self.fewest_samples
        enough = self.fewest_clear_samples if few else self.fewest_samples
        return self.finding(
            course,
            probability(-0.3, strength, 1.0 if left > 0.5 else 0.0),
            f"{course.loss.label} {went} {start:.4g} to {curve.end:.4g} in {len(curve)} steps, "
            f"and each update still agrees with the next gradient (mean cosine {mean:.2f} over "
            f"{samples.size} steps): the steps are too short.",
            (
                Evidence("update_gradient_cosine", round(mean, 4), self.kappa_limit),
                Evidence("samples", int(samples.size), enough),
            ),
        )

    def unbent(self, course: Course, since: int = 0) -> bool:
        """The second half falls at least at two thirds of the pace of the first."""
        begin = max(since, course.curve.opening)
        half = (begin + len(course.curve)) // 2
        first, second = course.curve.part(begin, half), course.curve.part(half)
        return second.change < 0.67 * first.change < 0

    def from_curve(self, course: Course) -> Finding | None:
        curve = course.curve
        if not curve.positive or climb_of(curve) is not None:
            return None
        top = int(np.argmax(curve.value_blocks[: max(1, curve.blocks.size // 4)]))
        row = top * len(curve) // curve.blocks.size  # some climb a little before they fall
        start = max(float(curve.value_blocks[top]), curve.start if top == 0 else 0.0)
        fall = 1.0 - curve.end / start if start > 0 else 0.0
        whole, noise = curve.part(row), 4.0 * curve.level_noise
        if not (noise < -whole.change and 0.0 < fall < self.small_fall and whole.kendall < -4.0):
            return None
        if course.schedule.finished is not None or not self.unbent(course, row):
            return None
        return self.finding(
            course,
            0.6,
            f"{course.loss.label} falls in a straight line and has covered {100 * fall:.1f} % of "
            f"its level in {curve.steps[-1] - curve.steps[0]} steps.",
            (),
        )

    def finding(
        self, course: Course, confidence: float, message: str, evidence: tuple[Evidence, ...]
    ) -> Finding:
        curve = course.curve
        start = max(curve.start, float(curve.values[0]))
        left = curve.end / start if start else math.nan
        halves = robust.block_medians(curve.u, 2)
        return Finding(
            name=self.name,
            severity=Severity.WARNING,
            confidence=confidence,
            message=message,
            step_start=int(curve.steps[0]),
            step_end=int(curve.steps[-1]),
            series=course.loss.label,
            owner=course.owner,
            evidence=(
                *evidence,
                Evidence("start", start),
                Evidence("end", curve.end),
                Evidence("left_fraction", round(left, 4), self.left),
                Evidence("gain_of_halves", round(float(halves[0] - halves[-1]), 4)),
            ),
        )
