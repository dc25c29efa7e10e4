from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nndiag.records import Series
from nndiag.thinning import BUCKETS, thinned
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
