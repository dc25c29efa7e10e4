"""Which findings a baseline knows, and which curves it learns."""

from __future__ import annotations

import pytest

from nndiag.baseline import contents
from nndiag.records import Diagnosis, Finding, Severity, Verdict
from tests import synthetic

SPIKE = Finding("loss-spike", Severity.WARNING, 0.9, "a spike", 10, 20, series="loss")
DEAD = Finding("dead-relu", Severity.WARNING, 0.9, "dead", 10, 20, layers=("net.3", "net.5"))


def sick(*findings: Finding, seed: int = 0) -> Diagnosis:
    return Diagnosis(synthetic.run("healthy", seed=seed), Verdict.WARNING, findings)


BASE = contents.learn([sick(SPIKE, DEAD)])
KNOWN = {
    "the same": SPIKE,
    "at other steps": SPIKE.with_(step_start=400, step_end=401, message="other", confidence=0.2),
    "milder": SPIKE.with_(severity=Severity.INFO),
    "the same kind of layer, another number": DEAD.with_(layers=("net.12",)),
    "made graver by a symptom that is known": SPIKE.with_(
        severity=Severity.WARNING, symptoms=(DEAD,)
    ),
}
NEW = {
    "another name": SPIKE.with_(name="loss-divergence"),
    "graver": SPIKE.with_(severity=Severity.CRITICAL),
    "another series": SPIKE.with_(series="val_loss"),
    "another model": SPIKE.with_(owner="D"),
    "other layers": DEAD.with_(layers=("net.3", "head.1")),
}


@pytest.mark.parametrize("finding", KNOWN.values(), ids=KNOWN)
def test_is_known(finding: Finding) -> None:
    assert BASE.knows(finding, sick().run)


@pytest.mark.parametrize("finding", NEW.values(), ids=NEW)
def test_is_new(finding: Finding) -> None:
    assert not BASE.knows(finding, sick().run)


def test_a_symptom_of_the_baseline_is_known_as_a_cause() -> None:
    base = contents.learn([sick(SPIKE.with_(symptoms=(DEAD,)))])

    assert base.knows(DEAD, sick().run)


def test_findings_are_counted_over_runs_with_their_gravest_severity() -> None:
    base = contents.learn([sick(SPIKE), sick(SPIKE.with_(severity=Severity.CRITICAL)), sick(DEAD)])

    assert [(one.what.name, str(one.severity), one.runs) for one in base.findings] == [
        ("dead-relu", "warning", 1),
        ("loss-spike", "critical", 2),
    ]


def test_the_same_run_counts_once_for_the_band() -> None:
    again = contents.learn([sick(seed=1), sick(seed=1), sick(seed=2)])

    assert again.runs == 3
    assert [len(curve.levels) for curve in again.curves] == [2]


def test_curves_of_another_name_are_another_curve() -> None:
    one, other = sick(seed=1), sick(seed=2)
    renamed = [
        type(s)(s.metric, s.steps, s.values, name="ce") if s.metric == "loss" else s
        for s in other.run.series
    ]
    run = type(other.run)(other.run.path, other.run.format, tuple(renamed))
    base = contents.learn([one, Diagnosis(run, Verdict.HEALTHY)])

    assert sorted(curve.label for curve in base.curves) == ["ce", "loss"]
