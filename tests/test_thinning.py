from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nndiag.records import Series
from nndiag.thinning import BUCKETS, grid, thinned, without_repeats
from tests.test_outline import loss


def test_a_spike_of_one_step_and_a_nan_stay_in_a_thinned_series() -> None:
    whole, thin = loss(), thinned(loss())

    assert len(thin) <= 3 * BUCKETS + 2
    assert 99.0 in thin.values and np.isnan(thin.values).any()
    for end in (0, -1):
        assert (thin.steps[end], thin.values[end]) == (whole.steps[end], whole.values[end])


@given(
    arrays(np.float64, st.integers(13, 60), elements=st.floats(width=64)),
    st.integers(-(2**62), 2**61),
    st.sampled_from([1, 7, 2**50]),
)
def test_what_is_kept_are_points_of_the_series_with_its_extremes(
    values: np.ndarray, first: int, stride: int
) -> None:
    whole = Series("loss", first + np.arange(len(values)) * stride, values)
    thin = thinned(whole, buckets=4)

    assert len(thin) <= 3 * 4 + 2 and thin.recorded == len(whole)
    points = dict(zip(whole.steps.tolist(), whole.values.tolist(), strict=True))
    for step, value in zip(thin.steps.tolist(), thin.values.tolist(), strict=True):
        assert points[step] == value or np.isnan(points[step])
    finite = np.isfinite(values)
    assert np.isfinite(thin.values).all() == finite.all()
    if finite.any():
        kept = thin.values[np.isfinite(thin.values)]
        assert (kept.min(), kept.max()) == (values[finite].min(), values[finite].max())


@pytest.mark.parametrize("count", [0, 1, 2, 3 * BUCKETS])
def test_a_short_series_stays_as_it_is(count: int) -> None:
    series = loss(count) if count > 2 else Series("loss", np.arange(count), np.zeros(count))

    assert thinned(series) is series


def test_a_grid_has_no_empty_column_and_a_hole_in_the_log_stays_one() -> None:
    steps = np.concatenate([np.arange(0, 100, 10), np.arange(5000, 5100, 10)])
    made = grid([Series("x", steps, steps * 1.0)], columns=5, origin=0)

    assert made.starts.size == 4 and not np.isnan(made.lowest).any()
    assert (made.starts < made.ends).all() and (made.starts[1:] >= made.ends[:-1]).all()
    assert np.diff(np.stack([made.ends[:-1], made.starts[1:]], axis=1)).max() > 4000


def test_rows_of_a_grid_may_be_measured_at_other_steps() -> None:
    steps = np.arange(8)
    rows = [Series("x", steps, steps * 1.0), Series("x", steps[4:], steps[4:] * 2.0)]
    made = grid(rows, columns=100, origin=0)

    assert made.first.tolist() == steps.tolist() == made.last.tolist()
    assert np.isnan(made.lowest[1, :4]).all() and made.highest[1, 4:].tolist() == [8, 10, 12, 14]


def test_a_grid_of_nothing_has_no_column() -> None:
    nothing = Series("x", np.empty(0, np.int64), np.empty(0))

    assert grid([nothing], columns=10, origin=0).lowest.shape == (1, 0)
    assert grid([], columns=10, origin=0).starts.size == 0


def test_of_repeated_values_the_ends_stay() -> None:
    values = np.array([1.0, 1, 1, 2, 2, 3, np.nan, np.nan, np.nan, 3, 3, 3])
    kept = without_repeats(Series("x", np.arange(12), values))

    assert kept.steps.tolist() == [0, 2, 3, 4, 5, 6, 7, 8, 9, 11] and kept.recorded == 12
