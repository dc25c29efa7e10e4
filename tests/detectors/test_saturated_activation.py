from __future__ import annotations

from dataclasses import replace

import pytest

from nndiag.detectors.saturated_activation import SaturatedActivation
from nndiag.records import Layer, Severity
from tests.detectors.nets import (
    EVERY,
    findings,
    flat,
    learns,
    measured,
    net,
    reasons,
    series,
    stays,
)


def squashed(loss, kind, mean, variance, **about):
    """A net of three hidden activations whose outputs have this mean and variance."""
    run = net(loss, depth=4, activation=kind, **about)
    run = measured(run, "activation_mean", [mean] * 3, kind)
    return measured(run, "activation_variance", [variance] * 3, kind)


def saturated(run, where, values):
    seen = series("saturated_unit_fraction", values, where, every=EVERY)
    return replace(run, series=(*run.series, seen))


def test_a_tanh_net_that_starts_at_its_limits_is_seen_although_it_learns():
    [finding] = findings(SaturatedActivation(), squashed(learns(), "Tanh", 0.05, 0.84))

    assert finding.severity is Severity.WARNING
    assert finding.layers == ("1", "3", "5")
    assert finding.measured("mean_square") == pytest.approx(0.8425)
    assert finding.measured("saturated_from_start") is True


def test_a_sigmoid_is_judged_around_its_middle():
    [finding] = findings(SaturatedActivation(), squashed(stays(), "Sigmoid", 0.5, 0.22))

    assert finding.severity is Severity.CRITICAL  # and the net does not learn
    assert finding.measured("mean_square") == pytest.approx(0.88)


def test_units_that_settle_at_their_limits_are_reported_from_that_step():
    run = saturated(net(learns(), depth=4, activation="Tanh"), "3", [0.0, 0.2, *flat(0.8, 20)])

    [finding] = findings(SaturatedActivation(), run)

    assert finding.step_start == 20
    assert finding.measured("saturated_unit_fraction") == 0.8


def test_a_squashing_call_is_judged_by_what_feeds_it():
    run = saturated(net(learns(), depth=4, activation="Dropout"), "2", flat(0.05))
    run = measured(run, "activation_mean", [0.0] * 4)
    run = measured(run, "activation_variance", [64.0, 64.0, 64.0, 1.0])

    [finding] = findings(SaturatedActivation(), run)

    assert finding.layers == ("2",)
    assert finding.measured("input_rms") == pytest.approx(8.0)


def gated(loss):
    """A squeeze-and-excitation gate: a sigmoid among ReLUs, fully open."""
    run = net(loss, depth=6)
    gate = Layer("gate", "Sigmoid", 5, "Net")
    return saturated(replace(run, layers=(*run.layers, gate)), "gate", flat(0.9))


QUIET = {
    "a healthy tanh net": squashed(learns(), "Tanh", 0.0, 0.5),
    "a healthy sigmoid net": squashed(learns(), "Sigmoid", 0.5, 0.02),
    "half of the units, while it learns": saturated(
        net(learns(), depth=4, activation="Tanh"), "3", flat(0.5)
    ),
    "an output at its limits": saturated(net(learns(), depth=2, activation="Tanh"), "3", flat(1.0)),
    "a gate that is open": gated(learns()),
    "two units, while it learns": saturated(
        net(learns(), depth=4, activation="Tanh", width=2), "3", flat(1.0)
    ),
    "a net of ReLU": net(stays()),
}


@pytest.mark.parametrize("run", QUIET.values(), ids=QUIET)
def test_stays_silent_about(run):
    assert findings(SaturatedActivation(), run) == []


def test_a_gate_counts_where_nothing_is_learned():
    assert findings(SaturatedActivation(), gated(stays()))


def test_a_log_without_layers_is_an_abstention():
    run = replace(net(learns()), layers=())

    assert reasons(SaturatedActivation(), run) == ["layers were not recorded"]
