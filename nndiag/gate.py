"""What fails a gate: which findings, of which severity, and what becomes of a run in doubt."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from nndiag.records import Diagnosis, Finding, Verdict
from nndiag.settings import Settings

PASSED, FAILED, COULD_NOT = 0, 1, 2  # exit status


@dataclass(frozen=True, slots=True)
class Gate:
    """The rules of one gate. Findings that a baseline knows already never fail it."""

    settings: Settings = field(default_factory=Settings)
    strict: bool = False  # undecided fails too

    def fails(self, finding: Finding) -> bool:
        """Whether a finding fails the gate: by severity, or by its name or that of a symptom."""
        if not finding.known and self.settings.fails(finding.name, str(finding.severity)):
            return True
        return any(
            symptom.name in self.settings.fail_on and not symptom.known
            for symptom in _all(finding.symptoms)
        )

    def failing(self, diagnosis: Diagnosis) -> tuple[Finding, ...]:
        """The findings of a run that fail the gate."""
        return tuple(finding for finding in diagnosis.findings if self.fails(finding))

    def doubt(self, diagnosis: Diagnosis) -> str:
        """Why a strict gate lets a run fail although nothing was found; "" where it does not."""
        if not self.strict:
            return ""
        if diagnosis.verdict is Verdict.UNDECIDED:
            return "undecided"
        if any(one.name == "outside-baseline" for one in diagnosis.abstained):
            return "not compared with the baseline"
        return ""

    def stops(self, diagnosis: Diagnosis) -> bool:
        """Whether a run fails the gate."""
        return bool(self.failing(diagnosis) or self.doubt(diagnosis))

    def status(self, diagnoses: Sequence[Diagnosis], errors: int = 0) -> int:
        """The exit status for some runs: what could not be done counts more than what was found."""
        if errors:
            return COULD_NOT
        return FAILED if any(map(self.stops, diagnoses)) else PASSED


def _all(findings: Sequence[Finding]) -> Iterator[Finding]:
    for finding in findings:
        yield finding
        yield from _all(finding.symptoms)
