from __future__ import annotations

from dataclasses import replace

import pytest

from nndiag.detectors.loss_off_chance import LossOffChance
from nndiag.diagnosis import diagnose
from nndiag.records import Fact, Run, Series
from tests.detectors.nets import findings, reasons, series

TOLD = {"operation": "cross-entropy", "classes": 10, "is_mean": True, "whole_loss": True}


def run(first: float, *, begin: int = 0, facts: int = 1, **changes: object) -> Run:
    loss = series("loss", [first, 2.2, 2.1])
    loss = Series("loss", loss.steps + begin, loss.values)
    numbers = tuple({**TOLD, **changes}.items())
    return Run("net", "nndiag", (loss,), facts=(Fact("loss", 0, numbers=numbers),) * facts)  # type: ignore[arg-type]


def test_a_classifier_that_is_sure_and_wrong_is_reported_with_its_level() -> None:
    [finding] = findings(LossOffChance(), run(50.0))

    assert finding.measured("chance") == pytest.approx(2.302585)
    assert finding.measured("times_chance") == pytest.approx(21.7, rel=1e-2)
    assert "ln 10" in finding.message


QUIET = {
    "a start at chance": run(2.31),
    "twice chance": run(4.6),
    "a trained model": run(0.2),
    "binary, at ln 2": run(0.7, operation="binary-cross-entropy", classes=0),
}
UNJUDGED = {
    "a sum": run(500.0, is_mean=False),
    "one of several losses": run(500.0, whole_loss=False),
    "a regression": run(500.0, operation="mse", classes=0),
    "a log that begins later": run(500.0, begin=100),
    "no facts": run(500.0, facts=0),
    "no loss": replace(run(5.0), series=()),
}


@pytest.mark.parametrize("quiet", QUIET.values(), ids=QUIET)
def test_stays_silent_about(quiet: Run) -> None:
    assert list(LossOffChance().examine(quiet)) == []


@pytest.mark.parametrize("unknown", UNJUDGED.values(), ids=UNJUDGED)
def test_abstains_from(unknown: Run) -> None:
    assert findings(LossOffChance(), unknown) == []
    assert len(reasons(LossOffChance(), unknown)) == 1


def test_the_remedies_are_about_weights_inputs_and_labels() -> None:
    [finding] = diagnose(run(50.0), [LossOffChance()]).findings

    assert {remedy.name for remedy in finding.remedies} >= {"reinitialise", "inspect-data"}
