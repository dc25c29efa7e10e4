"""Series of the whole run as tracks, and their points on the page."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nndiag.records import Diagnosis, Finding, Run, Series, Severity, Verdict
from nndiag.reports import html_page
from nndiag.reports.html import courses
from tests.reports.html_data import blocks, points, unpack

VALUES = st.floats(-1e6, 1e6) | st.sampled_from([np.nan, np.inf, -np.inf])


def page_of(*series: Series, findings: tuple[Finding, ...] = ()) -> str:
    return html_page.text([Diagnosis(Run("x", "csv", series), Verdict.HEALTHY, findings)])


def drawn(*series: Series) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Points on the page by the label of their line."""
    [data] = blocks(page_of(*series))
    return {line["label"]: points(line) for t in data["tracks"] for line in t["lines"]}


@settings(max_examples=40, deadline=None)
@given(
    arrays(np.float64, st.integers(6200, 9000), elements=st.just(1.0)),
    st.lists(st.tuples(st.integers(0, 6199), VALUES), min_size=1, max_size=12),
)
def test_extremes_and_lone_spikes_of_a_long_series_are_on_the_page(
    values: np.ndarray, spikes: list[tuple[int, float]]
) -> None:
    for at, value in spikes:
        values[at] = value
    steps, shown = drawn(Series("loss", np.arange(values.size), values))["train"]

    at_step = dict(zip(steps.tolist(), shown.tolist(), strict=True))
    finite = values[np.isfinite(values)]
    assert np.nanmax(np.where(np.isfinite(shown), shown, -np.inf)) == finite.max()
    assert np.nanmin(np.where(np.isfinite(shown), shown, np.inf)) == finite.min()
    # a bucket of 2048 holds 3 to 5 steps: a spike alone in its surroundings must be there
    places = sorted({at for at, _ in spikes})
    for place in places:
        if all(abs(place - other) > 5 for other in places if other != place):
            np.testing.assert_equal(at_step.get(float(place), values[place]), values[place])
            assert values[place] == 1.0 or float(place) in at_step
    for step, value in at_step.items():  # and nothing is there that was not logged
        np.testing.assert_equal(value, values[int(step)])


def test_train_and_validation_and_several_owners_share_a_track() -> None:
    steps = np.arange(40)
    lines = drawn(
        Series("loss", steps, steps + 1.0, owner="D"),
        Series("loss", steps, steps + 2.0, owner="G"),
        Series("val_loss", steps[::10], steps[::10] + 3.0),
    )

    assert list(lines) == ["train, D", "train, G", "val"]
    assert lines["val"][0].tolist() == [0, 10, 20, 30]


def test_the_share_of_clipped_steps_is_told_of_all_steps() -> None:
    steps = np.arange(10_000)
    norm = np.where(steps % 4 == 0, 5.0, 0.5)
    threshold = np.ones(10_000)
    page = page_of(
        Series("loss", steps, 1.0 + norm),
        Series("grad_norm", steps, norm),
        Series("clip_threshold", steps, threshold),
    )

    assert "clipped at 2500 of 10000 steps (25 %)" in page


def test_a_constant_rate_is_two_points() -> None:
    steps, values = drawn(Series("lr", np.arange(5000), np.full(5000, 0.1)))["lr"]

    assert steps.tolist() == [0, 4999] and values.tolist() == [0.1, 0.1]


def test_steps_beyond_2_to_the_53_stay_exact() -> None:
    first = 2**62
    series = Series("loss", first + np.arange(30) * 3, np.arange(30) + 1.0)
    [data] = blocks(page_of(series))

    assert data["origin"] == str(first)
    assert (data["first"], data["last"]) == (0, 87)
    assert unpack(data["tracks"][0]["lines"][0]["x"]).tolist() == list(range(0, 90, 3))


def test_negative_steps_and_the_whole_range_of_int64_make_a_page() -> None:
    steps = np.array([-(2**63), -1, 0, 2**63 - 1])
    [data] = blocks(page_of(Series("loss", steps, np.arange(4.0))))

    assert data["origin"] == str(-(2**63)) and data["last"] == float(2**64)


EMPTY = np.array([])
ODD = {
    "no point": Series("loss", EMPTY, EMPTY),
    "one point": Series("loss", np.array([5]), np.array([0.5])),
    "one NaN": Series("loss", np.array([5]), np.array([np.nan])),
    "all NaN": Series("loss", np.arange(50), np.full(50, np.nan)),
    "validation only": Series("val_loss", np.arange(5) * 100, np.arange(5.0)),
    "huge": Series("loss", np.arange(4), np.array([1e308, -1e308, 1e308, np.inf])),
    "denormal": Series("loss", np.arange(4), np.array([5e-324, 1e-310, 0.0, 1.0])),
    "equal": Series("loss", np.arange(40), np.zeros(40)),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_runs_make_a_page(name: str) -> None:
    everywhere = Finding("loss-nonfinite", Severity.CRITICAL, 1.0, "x", step_start=0, series="loss")
    nowhere = Finding("loss-spike", Severity.CRITICAL, 1.0, "x", series="loss")
    page = page_of(ODD[name], findings=(everywhere, nowhere))

    [data] = blocks(page)
    assert (data is None) == (name == "no point")
    if data is not None:
        _, values = points(data["tracks"][0]["lines"][0])
        logged = ODD[name].values
        np.testing.assert_array_equal(values, logged[[0, -1]] if name == "equal" else logged)


def test_a_log_that_calls_two_series_alike_tells_them_apart() -> None:
    steps = np.arange(20)
    loss = Series("loss", steps, steps + 1.0)
    found = courses.tracks(Run("x", "nndiag", (loss, Series("other", steps, steps, name="loss"))))

    assert [track.title for track in found] == ["Loss", "loss, as logged"]
