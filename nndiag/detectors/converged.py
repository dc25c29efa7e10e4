"""The detector of `converged`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nndiag.curves.climbs import climb_of
from nndiag.curves.courses import Course, courses
from nndiag.curves.robust import probability
from nndiag.detectors.base import Detector
from nndiag.records import Abstention, Evidence, Finding, Run, Severity


@dataclass(frozen=True, kw_only=True)
class Converged(Detector):
    """The loss fell far and is flat now: a finished run rather than a stuck one.

    What it sees
        A curve that came down a good part of the way and did not move, within narrow limits, over
        its newest fifth.

    Why it happens
        The model has learned what it can from these data at this learning rate, or the schedule
        has come to its end.

    Evidence
        end < 70 % of the start, and the whole 95 % interval of the Theil-Sen change of the newest
        fifth lies within 5 %

    Remedy
        1. None is needed. If the level disappoints, decay the learning rate once more or take a
           larger model; more of the same steps will not help.

    Source
        Flatness as an equivalence claim: 89 % of the states called flat this way gained less than
        5 % later, in our measurement. The limits are our choice.
    """

    name = "converged"
    fewest: int = 100  # points. Our choice
    fallen: float = 0.7  # end over start. Our choice
    newest: float = 0.2  # of the points; the label rule of the runs it was tried on
    flat: float = 0.05  # in u; experiment E9

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        for course in courses(run):
            if course.rival:
                yield Abstention(
                    self.name, "several losses are trained in this run; none alone has an end"
                )
            elif len(course.curve) < self.fewest:
                yield Abstention(self.name, f"{len(course.curve)} points; {self.fewest} needed")
            elif self.is_done(course):
                yield self.finding(course)

    def is_done(self, course: Course) -> bool:
        curve = course.curve
        if not curve.positive or climb_of(curve) is not None or not curve.finite[-1]:
            return False
        start = min(curve.start, float(curve.values[0]))  # a blow-up is no height to fall from
        held = curve.end <= curve.best * 1.1 + 0.02 * max(0.0, start - curve.best)
        newest = curve.part(int((1.0 - self.newest) * len(curve)))
        return curve.end < self.fallen * start and held and newest.flat(self.flat)

    def finding(self, course: Course) -> Finding:
        curve = course.curve
        row = int((1.0 - self.newest) * len(curve))
        newest = curve.part(row)
        start = min(curve.start, float(curve.values[0]))
        return Finding(
            name=self.name,
            severity=Severity.INFO,
            confidence=probability(0.5, 1.0 - abs(newest.change) / self.flat, 0.5),
            message=(
                f"{course.loss.label} fell from {start:.3g} to {curve.end:.3g} and has not moved "
                f"since step {curve.steps[row]}: it looks finished."
            ),
            step_start=int(curve.steps[row]),
            step_end=int(curve.steps[-1]),
            series=course.loss.label,
            evidence=(
                Evidence("start", start),
                Evidence("level", curve.end),
                Evidence("change", round(newest.change, 4), self.flat),
            ),
        )
