"""The band of a few runs: how often a healthy run leaves it, and what it finds."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nndiag.curves import band
from nndiag.records import Series


def curve(
    seed: int, factor: float = 1.0, steps: int = 400, every: int = 1, apart: float = 0.03
) -> Series:
    g = np.random.default_rng(seed)
    at = np.arange(0, steps, every)
    end = 0.4 * factor * math.exp(apart * g.standard_normal())
    values = (end + 2 * np.exp(-at / 60)) * np.exp(0.15 * g.standard_normal(at.size))
    return Series("loss", at, values)


def learned(*seeds: int, apart: float = 0.03) -> band.Learned:
    found = band.learn([curve(seed, apart=apart) for seed in seeds])
    assert found is not None
    return found


def leaves(one: band.Learned, new: Series, rate: float = 0.001) -> bool:
    return any(place.is_outside for place in band.compare(one, new, rate))


def test_twenty_healthy_seeds_stay_inside_and_a_worse_run_does_not() -> None:
    one = learned(*range(5))

    assert not any(leaves(one, curve(seed)) for seed in range(100, 120))
    assert all(leaves(one, curve(seed, factor=2.0)) for seed in range(100, 120))


def test_a_better_run_is_never_outside() -> None:
    one = learned(*range(5))

    assert not any(leaves(one, curve(seed, factor=0.2), rate=0.2) for seed in range(20))


@pytest.mark.parametrize("size", [4, 8])
def test_the_rate_of_false_alarms_is_the_one_stated(size: int) -> None:
    """At a rate that can be counted. benchmarks/baseline counts at the default of 0.001."""
    rate, apart, alarms, compared = 0.1, 0.3, 0, 0
    for start in range(0, 60 * (size + 4), size + 4):
        one = learned(*range(start, start + size), apart=apart)
        for seed in range(start + size, start + size + 4):
            alarms += leaves(one, curve(seed, apart=apart), rate)
            compared += 1

    assert compared == 240
    assert 0 < alarms <= compared * rate + 3 * math.sqrt(compared * rate)


def test_a_run_logged_seldom_is_compared_fairly() -> None:
    one = learned(*range(6))

    assert not any(leaves(one, curve(seed, every=20)) for seed in range(40, 80))
    assert leaves(one, curve(3, factor=3.0, every=20))


def test_a_short_run_is_compared_as_far_as_it_goes() -> None:
    places = band.compare(learned(*range(5)), curve(9, steps=200), 0.001)

    assert places and max(place.end for place in places) <= 200
    assert not any(place.is_outside for place in places)


def test_a_long_run_is_compared_up_to_where_the_baseline_ends() -> None:
    places = band.compare(learned(*range(5)), curve(9, steps=4000), 0.001)

    assert max(place.end for place in places) == 399


def test_the_shares_of_the_places_add_up_to_the_rate() -> None:
    for steps in (60, 130, 200, 400):
        places = band.compare(learned(*range(5)), curve(9, steps=steps), 0.01)
        assert sum(place.alpha for place in places) == pytest.approx(0.01)


def test_fewer_than_three_runs_make_no_band() -> None:
    assert band.band(learned(1, 2), 0.001) == ()
    assert band.band(learned(1, 2, 3), 0.001) != ()


def test_more_runs_make_a_narrower_band() -> None:
    few, many = learned(*range(3)), learned(*range(12))

    assert band.band(many, 0.001)[-1].limit < band.band(few, 0.001)[-1].limit


def test_runs_alike_make_a_band_as_wide_as_their_own_noise() -> None:
    """Not one of width zero: the same training with other batches must not fail."""
    same = band.learn([Series("loss", curve(1).steps, curve(1).values)] * 5)
    assert same is not None

    end = band.band(same, 0.001)[-1]
    assert end.limit > 1.02 * end.centre


def test_a_loss_that_is_not_positive_is_compared_as_it_is() -> None:
    def shifted(seed: int, by: float = 0.0) -> Series:
        one = curve(seed)
        return Series("loss", one.steps, one.values - 1.0 + by)

    one = band.learn([shifted(seed) for seed in range(6)])
    assert one is not None
    assert not any(leaves(one, shifted(seed)) for seed in range(20, 40))
    assert leaves(one, shifted(20, by=1.0))


def test_a_validation_measured_once_is_compared_at_its_last_value() -> None:
    def once(value: float) -> Series:
        return Series("val_loss", np.array([399]), np.array([value]))

    one = band.learn([once(0.5 + 0.01 * i) for i in range(5)])
    assert one is not None and one.is_last_value
    assert leaves(one, once(0.9)) and not leaves(one, once(0.55))


def test_nothing_in_common_is_nothing_learned() -> None:
    late = Series("loss", np.arange(5000, 5100), np.ones(100))

    assert band.learn([curve(1), late]) is None
    assert band.compare(learned(*range(5)), late, 0.001) == ()


def test_a_run_that_ends_in_nan_is_compared_up_to_there() -> None:
    broken = curve(7).values.copy()
    broken[200:] = np.nan
    places = band.compare(learned(*range(5)), Series("loss", curve(7).steps, broken), 0.001)

    assert places and max(place.end for place in places) <= 225
