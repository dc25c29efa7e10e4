"""The report of `preflight`: a line for each check, at every width."""

from __future__ import annotations

import json

import pytest

from nndiag.gate import Gate
from nndiag.preflight.check import Check, State
from nndiag.records import Diagnosis, Finding, Run, Severity, Verdict
from nndiag.reports import checklist, plain
from nndiag.reports.checklist import Trial

CHECKS = (
    Check(name="parameters", state=State.OK, text="all 6 trainable (6,154 numbers) held by Adam"),
    Check(
        name="zero_grad",
        state=State.WRONG,
        text="6 gradients of the last step were still there in the next",
        findings=("missing-zero-grad",),
    ),
    Check(
        name="activations",
        state=State.LOOK,
        text="variance 0.3 -> 1.5e-07 over 8 layers, x 0.13 a layer",
        profile=(0.3, 1e-3, 1e-5, 1.5e-7, 0.0, float("nan"), float("inf")),
    ),
    Check(name="dead units", state=State.UNSEEN, text="no ReLU was seen"),
)
TRIAL = Trial(script="x.py", asked=20, made=20, seconds=4.24, why="stopped", notes=("a note",))
SICK = Diagnosis(
    Run("x.py", "nndiag", ()),
    Verdict.WARNING,
    (Finding("missing-zero-grad", Severity.WARNING, 0.9, "They pile up."),),
)
CALM = Diagnosis(Run("x.py", "nndiag", ()), Verdict.HEALTHY)


def text(diagnosis: Diagnosis, trial: Trial = TRIAL, **options: int | bool) -> str:
    return plain.text(checklist.report(diagnosis, CHECKS, trial, Gate(), **options))  # type: ignore


def test_verdict_checks_findings_and_outcome_in_this_order() -> None:
    lines = text(SICK).splitlines()

    assert lines[:2] == [
        "WARNING  x.py  first 20 steps, then stopped; 4.2 s in all",
        "1 wrong, 1 to look at, 1 ok, 1 not seen",
    ]
    assert lines[3] == "  ok       parameters    all 6 trainable (6,154 numbers) held by Adam"
    assert lines[-2:] == [
        "FAILED  missing-zero-grad  (fails on warning)",
        "next       nndiag explain missing-zero-grad",
    ]
    assert "1  missing-zero-grad  warning" in text(SICK)


def test_a_healthy_run_passes_and_is_sent_on_to_watch() -> None:
    lines = text(CALM).splitlines()

    assert lines[0].startswith("HEALTHY")
    assert lines[-2:] == ["PASSED  (fails on warning)", "next       nndiag watch x.py"]


def test_a_script_that_failed_is_no_pass() -> None:
    failed = Trial(script="x.py", asked=20, made=7, seconds=1, why="failed")

    assert text(CALM, failed).startswith("ERROR  x.py  first 7 steps, then it failed")
    assert "PASSED" not in text(CALM, failed)


@pytest.mark.parametrize("width", [50, 80, 120, 400])
def test_no_line_is_wider_than_the_screen(width: int) -> None:
    assert max(map(len, text(SICK, width=width).splitlines())) <= min(width, 120)


def test_without_drawing_characters_all_is_ascii() -> None:
    assert text(SICK, ascii_only=True).isascii()


def test_a_bar_falls_with_the_decades() -> None:
    drawn = checklist.bars((1.0, 1e-4, 1e-8, 0.0, float("nan"), float("inf")), ascii_only=True)

    assert drawn[0] == drawn[5] == "#" and drawn[2] == drawn[3] == "_" and drawn[4] == "!"
    assert checklist.bars((0.0, 0.0)) == "\u2581\u2581"


def test_json_holds_the_checks_beside_the_findings() -> None:
    [run] = json.loads(checklist.json_text(SICK, CHECKS, TRIAL, Gate()))["runs"]

    assert [check["state"] for check in run["checks"]] == ["ok", "wrong", "look", "not seen"]
    assert run["checks"][2]["profile"][-2:] == ["NaN", "Infinity"]
    assert run["preflight"]["steps_asked"] == 20
    assert run["findings"][0]["name"] == "missing-zero-grad"


def test_names_from_a_model_cannot_do_anything_to_a_terminal() -> None:
    evil = Check(name="gradient", state=State.LOOK, text="none for `\x1b[2J`")
    lines = checklist.report(CALM, [evil], TRIAL, Gate())

    assert "\x1b" not in plain.text(lines)
