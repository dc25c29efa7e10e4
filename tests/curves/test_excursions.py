"""Rises above the own earlier level."""

from __future__ import annotations

import numpy as np
import pytest

from nndiag.curves.excursions import are_swings, excursions, is_sudden
from nndiag.curves.shape import curve_of
from tests import synthetic


def found(name: str, seed: int = 0, *, gradient: bool = True):
    run = synthetic.run(name, seed)
    loss, norm = curve_of(run.one("loss")), curve_of(run.one("grad_norm"))
    return loss, excursions(loss, norm if gradient else None)


def test_a_spike_has_a_beginning_a_peak_and_an_end():
    curve, [spike] = found("recovering spike")

    assert 495 <= spike.first < 500 <= spike.peak <= 505 < spike.last < 540
    assert spike.recovered and is_sudden(curve, spike)
    assert spike.rise == pytest.approx(3.0, rel=0.3)
    assert spike.baseline == pytest.approx(0.23, rel=0.3)


def test_one_point_counts_only_with_the_gradient():
    _, with_gradient = found("lone spike")
    _, without = found("lone spike", gradient=False)

    assert [e.peak for e in with_gradient] == [500]
    assert with_gradient[0].together > 4
    assert [e.peak for e in without] in ([], [500])  # twelvefold is enormous, or not, by the noise


def test_a_doubling_of_one_point_is_nothing_without_a_gradient():
    loss = synthetic.curve("healthy")
    loss[500] *= 2.0
    curve = curve_of(synthetic.run_of(loss=loss).one("loss"))

    assert excursions(curve) == ()


def test_what_does_not_come_back_is_not_recovered():
    curve, [shift] = found("unrecovered spike")

    assert not shift.recovered
    assert shift.last == len(curve) - 1


def test_spikes_far_apart_stay_apart():
    _, spikes = found("three spikes")

    assert len(spikes) == 3
    assert all(e.recovered for e in spikes)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("name", ["healthy", "noisy batch-1", "cosine tail", "step decay"])
def test_healthy_noise_makes_no_excursion(name, seed):
    curve, events = found(name, seed)

    assert [e for e in events if is_sudden(curve, e)] == []


def test_the_upper_halves_of_a_swing_are_no_spikes():
    loss = np.exp(0.8 * np.sin(np.arange(1000) / 12.0))
    swing = curve_of(synthetic.run_of(loss=loss).one("loss"))
    waves = excursions(swing)
    spiky, spikes = found("three spikes")

    assert waves and are_swings(swing, waves)
    assert not are_swings(spiky, spikes)
    assert not are_swings(spiky, [])


def test_a_long_series_is_judged_like_a_short_one():
    g = np.random.default_rng(0)
    loss = synthetic.falling(60_000) * np.exp(synthetic.noise(g, 60_000, 0.15))
    loss[40_000:40_040] *= 12.0
    [spike] = excursions(curve_of(synthetic.run_of(loss=loss).one("loss")))

    assert 39_990 < spike.first <= 40_000 <= spike.peak < 40_040 <= spike.last < 40_100
