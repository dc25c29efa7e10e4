"""A run beside a baseline: marked findings, curves that left the band, what was compared."""

from __future__ import annotations

import numpy as np

from nndiag.baseline import contents
from nndiag.baseline.against import judged_against
from nndiag.detectors.outside_baseline import OutsideBaseline
from nndiag.records import Diagnosis, Finding, Run, Series, Severity, Verdict

SPIKE = Finding("loss-spike", Severity.WARNING, 0.9, "a spike", 10, 20, series="loss")


def run(seed: int, factor: float = 1.0, steps: int = 400, name: str = "") -> Run:
    g = np.random.default_rng(seed)
    at = np.arange(steps)
    end = 0.4 * factor * np.exp(0.03 * g.standard_normal())
    values = (end + 2 * np.exp(-at / 60)) * np.exp(0.1 * g.standard_normal(steps))
    return Run(f"r{seed}", "csv", (Series("loss", at, values, name=name),))


def judged(one: Run, *findings: Finding, base: contents.Baseline | None = None) -> Diagnosis:
    known = base or BASE
    return judged_against(Diagnosis(one, Verdict.HEALTHY, findings), known, OutsideBaseline())


BASE = contents.learn([Diagnosis(run(seed), Verdict.HEALTHY, (SPIKE,)) for seed in range(6)])


def test_known_findings_are_marked_and_new_ones_are_not() -> None:
    worse = SPIKE.with_(severity=Severity.CRITICAL)

    assert [one.known for one in judged(run(9), SPIKE, worse).findings] == [False, True]


def test_a_healthy_run_stays_as_it_was() -> None:
    diagnosis = judged(run(9))

    assert (diagnosis.verdict, diagnosis.findings) == (Verdict.HEALTHY, ())
    assert diagnosis.notes == () and diagnosis.abstained == ()


def test_a_worse_run_gets_one_finding_with_the_numbers() -> None:
    diagnosis = judged(run(9, factor=3))
    [finding] = diagnosis.findings

    assert diagnosis.verdict is Verdict.WARNING
    assert (finding.name, finding.series, finding.known) == ("outside-baseline", "loss", False)
    measured = {one.name: one.measured for one in finding.evidence}
    assert measured["value"] > finding.evidence[0].limit > measured["baseline_highest"]
    assert measured["baseline_runs"] == 6 and measured["false_alarm_rate"] == 0.001
    assert finding.step_end == 399
    assert [remedy.name for remedy in finding.remedies] == ["revert-change", "update-baseline"]


def test_a_run_of_another_length_says_what_was_compared() -> None:
    [short] = judged(run(9, steps=250)).notes
    [long] = judged(run(9, steps=900)).notes

    assert short == (
        "loss stops at step 249, the baseline goes on to 399: only what both cover was compared"
    )
    assert long == "loss was compared with the baseline up to step 399"


def test_what_cannot_be_compared_is_said() -> None:
    other = judged(run(9, name="ce")).abstained
    tiny = judged(run(9, steps=10)).abstained
    two = contents.learn([Diagnosis(run(seed), Verdict.HEALTHY) for seed in range(2)])
    few = judged(run(9), base=two).abstained
    none = judged(run(9), base=contents.Baseline(3)).abstained

    assert [each.name for each in (*other, *tiny, *few, *none)] == ["outside-baseline"] * 4
    assert "the baseline has loss where this log has ce; --loss" in other[0].reason
    assert "cover too little of the baseline's 0-399" in tiny[0].reason
    assert "has 2 different runs; a band needs 3" in few[0].reason
    assert none[0].reason == "the baseline holds no curve"


def test_without_the_rule_only_findings_count() -> None:
    diagnosis = judged_against(Diagnosis(run(9, factor=3), Verdict.HEALTHY), BASE, None)

    assert (diagnosis.findings, diagnosis.abstained) == ((), ())
