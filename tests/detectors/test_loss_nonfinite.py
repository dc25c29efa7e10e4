"""loss-nonfinite: the first step, whether it comes back, and the first tensor that went bad."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nndiag.detectors.loss_nonfinite import LossNonfinite
from nndiag.records import Abstention, Finding, NonfiniteOrigin, Parameter, Severity
from tests import synthetic


def found(run):
    return [f for f in LossNonfinite().examine(run) if isinstance(f, Finding)]


def healthy_but(**values: float):
    loss = synthetic.curve("healthy")
    for step, value in values.items():
        loss[int(step.removeprefix("at_"))] = value
    return synthetic.run_of(loss=loss)


def test_nan_from_the_middle_on_is_critical():
    [finding] = found(synthetic.run("NaN from the middle"))

    assert finding.severity is Severity.CRITICAL
    assert finding.step_start == 300
    assert finding.measured("recovered") is False
    assert finding.measured("count") == 300


def test_one_nan_that_goes_away_is_a_warning():
    [finding] = found(healthy_but(at_120=np.nan))

    assert finding.severity is Severity.WARNING
    assert finding.measured("recovered") is True
    assert finding.step_start == finding.step_end == 120


KINDS = [(np.inf, "infinite"), (-np.inf, "infinite"), (np.nan, "NaN")]


@pytest.mark.parametrize("value, word", KINDS)
def test_the_kind_of_value_is_told(value, word):
    [finding] = found(healthy_but(at_799=value))

    assert f"is {word} at step 799" in finding.message


def test_the_first_tensor_that_went_bad_is_named():
    origin = NonfiniteOrigin(299, "activation", "encoder.log", np.inf, True, "LogBackward0")
    [finding] = found(replace(synthetic.run("NaN from the middle"), nonfinite=(origin,)))

    assert finding.layers == ("encoder.log",)
    assert finding.measured("origin_kind") == "activation"
    assert "the activation of encoder.log at step 299 (LogBackward0)" in finding.message


def test_a_bad_parameter_names_its_module():
    origin = NonfiniteOrigin(300, "gradient", "head.weight", np.nan, True)
    parameter = Parameter("head.weight", (2, 2), True, "SGD", layer="head")
    run = synthetic.run("NaN from the middle")
    [finding] = found(replace(run, nonfinite=(origin,), parameters=(parameter,)))

    assert finding.layers == ("head",)


def test_what_went_bad_later_is_not_the_origin():
    origin = NonfiniteOrigin(450, "parameter", "head.weight", np.nan, True)
    [finding] = found(replace(synthetic.run("NaN from the middle"), nonfinite=(origin,)))

    assert finding.measured("origin_kind") is None


def test_a_validation_loss_alone_is_a_warning():
    run = synthetic.validated(synthetic.run("healthy"), [1.0, np.nan, 0.8], every=200)
    [finding] = found(run)

    assert finding.severity is Severity.WARNING
    assert finding.series == "val_loss"


def test_finite_losses_are_no_finding_however_large():
    assert found(healthy_but(at_300=1e30)) == []


def test_a_run_without_a_loss_is_not_judged():
    run = synthetic.run_of(lr=[0.1])

    assert list(LossNonfinite().examine(run)) == [
        Abstention("loss-nonfinite", "no loss in this log")
    ]
