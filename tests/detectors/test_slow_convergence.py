"""slow-convergence: kappa is the witness; the curve alone only where it is clear."""

from __future__ import annotations

import numpy as np
import pytest

from nndiag.detectors.slow_convergence import SlowConvergence
from nndiag.records import Finding, Severity
from tests import synthetic


def found(run):
    return [f for f in SlowConvergence().examine(run) if isinstance(f, Finding)]


def reasons(run):
    return [said.reason for said in SlowConvergence().examine(run) if not isinstance(said, Finding)]


def with_kappa(mean: float, *, loss=None, samples: int = 600, spread: float = 0.15):
    g = np.random.default_rng(0)
    straight = np.linspace(2.3, 2.1, 800) * np.exp(synthetic.noise(g, 800, 0.01))
    run = synthetic.run_of(loss=straight if loss is None else loss)
    kappa = synthetic.run_of(
        every=max(1, 800 // samples),
        update_gradient_cosine=mean + spread * g.standard_normal(samples),
    )
    return type(run)(run.path, run.format, run.series + kappa.series)


@pytest.mark.parametrize("seed", range(5))
def test_updates_that_never_overshoot_are_too_short(seed):
    [finding] = found(synthetic.run("too slow", seed))

    assert finding.severity is Severity.WARNING
    assert finding.measured("update_gradient_cosine") == pytest.approx(-0.3, abs=0.05)
    assert "too short" in finding.message


def test_even_where_the_curve_shows_nothing():
    flat = 2.3 * np.exp(synthetic.noise(np.random.default_rng(1), 800, 0.02))

    assert len(found(with_kappa(-0.3, loss=flat))) == 1


def test_a_loss_that_ended_above_its_start_is_not_said_to_have_fallen():
    noise = synthetic.noise(np.random.default_rng(1), 800, 0.05)
    [finding] = found(with_kappa(-0.3, loss=np.linspace(2.3, 2.4, 800) * np.exp(noise)))

    assert finding.message.startswith("loss went from")


def test_the_number_of_samples_is_told_with_the_limit_that_it_met():
    [finding] = found(with_kappa(-0.3, samples=20, spread=0.02))
    [samples] = [e for e in finding.evidence if e.name == "samples"]

    assert samples.limit is not None and samples.measured >= samples.limit


def test_a_straight_short_fall_is_enough_without_kappa():
    [finding] = found(synthetic.run("straight and short"))

    assert finding.confidence < 0.7
    assert finding.measured("update_gradient_cosine") is None


def test_a_climb_before_the_fall_does_not_hide_it():
    g = np.random.default_rng(0)
    course = np.concatenate([np.linspace(6.9, 7.2, 60), np.linspace(7.2, 6.9, 740)])
    [finding] = found(synthetic.run_of(loss=course * np.exp(synthetic.noise(g, 800, 0.005))))

    assert finding.severity is Severity.WARNING


QUIET = {
    "kappa around zero": with_kappa(0.0),
    "kappa not far enough below zero": with_kappa(-0.03),
    "too few samples to be sure": with_kappa(-0.06, samples=40, spread=0.5),
    "a loss that is nearly gone": with_kappa(-0.3, loss=synthetic.falling(800, end=0.05)),
    "good progress with a weak witness": with_kappa(-0.07, loss=synthetic.falling(800, end=0.8)),
    "full batches, where kappa is always negative": synthetic.run("full batch"),
    "a loss that diverges": with_kappa(-0.3, loss=synthetic.curve("diverging")),
}


@pytest.mark.parametrize("run", QUIET.values(), ids=QUIET)
def test_stays_silent_about(run):
    assert found(run) == []


@pytest.mark.parametrize("name", synthetic.HEALTHY)
def test_healthy_curves_are_not_called_slow(name):
    assert [s for s in range(10) if found(synthetic.run(name, s))] == []


def test_what_the_schedule_makes_small_is_not_held_against_the_steps():
    g = np.random.default_rng(0)
    lr = synthetic.warm_up_cosine(800, 20)
    late = np.where(lr < 0.1 * lr.max(), -0.9, 0.02) + 0.1 * g.standard_normal(800)
    run = synthetic.run_of(loss=synthetic.falling(800, end=1.0), lr=lr, update_gradient_cosine=late)

    assert found(run) == []


ABSTAINS = {
    "41 steps; 100 needed": synthetic.run_of(loss=np.linspace(2, 1, 41)),
    "150 steps and 0 samples of the update direction; 200 or 30 needed": synthetic.run_of(
        loss=np.linspace(2, 1, 150)
    ),
    "the log begins in the middle of the run": synthetic.run_of(
        loss=np.linspace(2, 1, 300), start=900
    ),
}


@pytest.mark.parametrize("reason", ABSTAINS)
def test_says_why_it_cannot_judge(reason):
    assert reasons(ABSTAINS[reason]) == [reason]


def test_two_models_against_each_other_are_not_judged():
    assert found(synthetic.gan()) == []
    assert all("several losses" in reason for reason in reasons(synthetic.gan()))
