"""diagnose: causes first, symptoms tied to them, a verdict, and no surprise."""

from __future__ import annotations

import random
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from nndiag.detectors import catalogue
from nndiag.detectors.base import Detector
from nndiag.diagnosis import diagnose, tie
from nndiag.records import Abstention, Finding, Run, Series, Severity, Verdict
from tests.detectors.nets import dead, flat, learns, measured, net, stays, weights


def loss(points: int = 300) -> Series:
    return Series("loss", np.arange(points), np.linspace(2.0, 0.1, points))


def run(*series: Series, notes: tuple[str, ...] = ()) -> Run:
    return Run("log.csv", "csv", series, notes=notes)


def finding(name: str, severity: Severity = Severity.WARNING, **about: object) -> Finding:
    given = {"step_start": 0, "confidence": 0.8, "message": name, **about}
    return Finding(name=name, severity=severity, **given)  # type: ignore[arg-type]


def seer(says: object, explained: tuple[str, ...] = ()) -> Detector:
    """A detector that always says the same."""

    @dataclass(frozen=True, kw_only=True)
    class Seer(Detector):
        name: ClassVar[str] = getattr(says, "name", "seer")
        explains: ClassVar[tuple[str, ...]] = explained

        def examine(self, run: Run) -> Iterator[Finding | Abstention]:
            if isinstance(says, Exception):
                raise says
            if says is not None:
                yield says  # type: ignore[misc]

    return Seer()


def names(findings: tuple[Finding, ...]) -> list[str]:
    return [f.name for f in findings]


def test_a_symptom_is_attached_to_its_cause_and_not_repeated():
    detectors = [seer(finding("b")), seer(finding("a"), ("b",))]

    [cause] = diagnose(run(loss()), detectors).findings

    assert cause.name == "a"
    assert names(cause.symptoms) == ["b"]


def test_the_symptoms_of_a_symptom_go_to_the_cause():
    detectors = [seer(finding("a"), ("b",)), seer(finding("b"), ("c",)), seer(finding("c"))]

    [cause] = diagnose(run(loss()), detectors).findings

    assert names(cause.symptoms) == ["b", "c"]
    assert all(symptom.symptoms == () for symptom in cause.symptoms)


def test_a_cause_is_as_grave_as_what_it_brings_about():
    detectors = [seer(finding("a"), ("b",)), seer(finding("b", Severity.CRITICAL))]

    diagnosis = diagnose(run(loss()), detectors)

    assert diagnosis.findings[0].severity is Severity.CRITICAL
    assert diagnosis.verdict is Verdict.CRITICAL


@pytest.mark.parametrize(
    ("first", "second", "cause"),
    [
        (finding("a", step_start=50), finding("b", step_start=10), "b"),
        (finding("a", confidence=0.7), finding("b", confidence=0.9, step_start=5), "b"),
        (finding("a"), finding("b"), "a"),
    ],
    ids=["the earlier", "the surer", "the first by name"],
)
def test_of_two_that_explain_each_other_the_cause_is(first, second, cause):
    tied = tie([first, second], {"a": ("b",), "b": ("a",)})

    assert [f.name for f in tied] == [cause]


def test_a_circle_of_explanations_keeps_one_cause():
    three = [finding("a"), finding("b"), finding("c")]

    tied = tie(three, {"a": ("b",), "b": ("c",), "c": ("a",)})

    assert [f.name for f in tied] == ["a"]
    assert sorted(names(tied[0].symptoms)) == ["b", "c"]


APART = {
    "what ended before the cause began": (
        finding("a", step_start=500),
        finding("b", step_start=100, step_end=110),
    ),
    "what was there before it and long after it": (
        finding("a", step_start=1000, step_end=2000),
        finding("b", step_start=0, step_end=9000),
    ),
    "what belongs to another optimizer": (finding("a", owner="Adam"), finding("b", owner="Adam-1")),
    "what is worse than a mere remark": (finding("a", Severity.INFO), finding("b")),
}


@pytest.mark.parametrize(("cause", "symptom"), APART.values(), ids=APART)
def test_a_cause_does_not_explain(cause, symptom):
    tied = tie([cause, symptom], {"a": ("b",)})

    assert len(tied) == 2


