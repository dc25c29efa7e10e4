"""Rises that stay."""

from __future__ import annotations

import numpy as np
import pytest

from nndiag.curves.climbs import blow_up_of, climb_of, divergence_of
from nndiag.curves.shape import Curve, curve_of
from tests import synthetic


def of(values: object) -> Curve:
    return curve_of(synthetic.run_of(loss=values).one("loss"))


def test_a_climb_tells_from_where_to_where():
    climb = climb_of(of(synthetic.curve("diverging")))

    assert 380 <= climb.first <= 500
    assert climb.end > 5 * climb.best
    assert not climb.into_nonfinite


def test_the_last_points_before_nan_count():
    climb = climb_of(of(synthetic.curve("climbs into NaN")))

    assert climb.into_nonfinite


def test_a_sharp_rise_of_three_points_into_nan_counts_in_a_short_run():
    assert climb_of(of([2.3, 2.4, 5.0, 40.0, 1e4, 1e9, np.inf])).into_nonfinite


def test_nan_without_a_climb_is_no_climb():
    assert climb_of(of(synthetic.curve("NaN from the middle"))) is None


def test_a_jump_that_stays_is_no_divergence_but_a_slow_rise_is():
    steps = np.arange(800)
    g = np.random.default_rng(0)
    course = synthetic.falling(800, end=0.8) * np.exp(synthetic.noise(g, 800, 0.05))
    jump = course * np.where(steps < 500, 1.0, 2.0)
    slow = course * np.where(steps < 300, 1.0, 1.0 + (steps - 300) / 500)

    assert divergence_of(of(jump), None) is None
    assert divergence_of(of(slow), None) is not None


def test_a_spike_near_the_end_on_its_way_back_is_no_climb():
    loss = synthetic.curve("healthy")
    loss[770:] *= 1 + 60 * np.exp(-np.arange(30) / 10)

    assert climb_of(of(loss)) is None


@pytest.mark.parametrize("name", synthetic.HEALTHY)
@pytest.mark.parametrize("seed", range(5))
def test_healthy_runs_neither_climb_nor_blow_up(name, seed):
    curve = of(synthetic.curve(name, seed))

    assert divergence_of(curve, None) is None
    if name != "warm-up bump":  # which only the learning rate excuses
        assert blow_up_of(curve) is None


def test_a_blow_up_leaves_the_first_value_at_once():
    blown = blow_up_of(of(synthetic.curve("blow-up at the start")))

    assert blown.highest > 10 * blown.start
    assert blown.back is None


def test_a_blow_up_may_come_back():
    loss = synthetic.curve("healthy")
    loss[1:40] *= 1 + 20 * np.exp(-np.arange(39) / 10)
    blown = blow_up_of(of(loss))

    assert 10 < blown.back < 100
