"""Statistics that one spike or one NaN cannot move."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nndiag.curves import robust

NUMBERS = st.floats(-1e6, 1e6, allow_nan=False)
COLUMNS = arrays(np.float64, st.integers(3, 60), elements=NUMBERS)


def noise(seed: int = 0, count: int = 2000) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(count)


def test_the_spread_of_normal_noise_is_its_standard_deviation():
    assert robust.spread(3.0 * noise()) == pytest.approx(3.0, rel=0.06)
    assert robust.step_noise(np.linspace(0, 50, 2000) + noise()) == pytest.approx(1.0, rel=0.06)


def test_one_huge_value_moves_no_spread():
    spiked = noise()
    spiked[1000] = 1e30

    assert robust.spread(spiked) == pytest.approx(robust.spread(noise()), rel=0.01)
    assert robust.upper_spread(spiked, far=True) < 1.5 * robust.upper_spread(noise())


def test_the_upper_spread_knows_a_tail_to_the_right():
    skewed = np.exp(noise())

    assert robust.upper_spread(skewed) > 1.5 * robust.spread(skewed)
    assert robust.upper_spread(-skewed) == pytest.approx(robust.spread(skewed))


@given(COLUMNS, st.integers(1, 15))
def test_running_medians_agree_with_the_slowest_version(values, width):
    half = min(width, values.size) // 2
    slow = [np.median(values[max(0, i - half) : i + half + 1]) for i in range(values.size)]

    assert np.allclose(robust.running_median(values, width), slow)


@given(COLUMNS, st.integers(1, 15))
def test_trailing_medians_agree_with_the_slowest_version(values, width):
    slow = [np.median(values[max(0, i + 1 - width) : i + 1]) for i in range(values.size)]

    assert np.allclose(robust.trailing_median(values, width), slow)


@given(COLUMNS)
def test_a_lonely_point_never_shows_in_a_median_of_three(values):
    inner = robust.median_of_three(values)[1:-1]
    slow = [np.median(values[i - 1 : i + 2]) for i in range(1, values.size - 1)]

    assert np.array_equal(inner, slow)


@given(COLUMNS)
def test_a_trend_and_its_mirror_image_have_opposite_signs(values):
    assert robust.mann_kendall(values) == -robust.mann_kendall(-values)
    assert robust.theil_sen(values)[0] == pytest.approx(-robust.theil_sen(-values)[0])


def test_a_slope_is_found_despite_a_spike_and_its_interval_holds_it():
    line = 0.5 * np.arange(20.0) + 0.1 * noise(1, 20)
    line[7] = 1e6
    slope, low, high = robust.theil_sen(line)

    assert slope == pytest.approx(0.5, abs=0.05)
    assert low <= 0.5 <= high


def test_the_interval_of_a_flat_line_holds_zero_in_most_cases():
    held = 0
    for seed in range(200):
        _, low, high = robust.theil_sen(noise(seed, 20))
        held += low <= 0.0 <= high

    assert held >= 180  # 95 % promised


def test_kendall_calls_a_rise_a_rise_and_noise_nothing():
    assert robust.mann_kendall(np.arange(20.0)) > 5
    assert abs(robust.mann_kendall(noise(3, 20))) < 2
    assert robust.mann_kendall(np.ones(20)) == 0


def test_turning_points_tell_noise_from_a_smooth_curve():
    assert robust.turning_share(noise()) == pytest.approx(2 / 3, abs=0.05)
    assert robust.turning_share(np.exp(-np.arange(500) / 100)) == 0


def test_stretches_are_first_and_one_past_last():
    mask = np.array([True, True, False, True, False])

    assert robust.stretches(mask) == [(0, 2), (3, 4)]
    assert robust.stretches(np.zeros(3, bool)) == []


def test_blocks_cover_all_points_once():
    edges = robust.block_edges(103, 20)

    assert edges[0] == 0 and edges[-1] == 103 and (np.diff(edges) > 0).all()
    assert robust.block_medians(np.arange(5.0), 20).size == 5
    assert robust.block_medians(np.empty(0), 20).size == 0


def test_evidence_adds_up_and_no_single_part_decides_alone():
    assert robust.probability(0.0) == 0.5
    assert robust.probability(1.0, 1.0) > robust.probability(1.0)
    assert robust.probability(1e9) == robust.probability(3.5) < 0.98
