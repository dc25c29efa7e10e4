"""loss-spike: sudden, above the noise, and not what a schedule or an epoch does."""

from __future__ import annotations

import numpy as np
import pytest

from nndiag.detectors.loss_spike import LossSpike
from nndiag.records import Abstention, Finding, Series, Severity
from tests import synthetic


def spikes(run):
    return [f for f in LossSpike().examine(run) if isinstance(f, Finding)]


@pytest.mark.parametrize("seed", range(5))
def test_a_spike_that_comes_back_is_a_warning_with_its_numbers(seed):
    [finding] = spikes(synthetic.run("recovering spike", seed))

    assert finding.severity is Severity.WARNING
    assert 495 <= finding.step_start <= 500
    assert finding.measured("recovered") is True
    assert 505 < finding.measured("recovered_step") < 550
    assert finding.measured("peak") > 10 * finding.measured("baseline")
    assert finding.measured("grad_norm_peak") > finding.measured("grad_norm_baseline")
    assert "came back by step" in finding.message


def test_a_spike_that_stays_is_critical():
    [finding] = spikes(synthetic.run("unrecovered spike"))

    assert finding.severity is Severity.CRITICAL
    assert finding.measured("recovered") is False
    assert finding.measured("recovered_step") is None


def test_a_single_bad_batch_is_seen_by_its_gradient():
    [finding] = spikes(synthetic.run("lone spike"))

    assert finding.step_start <= 500 <= finding.step_end <= 503


def test_repeated_spikes_are_one_finding_with_a_range_and_a_count():
    [finding] = spikes(synthetic.run("three spikes"))

    assert finding.measured("count") == 3
    assert finding.step_start < 401 and finding.step_end > 1049


def test_a_blow_up_in_the_first_steps_that_comes_back_is_a_spike():
    loss = synthetic.curve("healthy")
    loss[1:40] *= 1 + 20 * np.exp(-np.arange(39) / 10)
    [finding] = spikes(synthetic.run_of(loss=loss, lr=np.full(800, 0.1)))

    assert finding.step_start == 0
    assert finding.measured("recovered") is True


def test_a_blow_up_that_falls_back_to_its_start_never_came_back_from_it():
    [finding] = spikes(synthetic.run("blow-up at the start"))

    assert finding.measured("recovered") is False
    assert "no better than it began" in finding.message


def test_a_small_rise_at_the_very_end_is_left_to_the_next_points():
    loss = synthetic.curve("healthy")
    usual = np.median(loss[-50:])
    spread = np.std(np.log(loss[-200:]))
    loss[-2:] = usual * np.exp(8 * spread)

    assert spikes(synthetic.run_of(loss=loss)) == []


def test_a_nan_elsewhere_hides_no_spike():
    run = synthetic.run("recovering spike")
    loss = run.one("loss")
    values = loss.values.copy()
    values[100] = np.nan
    with_nan = synthetic.run_of(loss=values, grad_norm=run.one("grad_norm").values)

    assert spikes(with_nan)[0].measured("peak") == spikes(run)[0].measured("peak")


def test_a_training_that_began_anew_is_no_warm_restart():
    level = np.concatenate([synthetic.falling(400, 2.3, 0.3), synthetic.falling(400, 2.3, 0.3)])
    g = np.random.default_rng(0)
    loss = level * np.exp(synthetic.noise(g, 800, 0.05))
    lr = np.concatenate([synthetic.warm_up_cosine(400, 1), synthetic.warm_up_cosine(400, 1)])

    assert len(spikes(synthetic.run_of(loss=loss, lr=lr))) == 1


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize(
    "name", [n for n in synthetic.HEALTHY if n not in ("interpolating", "noisy batch-8")]
)
def test_healthy_runs_have_no_spike(name, seed):
    assert spikes(synthetic.run(name, seed)) == []


@pytest.mark.parametrize("name", ["interpolating", "noisy batch-8"])
def test_the_widest_noise_seldom_looks_like_a_spike(name):
    blamed = sum(bool(spikes(synthetic.run(name, seed))) for seed in range(20))

    assert blamed <= 3  # heavy tails of both loss and gradient: harder than any real run we have


def epoch_spikes():
    g = np.random.default_rng(0)
    loss = synthetic.falling(1000, end=0.6) * np.exp(synthetic.noise(g, 1000, 0.02))
    for edge in range(200, 1000, 100):
        loss[edge : edge + 4] *= 1.8
    return synthetic.run_of(loss=loss)


def diverging():
    return synthetic.run("diverging")


QUIET = {
    "a rise after every epoch edge": epoch_spikes(),
    "a small bump after a resume": synthetic.resumed(),
    "a loss that diverges": diverging(),
    "two models against each other": synthetic.gan(),
    "a constant loss": synthetic.run_of(loss=np.ones(300)),
    "NaN only": synthetic.run_of(loss=np.full(300, np.nan)),
}


@pytest.mark.parametrize("run", QUIET.values(), ids=QUIET)
def test_stays_silent_about(run):
    assert spikes(run) == []


def test_a_short_log_is_not_judged():
    [said] = LossSpike().examine(synthetic.run_of(loss=[3.0, 2.0, 9.0]))

    assert said == Abstention("loss-spike", "3 points; 30 needed")


def test_a_run_without_a_loss_is_not_judged():
    run = synthetic.run_of(lr=[0.1, 0.1])

    assert [said.reason for said in LossSpike().examine(run)] == ["no loss in this log"]


def test_of_two_models_the_one_with_the_extreme_spike_is_named():
    run = synthetic.gan()
    series = list(run.series)
    values = series[2].values.copy()
    values[300:306] *= 500.0
    series[2] = Series("loss", series[2].steps, values, owner=series[2].owner)
    [finding] = spikes(type(run)(run.path, run.format, tuple(series)))

    assert finding.owner == "Adam-2"


@pytest.mark.parametrize("seed", range(5))
def test_losses_of_any_sign_against_each_other_are_not_judged(seed):
    said = list(LossSpike().examine(synthetic.critics(seed)))

    assert [type(one) for one in said] == [Abstention, Abstention]


def test_a_rise_in_two_leaps_is_sudden_and_a_slow_one_of_the_same_height_is_not():
    leaps, slope = synthetic.curve("healthy"), synthetic.curve("healthy")
    back = np.exp(-np.arange(300) / 60.0)
    height = np.concatenate([np.full(20, 0.8), np.full(10, 3.0), 3.0 * back[:200]])
    leaps[400:630] *= np.exp(height)
    slope[200:400] *= np.exp(np.linspace(0, 3.0, 200))
    slope[400:700] *= np.exp(3.0 * back)

    [finding] = spikes(synthetic.run_of(loss=leaps))
    assert 395 <= finding.step_start <= 421
    assert spikes(synthetic.run_of(loss=slope)) == []


def test_a_tenfold_rise_counts_also_on_a_loss_that_has_fallen_by_orders_of_magnitude():
    loss = synthetic.curve("healthy")
    loss[:3] = 1e8, 1e6, 1e4  # the first outputs were enormous
    loss[600:606] *= 50.0
    [finding] = spikes(synthetic.run_of(loss=loss))

    assert finding.step_start <= 601 <= finding.step_end


def test_a_loss_that_ends_early_is_judged_where_the_validations_are_too_few():
    run = synthetic.run_of(loss=synthetic.curve("recovering spike")[400:700], format="csv")
    few = synthetic.validated(run, [0.4, 0.35, 0.3, 0.29, 0.28], every=1000)

    assert len(spikes(few)) == 1
