"""The step ranges of findings, as curves show them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from nndiag.records import Finding
from nndiag.reports.html.courses import Axis


@dataclass(frozen=True, slots=True)
class Mark:
    """Where in a run a finding was made."""

    label: str  # its number on the page
    start: int  # the log's own steps
    end: int | None  # None: to the end of the run
    severity: str

    def within(self, axis: Axis) -> tuple[int, int]:
        """First and last step, not outside of the axis."""
        end = axis.last if self.end is None else self.end
        start, end = (min(max(step, axis.first), axis.last) for step in (self.start, end))
        return start, max(start, end)

    def overlaps(self, first: int, last: int) -> bool:
        return self.start <= last and (self.end is None or self.end >= first)


def marks(findings: Sequence[Finding]) -> tuple[Mark, ...]:
    """One for each finding that knows its steps; numbered as the findings are."""
    return tuple(
        Mark(str(number), one.step_start, one.step_end, str(one.severity))
        for number, one in enumerate(findings, start=1)
        if one.step_start is not None
    )
