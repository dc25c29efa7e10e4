from __future__ import annotations

from dataclasses import replace

import pytest

from nndiag.detectors.dead_relu import DeadRelu
from nndiag.records import Severity
from tests.detectors.nets import breaks, dead, findings, flat, learns, net, reasons, series, stays

GROWS = [0.0, 0.1, 0.3, 0.6, *flat(0.7, 30)]


def test_a_layer_that_died_is_reported_from_the_step_it_settled():
    [finding] = findings(DeadRelu(), dead(net(learns()), "3", GROWS))

    assert finding.severity is Severity.WARNING
    assert finding.step_start == 30
    assert finding.layers == ("3",)
    assert finding.measured("dead_unit_fraction") == 0.7
    assert finding.measured("dead_from_start") is False


def test_a_layer_that_passes_nothing_is_critical():
    [finding] = findings(DeadRelu(), dead(net(stays()), "1", flat(1.0)))

    assert finding.severity is Severity.CRITICAL
    assert finding.step_start == 0
    assert finding.measured("dead_from_start") is True
    assert "100 % of the units of `1`" in finding.message


def test_all_layers_that_died_are_one_finding():
    run = dead(dead(net(stays()), "3", flat(0.8)), "1", flat(0.95))

    [finding] = findings(DeadRelu(), run)

    assert finding.layers == ("1", "3")  # in forward order


def test_a_functional_relu_is_named_by_the_layer_that_feeds_it():
    [finding] = findings(DeadRelu(), dead(net(stays()), "4", flat(0.9)))

    assert finding.layers == ("4",)


def test_units_that_steps_far_too_large_kill_count_earlier():
    rising = [0.0, 0.05, 0.1, 0.2, *flat(0.4, 30)]
    large = series("update_ratio", [0.5] * 50)

    assert findings(DeadRelu(), dead(net(learns(2.3, 1.4), large), "3", rising))
    assert not findings(DeadRelu(), dead(net(learns(2.3, 0.1), large), "3", rising))
    assert not findings(DeadRelu(), dead(net(learns(2.3, 1.4)), "3", rising))


QUIET = {
    "some dead units": dead(net(learns()), "3", flat(0.4)),
    "some dead units of an autoencoder": dead(net(stays(0.65)), "3", [0.1, *flat(0.45, 30)]),
    "a layer that revived": dead(net(learns()), "3", [*flat(0.9, 20), 0.9, 0.2, 0.1]),
    "too few samples": dead(net(learns()), "3", flat(0.9), samples=64),
    "a narrow layer that learns": dead(net(learns(), width=8), "3", flat(0.6)),
    "an output that may be zero": dead(net(learns(), depth=3), "4", flat(0.9)),
    "a net whose loss broke": dead(net(breaks(after=5)), "3", [0.0, *flat(1.0, 30)]),
}


@pytest.mark.parametrize("run", QUIET.values(), ids=QUIET)
def test_stays_silent_about(run):
    assert findings(DeadRelu(), run) == []


def test_too_few_samples_are_an_abstention():
    assert reasons(DeadRelu(), dead(net(learns()), "3", flat(0.9), samples=64)) == [
        "64 samples per unit; 256 needed"
    ]


def test_a_loss_that_broke_early_is_an_abstention_with_the_step():
    run = dead(net(breaks(after=5)), "3", [0.0, *flat(1.0, 30)])

    assert reasons(DeadRelu(), run) == ["the loss broke at step 5, before units could be judged"]


def test_two_models_with_the_same_layer_names_stay_apart():
    run = dead(net(learns()), "3", flat(0.1))
    sick = series("dead_unit_fraction", flat(0.9), "3", every=10, owner="Adam-1")
    run = replace(run, series=(*run.series, sick))

    [finding] = findings(DeadRelu(), run)

    assert finding.owner == "Adam-1"


def test_a_log_without_layers_is_an_abstention_a_net_without_relu_is_not():
    assert reasons(DeadRelu(), replace(net(learns()), layers=())) == ["layers were not recorded"]
    assert reasons(DeadRelu(), net(learns(), activation="GELU")) == []
