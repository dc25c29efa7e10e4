"""unused-parameters and untrained-parameters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nndiag.detectors.untrained_parameters import UntrainedParameters
from nndiag.detectors.unused_parameters import UnusedParameters
from nndiag.records import Severity
from tests.detectors.nets import (
    EVERY,
    dead,
    findings,
    flat,
    learns,
    net,
    reasons,
    series,
    stays,
    weights,
)

GOOD = [1.0] * 6


def changed(run, where, **about):
    """The run with the parameters of one layer changed."""
    parameters = tuple(replace(p, **about) if p.layer == where else p for p in run.parameters)
    return replace(run, parameters=parameters)


def updates(run, where, values):
    kept = [
        s for s in run.series if (s.metric, s.where) != ("param_update_norm", f"{where}.weight")
    ]
    new = series("param_update_norm", values, f"{where}.weight", every=EVERY)
    return replace(run, series=(*kept, new))


def biases(run, grad):
    new = [
        series("param_grad_norm", flat(grad), p.name, every=EVERY)
        for p in run.parameters
        if not p.is_weight
    ]
    return replace(run, series=(*run.series, *new))


def test_a_parameter_that_never_gets_a_gradient_is_unused():
    [finding] = findings(UnusedParameters(), weights(net(learns()), [1, 1, 1, -1, 1, 1]))

    assert finding.severity is Severity.WARNING
    assert finding.layers == ("6",)
    assert finding.confidence == 1.0
    assert "no gradient (None)" in finding.message
    assert "the graph from the loss does not reach them" in finding.message


def test_a_layer_that_is_never_called_is_told_as_such():
    run = weights(net(learns()), [1, 1, 1, -1, 1, 1])
    run = replace(run, layers=tuple(layer for layer in run.layers if layer.name != "6"))

    [finding] = findings(UnusedParameters(), run)

    assert finding.measured("never_called") is True


def test_all_unused_layers_are_one_finding():
    [finding] = findings(UnusedParameters(), weights(net(learns()), [-1, -1, 0.0, 1, 1, 1]))

    assert finding.layers == ("0", "2", "4")


NOW_AND_THEN = series("param_grad_norm", [0, 0, 0, 1, 0, 0, 0], "4.weight")

UNUSED_QUIET = {
    "a healthy net": weights(net(learns()), GOOD),
    "a frozen layer": changed(
        weights(net(learns()), [-1, 1, 1, 1, 1, 1]), "0", requires_grad=False
    ),
    "zeros that a dead layer makes": dead(weights(net(stays()), [0.0] * 6), "3", flat(1.0)),
    "biases that a norm makes useless": biases(weights(net(learns()), GOOD), 0.0),
    "a parameter that is used now and then": net(learns(), NOW_AND_THEN),
    "too few steps": weights(net(learns(points=10)), [-1] * 6),
}  # fmt: skip


@pytest.mark.parametrize("run", UNUSED_QUIET.values(), ids=UNUSED_QUIET)
def test_unused_stays_silent_about(run):
    assert findings(UnusedParameters(), run) == []


def test_a_parameter_that_no_optimizer_holds_is_untrained():
    [finding] = findings(UntrainedParameters(), changed(net(learns()), "4", optimizer=None))

    assert finding.layers == ("4",)
    assert finding.measured("held_by_no_optimizer") is True
    assert "2 of 12 trainable parameters are held by no optimizer: `4`" in finding.message


def test_a_group_with_learning_rate_zero_is_untrained():
    run = changed(updates(weights(net(learns()), GOOD), "4", flat(0.0)), "4", lr=0.0)

    [finding] = findings(UntrainedParameters(), run)

    assert finding.measured("learning_rate_zero") is True
    assert "the learning rate of their group is 0" in finding.message


def teacher(run):
    """The run with a second model of the same names that nobody trains."""
    copies = tuple(replace(p, model="Teacher", optimizer=None) for p in run.parameters)
    return replace(run, parameters=run.parameters + copies)


def forgotten(run):
    """The run with a second model that gets gradients and that no optimizer holds."""
    run = teacher(run)
    theirs = tuple(replace(p, has_grad=True) if not p.optimizer else p for p in run.parameters)
    return replace(run, parameters=theirs)


def test_a_model_that_gets_gradients_and_no_optimizer_was_forgotten():
    [finding] = findings(UntrainedParameters(), forgotten(net(learns())))

    assert finding.measured("parameters") == 12


def without_layer(run, name):
    return replace(run, layers=tuple(layer for layer in run.layers if layer.name != name))


UNTRAINED_QUIET = {
    "a healthy net": weights(net(learns()), GOOD),
    "a frozen backbone": changed(net(learns()), "0", requires_grad=False, optimizer=None),
    "a schedule that ended at 0": changed(weights(net(learns()), GOOD), "4", lr=0.0),
    "a warm-up that began at 0": updates(weights(net(learns()), GOOD), "4", [0.0, *flat(0.1, 39)]),
    "updates lost in rounding": updates(
        weights(net(stays()), [1, 1, 1e-9, 1, 1, 1]), "4", flat(0.0)
    ),
    "a teacher that nobody trains": teacher(net(learns())),
    "a module that training does not call": without_layer(
        changed(net(learns()), "4", optimizer=None), "4"
    ),
}


@pytest.mark.parametrize("run", UNTRAINED_QUIET.values(), ids=UNTRAINED_QUIET)
def test_untrained_stays_silent_about(run):
    assert findings(UntrainedParameters(), run) == []


@pytest.mark.parametrize("detector", [UnusedParameters(), UntrainedParameters()])
def test_without_parameters_there_is_an_abstention(detector):
    run = replace(net(learns()), parameters=())

    assert reasons(detector, run) == ["layers were not recorded"]


def test_too_few_recorded_steps_are_an_abstention():
    run = weights(net(learns(points=10)), [-1] * 6)

    assert reasons(UnusedParameters(), run) == ["10 optimizer steps; 20 needed"]
    assert reasons(UntrainedParameters(), run) == ["10 optimizer steps; 20 needed"]
