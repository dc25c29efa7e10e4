from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nndiag.outline import BUCKETS, outline, thinned
from nndiag.records import Diagnosis, Layer, Run, Series, Verdict
from nndiag.reports import page
from nndiag.reports.lines import Line

LONG = 200_000


def loss(count: int = LONG) -> Series:
    steps = np.arange(count) * 3
    values = 2 * np.exp(-steps / 60_000) + 0.4 + 0.01 * np.sin(steps)
    values[count // 2] = 99.0  # one spike of one step
    values[count // 3] = np.nan
    return Series("loss", steps, values, name="train_loss")


def diagnosis() -> Diagnosis:
    ramp = np.linspace(1e-3, 0, LONG)
    steps = np.arange(LONG)
    series = (
        loss(),
        Series("lr", steps, ramp),
        Series("activation_mean", steps, ramp, where="net.0"),
    )
    run = Run("runs/long", "csv", series, layers=(Layer("net.0", "Linear", 0),))
    return Diagnosis(run, Verdict.HEALTHY)


def test_an_outline_of_a_long_run_is_small() -> None:
    whole = diagnosis()

    assert len(pickle.dumps(whole)) > 6_000_000
    assert len(pickle.dumps(outline(whole))) < 60_000


def test_the_first_page_of_an_outline_is_that_of_the_whole() -> None:
    def first_lines(given: Diagnosis) -> list[Line]:
        return list(page.page(given, is_calm=True))

    assert first_lines(outline(diagnosis())) == first_lines(diagnosis())


def test_an_outline_counts_the_points_of_the_log_and_keeps_names_and_layers() -> None:
    run = outline(diagnosis()).run

    assert [(s.metric, s.label, s.recorded) for s in run.series] == [
        ("loss", "train_loss", LONG),
        ("lr", "lr", LONG),
    ]
    assert len(run.layers) == 1


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
