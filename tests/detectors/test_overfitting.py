"""overfitting: the validation loss turns while the training loss falls on."""

from __future__ import annotations

import numpy as np
import pytest

from nndiag.detectors.overfitting import Overfitting
from nndiag.records import Finding, Series, Severity
from tests import synthetic


def found(run):
    return [f for f in Overfitting().examine(run) if isinstance(f, Finding)]


def reasons(run):
    return [said.reason for said in Overfitting().examine(run) if not isinstance(said, Finding)]


def trained(val, *, train_end: float = 0.02):
    every = 40
    train = synthetic.run_of(loss=synthetic.falling(every * len(val), end=train_end, pace=0.4))
    return synthetic.validated(train, val, every)


@pytest.mark.parametrize("seed", range(5))
def test_a_validation_loss_that_turns_is_reported_from_its_minimum(seed):
    [finding] = found(synthetic.overfitted(seed))

    assert finding.severity is Severity.WARNING
    assert 140 <= finding.step_start <= 380
    assert finding.measured("best") < finding.measured("end")
    assert finding.measured("rise_fraction") > 0.08


def test_seven_validations_are_enough_where_the_rise_is_clear():
    assert len(found(trained([1.0, 0.7, 0.6, 0.75, 0.9, 1.1, 1.3]))) == 1


def test_a_rising_accuracy_makes_it_over_confidence():
    run = synthetic.overfitted()
    steps = run.one("val_loss").steps
    accuracy = Series("val_accuracy", steps, np.linspace(0.5, 0.9, steps.size))
    [finding] = found(type(run)(run.path, run.format, (*run.series, accuracy)))

    assert finding.measured("accuracy_still_rises") is True
    assert "over-confident" in finding.message


QUIET = {
    "one uptick at the end": trained([1.0, 0.8, 0.6, 0.5, 0.45, 0.4, 0.6]),
    "noisy validations of a small set": trained([1.0, 0.7, 0.4, 0.25, 0.39, 0.45, 0.28, 0.35]),
    "a gap that stays": trained([1.0, 0.8, 0.7, 0.68, 0.67, 0.67, 0.66, 0.67, 0.66]),
    "a training loss that rises as well": synthetic.validated(
        synthetic.run("diverging"),
        np.r_[np.linspace(1, 0.5, 10), np.linspace(0.5, 5, 10)],
        every=40,
    ),
    "a loss that falls": synthetic.well_fitted(),
}


@pytest.mark.parametrize("run", QUIET.values(), ids=QUIET)
def test_stays_silent_about(run):
    assert found(run) == []


def test_noisy_but_sound_validation_is_left_alone():
    assert [s for s in range(20) if found(synthetic.well_fitted(s))] == []


ABSTAINS = {
    "no validation loss in this log": synthetic.run("healthy"),
    "3 validations; 5 needed": trained([1.0, 0.5, 0.9]),
    "the validation loss may be negative; ratios mean nothing": trained(
        [1.0, -0.5, -0.9, -0.5, -0.2, 0.3]
    ),
}


@pytest.mark.parametrize("reason", ABSTAINS)
def test_says_why_it_cannot_judge(reason):
    assert reasons(ABSTAINS[reason]) == [reason]
