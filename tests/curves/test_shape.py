"""Levels, noise and trends of one curve."""

from __future__ import annotations

import numpy as np
import pytest

from nndiag.curves.shape import Curve, curve_of, trend
from nndiag.records import Series
from tests import synthetic


def of(values: object) -> Curve:
    column = np.asarray(values, dtype=float)
    return Curve(Series("loss", np.arange(column.size), column))


def test_a_curve_is_measured_once():
    loss = synthetic.run("healthy").one("loss")

    assert curve_of(loss) is curve_of(loss)


def test_levels_of_a_falling_loss():
    curve = of(synthetic.curve("healthy"))

    assert curve.start == pytest.approx(2.3, rel=0.15)
    assert curve.end == pytest.approx(0.2, rel=0.15)
    assert curve.best <= curve.end
    assert curve.way == pytest.approx(2.1, rel=0.2)


@pytest.mark.parametrize("stray", [np.nan, np.inf, 1e30, -1e30])
def test_one_wild_value_moves_no_level_and_no_noise(stray):
    plain = synthetic.curve("healthy")
    wild = plain.copy()
    wild[300] = stray

    assert of(wild).end == pytest.approx(of(plain).end, rel=0.02)
    assert of(wild).typical_noise == pytest.approx(of(plain).typical_noise, rel=0.05)
    assert of(wild).positive


def test_the_noise_of_a_wider_regime_is_wider():
    curve = of(synthetic.curve("regime change"))

    assert np.median(curve.noise[700:]) > 2 * np.median(curve.noise[100:350])


def test_a_spike_does_not_widen_the_noise_it_is_measured_by():
    plain, spiked = of(synthetic.curve("healthy")), of(synthetic.curve("recovering spike"))

    assert spiked.noise[500] < 1.3 * plain.noise[500]


def test_the_baseline_never_rises_and_stays_after_a_jump():
    curve = of(synthetic.curve("unrecovered spike"))

    assert (np.diff(curve.baseline) <= 0).all()
    assert np.exp(curve.baseline[-1]) < 0.4 < curve.end


def test_a_loss_times_ten_has_the_same_shape():
    one, ten = of(synthetic.curve("noisy batch-8")), of(10 * synthetic.curve("noisy batch-8"))

    assert np.allclose(one.u - one.baseline, ten.u - ten.baseline)
    assert np.allclose(one.noise, ten.noise)


def test_losses_near_zero_do_not_make_the_noise_explode():
    interpolating = of(synthetic.falling(1000, end=0.0, pace=0.05))

    assert np.ptp(interpolating.u[500:]) < 0.01


def test_a_negative_loss_is_measured_on_a_scale_without_logarithms():
    curve = of(synthetic.curve("negative ELBO"))

    assert not curve.positive
    assert np.isfinite(curve.u).all()
    assert curve.u[0] > curve.u[-1]


def test_flatness_is_a_claim_that_needs_data():
    g = np.random.default_rng(0)

    assert trend(0.01 * g.standard_normal(400)).flat(0.05)
    assert not trend(1.0 * g.standard_normal(40)).flat(0.05)
    assert trend(np.linspace(1, 0, 100)).change == pytest.approx(-1, rel=0.1)


@pytest.mark.parametrize("values", [[], [1.0], [1.0, 2.0], [np.nan] * 5], ids=str)
def test_too_few_points_are_no_error(values):
    curve = of(values)

    assert len(curve) == np.isfinite(values).sum()
    assert curve.typical_noise >= 0 and curve.baseline.size == curve.u.size
