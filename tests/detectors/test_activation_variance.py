"""activation-vanishing and activation-exploding: the same measure, in both directions."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nndiag.detectors.activation_exploding import ActivationExploding
from nndiag.detectors.activation_vanishing import ActivationVanishing
from nndiag.records import Layer, Severity
from tests.detectors import nets
from tests.detectors.nets import crawls, drops, findings, learns, measured, net, reasons, stays

FADES = [0.3, 3e-2, 3e-3, 3e-4, 2e-5, 3e-7]
GROWS = [1e2, 1e4, 1e6, 1e8, 1e10, 1e12]
HEALTHY = [1.0, 0.9, 0.6, 0.4, 0.3, 0.3]


def variance(loss, values, **about):
    return measured(net(loss, depth=len(values), **about), "activation_sample_variance", values)


def test_a_signal_that_fades_in_a_net_that_does_not_learn_is_critical():
    [finding] = findings(ActivationVanishing(), variance(stays(), FADES))

    assert finding.severity is Severity.CRITICAL
    assert finding.measured("variance_ratio") == pytest.approx(1e-6)
    assert finding.measured("factor_per_layer") == pytest.approx(1e-6 ** (1 / 5))
    assert finding.layers == ("8", "10")  # below 1e-4 of the first
    assert "`0`" in finding.message and "`10`" in finding.message


def test_a_signal_that_explodes_is_critical_whatever_the_loss_does():
    [finding] = findings(ActivationExploding(), variance(drops(1e6, 10.0), GROWS))

    assert finding.severity is Severity.CRITICAL
    assert finding.measured("variance_ratio") == pytest.approx(1e10)
    assert finding.layers[0] == "4"


def test_a_signal_that_grows_a_thousandfold_is_a_warning():
    run = variance(drops(300.0, 2.0), [1.0, 10.0, 150.0, 2e3])

    [finding] = findings(ActivationExploding(), run)

    assert finding.severity is Severity.WARNING


def test_a_shallow_net_whose_every_layer_is_far_too_large():
    """N(0, 1) in three layers: the loss starts at 632 and is at 2.2 soon."""
    [finding] = findings(ActivationExploding(), variance(drops(632.0, 2.0), [140, 2.6e3, 4.4e4]))

    assert finding.measured("factor_per_layer") == pytest.approx(17.7, rel=0.01)


def with_kinds(run, kinds):
    """The run with some layers' kinds changed."""
    layers = tuple(replace(layer, kind=kinds.get(layer.name, layer.kind)) for layer in run.layers)
    return replace(run, layers=layers)


def resets(run, name):
    """The run with a batch norm called before the layer of that name."""
    order = next(layer.order for layer in run.layers if layer.name == name)
    moved = [replace(la, order=la.order + (la.order >= order)) for la in run.layers]
    return replace(run, layers=(*moved, Layer("norm", "BatchNorm1d", order, "Net")))


QUIET = {
    "a healthy depth": variance(stays(), HEALTHY),
    "a net that learns all the same": variance(learns(), FADES),
    "a loss with a high floor that still falls": variance(crawls(), FADES),
    "two layers only": variance(stays(), FADES[:1] + FADES[-1:]),
    "a head that starts at zero on purpose": variance(stays(), [1.0, 0.5, 0.3, 0.2, 0.0]),
    "a head that starts small on purpose": variance(stays(), [1.0, 0.5, 0.3, 0.2, 3e-5]),
    "constant inputs": variance(stays(), [0.0] * 6),
    "normalisation in between": resets(variance(stays(), [1.0, 0.1, 1e-2, 1e-4, 1e-5, 1e-6]), "6"),
    "recurrent cells": with_kinds(variance(stays(), FADES), {"8": "GRU", "10": "GRU"}),
    "a few steps only": variance(stays(points=10), FADES),
}


@pytest.mark.parametrize("run", QUIET.values(), ids=QUIET)
def test_vanishing_stays_silent_about(run):
    assert findings(ActivationVanishing(), run) == []


@pytest.mark.parametrize(
    "values",
    [HEALTHY, [1.0, 4.0, 8.0, 15.0], [2e7, 3e6, 5e4, 1e3], [1e-6, 1e-4, 1e-2, 1.0]],
    ids=["healthy", "a residual stream", "unscaled inputs", "a small start"],
)
def test_exploding_stays_silent_about(values):
    assert findings(ActivationExploding(), variance(stays(), values)) == []


def test_large_outputs_of_a_model_that_is_trained_on_are_meant():
    slow = crawls()

    assert findings(ActivationExploding(), variance(slow, [2.0, 60.0, 4e3, 5e4])) == []


def test_a_run_too_short_to_show_learning_is_an_abstention_only_where_it_matters():
    short = stays(points=10)

    assert reasons(ActivationVanishing(), variance(short, FADES)) == [
        "10 steps; 20 needed to see if it learns"
    ]
    assert reasons(ActivationVanishing(), variance(short, HEALTHY)) == []


@pytest.mark.parametrize("detector", [ActivationVanishing(), ActivationExploding()])
def test_without_layers_there_is_an_abstention(detector):
    assert reasons(detector, net(nets.stays())) == ["layers were not recorded"]


@pytest.mark.parametrize("detector", [ActivationVanishing(), ActivationExploding()])
def test_batches_of_one_sample_are_not_taken_for_layers_that_were_not_recorded(detector):
    run = measured(net(nets.stays(), depth=3), "activation_mean", [0.1, 0.1, 0.1])

    assert reasons(detector, run) == ["no layer saw several samples at once"]
