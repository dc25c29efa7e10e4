"""loss-divergence: climbs and does not come back."""

from __future__ import annotations

import numpy as np
import pytest

from nndiag.detectors.loss_divergence import LossDivergence
from nndiag.records import Abstention, Finding, Severity
from tests import synthetic


def found(run):
    return [f for f in LossDivergence().examine(run) if isinstance(f, Finding)]


@pytest.mark.parametrize("seed", range(5))
def test_a_climb_that_stays_is_critical(seed):
    [finding] = found(synthetic.run("diverging", seed))

    assert finding.severity is Severity.CRITICAL
    assert 350 <= finding.step_start <= 550
    assert finding.measured("ratio_to_best") > 3
    assert finding.measured("ends_nonfinite") is False


def test_a_climb_into_nan_says_so():
    [finding] = found(synthetic.run("climbs into NaN"))

    assert finding.measured("ends_nonfinite") is True
    assert "NaN" in finding.message


def test_a_blow_up_that_falls_back_to_its_start_is_stuck_and_not_gone():
    assert found(synthetic.run("blow-up at the start")) == []


def test_seven_steps_are_enough_where_the_loss_explodes():
    [finding] = found(synthetic.run_of(loss=[2.3, 5.9, 30.0, 4e3, 8e6, 1e12, 2e19, np.nan]))

    assert finding.measured("ends_nonfinite") is True


def test_a_loss_that_ends_above_its_start_diverged():
    g = np.random.default_rng(0)
    loss = 2.9 * np.exp(synthetic.noise(g, 600, 0.05))
    loss[0] = 2.3

    assert len(found(synthetic.run_of(loss=loss))) == 1


def test_a_negative_loss_may_climb_too():
    loss = np.concatenate([synthetic.curve("negative ELBO"), np.linspace(-120, 900, 400)])

    assert len(found(synthetic.run_of(loss=loss))) == 1


def test_a_validation_loss_is_judged_where_the_training_loss_ends_early():
    run = synthetic.run_of(loss=synthetic.falling(50))
    val = np.concatenate([synthetic.falling(20, 5.0, 3.0), np.geomspace(3.0, 900.0, 30)])
    [finding] = found(synthetic.validated(run, val, every=100))

    assert finding.series == "val_loss"


QUIET = {
    "a spike that recovers": synthetic.run("recovering spike"),
    "a jump to a higher level": synthetic.run("unrecovered spike"),
    "NaN out of the blue": synthetic.run("NaN from the middle"),
    "no progress at all": synthetic.run("flat"),
    "two models against each other": synthetic.gan(),
    "a constant loss": synthetic.run_of(loss=np.ones(300)),
    "one wild value": synthetic.run_of(
        loss=np.where(np.arange(800) == 500, 1e30, synthetic.curve("healthy"))
    ),
    "two values": synthetic.run_of(loss=[1.0, 5.0]),
}


@pytest.mark.parametrize("run", QUIET.values(), ids=QUIET)
def test_stays_silent_about(run):
    assert found(run) == []


@pytest.mark.parametrize("name", synthetic.HEALTHY)
def test_healthy_runs_do_not_diverge(name):
    assert [s for s in range(10) if found(synthetic.run(name, s))] == []


@pytest.mark.parametrize("seed", range(5))
def test_losses_of_any_sign_against_each_other_are_not_judged(seed):
    said = list(LossDivergence().examine(synthetic.critics(seed)))

    assert [type(one) for one in said] == [Abstention, Abstention]
    assert "several losses" in said[0].reason
