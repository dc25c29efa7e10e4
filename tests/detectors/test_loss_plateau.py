"""loss-plateau: stuck from the start, stopped early, flat after a rise; a shelf is a remark."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from nndiag.detectors.loss_plateau import LossPlateau
from nndiag.records import Finding, Layer, Parameter, Series, Severity
from tests import synthetic


def found(run):
    return [f for f in LossPlateau().examine(run) if isinstance(f, Finding)]


def reasons(run):
    return [said.reason for said in LossPlateau().examine(run) if not isinstance(said, Finding)]


def noisy(levels, width=0.02, seed=0):
    g = np.random.default_rng(seed)
    column = np.asarray(levels, dtype=float)
    return column * np.exp(synthetic.noise(g, column.size, width))


@pytest.mark.parametrize("seed", range(5))
def test_a_loss_that_never_moves_is_stuck_from_the_start(seed):
    [finding] = found(synthetic.run("flat", seed))

    assert finding.severity is Severity.CRITICAL
    assert finding.measured("kind") == "from-start"
    assert finding.measured("level") == pytest.approx(2.303, rel=0.01)


def test_wide_noise_does_not_hide_that_nothing_moves():
    assert len(found(synthetic.run_of(loss=noisy(np.full(1500, 1.0), 0.3)))) == 1


def with_outputs(run, variance):
    """The run as watched, with the variance across samples of its last layer's output."""
    outputs = Series(
        "activation_sample_variance", np.arange(0, 800, 10), np.full(80, variance), "head"
    )
    layers = (Layer("head", "Linear", 0, "Net"),)
    return replace(run, format="nndiag", layers=layers, series=(*run.series, outputs))


def test_a_noisy_loss_whose_outputs_explain_nothing_is_stuck():
    [finding] = found(with_outputs(synthetic.run_of(loss=noisy(np.full(800, 0.1), 0.3)), 0.001))

    assert finding.severity is Severity.CRITICAL


def test_a_net_that_fits_from_the_start_is_not_stuck():
    assert found(with_outputs(synthetic.run_of(loss=noisy(np.full(800, 0.1), 0.3)), 2.0)) == []


def test_without_outputs_a_noisy_flat_loss_is_only_a_remark():
    run = replace(synthetic.run_of(loss=noisy(np.full(800, 0.1), 0.3)), format="nndiag")

    assert [f.severity for f in found(run)] == [Severity.INFO]


def test_a_constant_loss_is_stuck():
    assert len(found(synthetic.run_of(loss=np.full(500, 0.6931)))) == 1


def test_a_blow_up_that_ends_where_it_began_is_stuck():
    loss = noisy(2.3 + 2 * np.exp(-np.arange(400) / 20.0) * (np.arange(400) > 0), 0.01)

    assert found(synthetic.run_of(loss=loss))[0].measured("kind") == "from-start"


def test_a_fall_from_a_bad_initialisation_to_chance_is_told_by_the_outputs():
    loss = noisy(np.concatenate([np.geomspace(40.0, 2.303, 60), np.full(540, 2.303)]), 0.01)
    head = Parameter("head.weight", (10, 32), True, "SGD", model="Net", layer="head")
    run = synthetic.run_of(loss=loss)

    assert found(run) == []
    [finding] = found(replace(run, parameters=(head,)))
    assert finding.measured("kind") == "chance"
    assert finding.measured("start") > math.log(10)


def test_progress_that_stops_with_the_learning_rate_stopped_early():
    [finding] = found(synthetic.run("decayed too early"))

    assert finding.measured("kind") == "stopped-early"
    assert finding.severity is Severity.WARNING


def test_a_level_above_the_best_one_is_a_plateau_after_a_rise():
    levels = np.concatenate([synthetic.falling(400, 2.3, 0.5), np.full(400, 2.0)])
    [finding] = found(synthetic.run_of(loss=noisy(levels)))

    assert finding.measured("kind") == "rise"


def test_a_shelf_before_learning_is_a_remark_only():
    [finding] = found(synthetic.run("shelf, then learning"))

    assert finding.severity is Severity.INFO
    assert 550 < finding.step_end < 650


def test_four_equal_epochs_of_a_log_are_a_plateau():
    run = synthetic.run_of(format="csv", loss=[0.34324, 0.34323, 0.34323, 0.34323])

    assert len(found(run)) == 1


@pytest.mark.parametrize("name", synthetic.HEALTHY)
def test_healthy_runs_are_never_blamed(name):
    for seed in range(10):
        loud = [f for f in found(synthetic.run(name, seed)) if f.severity > Severity.INFO]
        assert loud == []


QUIET = {
    "a finished run": synthetic.run("finished"),
    "a slow but visible fall": synthetic.run_of(loss=noisy(np.linspace(2.3, 2.0, 600))),
    "a loss of zero": synthetic.run_of(loss=np.zeros(500)),
    "a step decay on a flat curve": synthetic.run("step decay"),
}


@pytest.mark.parametrize("run", QUIET.values(), ids=QUIET)
def test_stays_silent_about(run):
    assert [f for f in found(run) if f.severity > Severity.INFO] == []


ABSTAINS = {
    "41 steps; 100 needed": synthetic.run_of(loss=np.ones(41)),
    "the log begins in the middle of the run": synthetic.run_of(
        loss=noisy(np.ones(300)), start=900
    ),
    "the learning rate warmed up for more than half of the run": synthetic.run_of(
        loss=noisy(np.ones(300)), lr=np.linspace(0, 1, 300)
    ),
}


@pytest.mark.parametrize("reason", ABSTAINS)
def test_says_why_it_cannot_judge(reason):
    assert reasons(ABSTAINS[reason]) == [reason]


def test_two_models_against_each_other_are_not_judged():
    assert found(synthetic.gan()) == []
    assert len(reasons(synthetic.gan())) == 2