def test_findings_come_worst_first():
    detectors = [
        seer(finding("note", Severity.INFO)),
        seer(finding("late", Severity.CRITICAL, step_start=90)),
        seer(finding("early", Severity.CRITICAL, step_start=5)),
        seer(finding("warn")),
    ]

    assert names(diagnose(run(loss()), detectors).findings) == ["early", "late", "warn", "note"]


def test_a_detector_that_fails_is_an_abstention_and_hides_nothing():
    diagnosis = diagnose(run(loss()), [seer(ValueError("no such column")), seer(finding("a"))])

    assert names(diagnosis.findings) == ["a"]
    assert diagnosis.abstained == (
        Abstention("seer", "could not judge: ValueError no such column"),
    )


@pytest.mark.parametrize(
    ("series", "verdict", "note"),
    [
        ((loss(),), Verdict.HEALTHY, ""),
        ((), Verdict.UNDECIDED, "undecided: no loss was found"),
        ((loss(5),), Verdict.UNDECIDED, "undecided: the loss has 5 points; 20 are needed"),
    ],
    ids=["a loss", "no loss", "five points"],
)
def test_silence_is_health_only_where_there_was_something_to_judge(series, verdict, note):
    diagnosis = diagnose(run(*series, notes=("read 3 files",)), [seer(None)])

    assert diagnosis.verdict is verdict
    assert diagnosis.notes == ("read 3 files", *filter(None, [note]))


def test_a_finding_decides_even_a_short_run():
    assert diagnose(run(loss(5)), [seer(finding("a"))]).verdict is Verdict.WARNING


def test_a_run_most_loss_rules_cannot_judge_is_undecided():
    shy = [seer(Abstention(n, "too short")) for n in ("loss-spike", "loss-plateau")]

    diagnosis = diagnose(run(loss(30)), [*shy, seer(None)])

    assert diagnosis.verdict is Verdict.UNDECIDED
    assert "2 of 2 loss rules could not judge" in diagnosis.notes[-1]


def test_a_long_run_is_not_undecided_because_its_losses_play_against_each_other():
    shy = [seer(Abstention(n, "rivals")) for n in ("loss-spike", "loss-plateau")]

    assert diagnose(run(loss(200)), [*shy, seer(None)]).verdict is Verdict.HEALTHY


def collapsed() -> Run:
    """A deep net whose signal and gradients fade, and whose last ReLU dies of it."""
    sick = net(stays(), depth=6)
    sick = measured(sick, "activation_sample_variance", [0.3, 1e-2, 1e-4, 1e-6, 1e-8, 1e-10])
    sick = weights(sick, [1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.1])
    return dead(sick, "9", [0.0, 0.0, *flat(0.9, 30)])


def test_one_cause_is_one_finding():
    diagnosis = diagnose(collapsed(), catalogue.every())

    [cause] = diagnosis.findings
    assert cause.name in ("vanishing-gradient", "activation-vanishing")
    assert {"dead-relu", "loss-plateau"} <= set(names(cause.symptoms))
    assert cause.remedies
    assert all(symptom.remedies == () for symptom in cause.symptoms)


def test_a_healthy_net_is_left_in_peace():
    fine = measured(net(learns()), "activation_sample_variance", [1.0] * 6)
    fine = dead(weights(fine, [0.3] * 6), "3", flat(0.05))

    diagnosis = diagnose(fine, catalogue.every())

    assert [f for f in diagnosis.findings if f.severity > Severity.INFO] == []
    assert diagnosis.verdict is Verdict.HEALTHY


def test_the_same_run_gives_the_same_diagnosis_in_whatever_order_it_is_asked():
    detectors = list(catalogue.every())
    before = diagnose(collapsed(), detectors)
    random.Random(1).shuffle(detectors)
    after = diagnose(collapsed(), detectors)

    assert after.findings == before.findings
    assert after.abstained == before.abstained
    assert after.notes == before.notes


def test_diagnosing_loads_no_framework_and_no_terminal():
    asked = "import sys, nndiag.diagnosis; from nndiag.detectors import catalogue as c"
    program = f"{asked}; c.every(); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )

    loaded = set(done.stdout.split())
    assert "numpy" in loaded
    assert not {"torch", "jax", "keras", "rich", "typer", "wandb"} & loaded
