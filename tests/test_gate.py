"""What fails a gate, and with which exit status."""

from __future__ import annotations

import pytest

from nndiag.gate import Gate
from nndiag.records import Abstention, Diagnosis, Finding, Run, Severity, Verdict
from nndiag.settings import Settings

INFO = Finding("converged", Severity.INFO, 0.9, "flat")
SPIKE = Finding("loss-spike", Severity.WARNING, 0.9, "a spike")
NAN = Finding("loss-nonfinite", Severity.CRITICAL, 1.0, "NaN", symptoms=(SPIKE,))


def gate(*fail_on: str, strict: bool = False) -> Gate:
    return Gate(Settings(fail_on=fail_on or ("warning",)), strict)


def diagnosis(*findings: Finding, verdict: Verdict = Verdict.HEALTHY) -> Diagnosis:
    return Diagnosis(Run("r", "csv", ()), verdict, findings)


@pytest.mark.parametrize(
    ("fail_on", "failing"),
    [
        (("warning",), [SPIKE, NAN]),
        (("critical",), [NAN]),
        (("info",), [INFO, SPIKE, NAN]),
        (("converged",), [INFO]),
        (("critical", "converged"), [INFO, NAN]),
        (("dead-relu",), []),
        (("loss-spike",), [SPIKE, NAN]),  # a symptom that is asked for by name
    ],
)
def test_fails_on(fail_on: tuple[str, ...], failing: list[Finding]) -> None:
    assert list(gate(*fail_on).failing(diagnosis(INFO, SPIKE, NAN))) == failing


def test_what_is_known_never_fails() -> None:
    known = NAN.with_(known=True, symptoms=(SPIKE.with_(known=True),))

    assert not gate("info", "loss-nonfinite", "loss-spike").stops(diagnosis(known))


def test_in_doubt_only_a_strict_gate_fails() -> None:
    undecided = diagnosis(verdict=Verdict.UNDECIDED)
    abstained = Diagnosis(
        undecided.run, Verdict.HEALTHY, abstained=(Abstention("outside-baseline", "too short"),)
    )

    assert gate().status([undecided, abstained]) == 0
    assert gate(strict=True).status([undecided]) == 1
    assert gate(strict=True).doubt(abstained) == "not compared with the baseline"


def test_the_worst_counts_and_errors_count_most() -> None:
    healthy, sick = diagnosis(INFO), diagnosis(SPIKE)

    assert gate().status([healthy]) == 0
    assert gate().status([healthy, sick]) == 1
    assert gate().status([healthy, sick], errors=1) == 2
