"""loss-oscillation: swings that do not average out."""

from __future__ import annotations

import numpy as np
import pytest

from nndiag.detectors.loss_oscillation import LossOscillation
from nndiag.records import Finding, Severity
from tests import synthetic


def found(run):
    return [f for f in LossOscillation().examine(run) if isinstance(f, Finding)]


def wave(period: float, height: float, *, epoch: float | None = None):
    g = np.random.default_rng(0)
    t = np.arange(1000)
    loss = 0.8 * np.exp(height * np.sin(2 * np.pi * t / period) + synthetic.noise(g, 1000, 0.1))
    loss[:50] = np.linspace(2.3, 0.8, 50)
    if epoch is None:
        return synthetic.run_of(loss=loss)
    return synthetic.run_of(loss=loss, epoch=t / epoch)


def test_drifting_swings_are_seen_in_most_runs():
    seen = sum(bool(found(synthetic.run("swinging", seed))) for seed in range(20))

    assert seen >= 14


def test_wide_swings_tell_their_size():
    [finding] = found(wave(90, 0.7))

    assert finding.severity is Severity.WARNING
    assert finding.measured("swing") > 0.5
    assert finding.measured("excess") > 2


def test_a_short_period_is_seen_though_blocks_average_it_away():
    [finding] = found(wave(30, 0.7))

    assert finding.measured("period_points") == pytest.approx(30, abs=3)


@pytest.mark.parametrize("name", synthetic.HEALTHY)
def test_healthy_runs_do_not_swing(name):
    assert [s for s in range(10) if found(synthetic.run(name, s))] == []


def test_a_validation_loss_that_jumps_alone_is_a_remark():
    g = np.random.default_rng(0)
    jumpy = 3.0 * np.exp(0.4 * g.standard_normal(60))
    [finding] = found(synthetic.validated(synthetic.run("healthy"), jumpy, every=13))

    assert finding.severity is Severity.INFO
    assert finding.series == "val_loss"


QUIET = {
    "swings with the period of an epoch": wave(30, 0.7, epoch=30.0),
    "swings of a tenth": wave(90, 0.1),
    "a flutter at the edge of stability": wave(4, 0.7),
    "a spike and its tail": synthetic.run("recovering spike"),
    "three spikes": synthetic.run("three spikes"),
    "a loss that diverges": synthetic.run("diverging"),
    "a flat loss": synthetic.run("flat"),
    "validations with ordinary noise": synthetic.well_fitted(epochs=60),
    "a constant loss": synthetic.run_of(loss=np.ones(500)),
    "a learning rate that restarts": synthetic.run("warm restarts"),
    "two models against each other": synthetic.gan(),
}


@pytest.mark.parametrize("run", QUIET.values(), ids=QUIET)
def test_stays_silent_about(run):
    assert found(run) == []


def test_a_short_log_is_not_judged():
    [said] = LossOscillation().examine(synthetic.run_of(loss=np.ones(41)))

    assert said.reason == "41 points; 100 needed"
