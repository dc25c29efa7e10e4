"""Twenty steps of real trainings: the healthy ones pass, each fault has its name and its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from nndiag.preflight import first_look
from nndiag.preflight.check import State
from nndiag.preflight.first_look import FirstLook
from nndiag.readers import run_directory
from nndiag.records import Verdict
from tests.adapters.observed import Train
from tests.preflight.trainings import HEAD, HEALTHY, SICK

STEPS = 20


def look(train: Train, script: str) -> FirstLook:
    run: Path = train(HEAD + script, max_steps=STEPS).run_dir
    return first_look.look(run_directory.read(run), first_look.detectors())


@pytest.mark.parametrize("script", HEALTHY.values(), ids=HEALTHY)
def test_a_healthy_training_passes_with_nothing_wrong(train: Train, script: str) -> None:
    seen = look(train, script)

    assert [finding.name for finding in seen.diagnosis.findings if finding.severity > 1] == []
    assert [check.text for check in seen.checks if check.state is State.WRONG] == []
    assert seen.diagnosis.verdict is Verdict.HEALTHY


@pytest.mark.parametrize(("name", "line", "script"), SICK.values(), ids=SICK)
def test_a_fault_has_its_name_and_its_line(train: Train, name: str, line: str, script: str) -> None:
    seen = look(train, script)
    [check] = [check for check in seen.checks if check.name == line]

    assert check.state is State.WRONG, check
    assert name in check.findings
    assert seen.diagnosis.verdict in (Verdict.WARNING, Verdict.CRITICAL)
