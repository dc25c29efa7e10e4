"""Series of layers as heat maps: which rows, which cells, and that no spike is lost in them."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nndiag.records import Diagnosis, Finding, Layer, Parameter, Run, Series, Severity, Verdict
from nndiag.reports import html_page
from nndiag.reports.html import courses, layers, picture
from nndiag.thinning import INFINITE, MINUS_INFINITE, NAN
from tests.reports.html_data import blocks, unpack

STEPS = np.arange(8)


def run_of(*series: Series, names: tuple[str, ...] = (), **changes: object) -> Run:
    loss = Series("loss", np.arange(20), np.arange(20) + 1.0)
    rows = tuple(
        Layer(name, "Linear", i, parameters=(f"{name}.weight", f"{name}.bias"))
        for i, name in enumerate(names)
    )
    return Run("x", "nndiag", (loss, *series), layers=rows, **changes)  # type: ignore[arg-type]


def found_in(
    run: Run, named: tuple[str, ...] = (), room: int = layers.CELLS_BYTES
) -> layers.Layers:
    axis = courses.axis(run)
    assert axis is not None
    found = layers.layers(run, named, axis, room)
    assert found is not None
    return found


def gradient(where: str, *values: float) -> Series:
    return Series("param_grad_norm", np.arange(len(values)), np.array(values), where=where)


def test_rows_are_in_forward_order_and_inner_modules_follow_the_one_they_are_in() -> None:
    run = run_of(
        gradient("b.weight", 1.0),
        gradient("a.inner.weight", 1.0),
        gradient("a.weight", 1.0),
        gradient("c.d.weight", 1.0),
        names=("a", "b"),
    )

    assert found_in(run).names == ("a", "a.inner", "b", "c.d")


def test_the_gradient_of_a_layer_is_the_norm_over_its_parameters() -> None:
    run = run_of(
        gradient("a.weight", 3.0, -1.0, 3.0), gradient("a.bias", 4.0, 2.0, np.inf), names=("a",)
    )
    [heat] = found_in(run).maps

    assert heat.measure.key == "grad_norm"
    # -1 is no gradient: what the other parameter has is left
    assert heat.grid.lowest[0].tolist()[:2] == [5.0, 2.0]
    assert heat.grid.broken[0].tolist() == [0, 0, INFINITE]


def test_a_layer_without_any_gradient_is_not_zero_but_absent() -> None:
    run = run_of(gradient("a.weight", -1.0, -1.0), gradient("b.weight", 0.0, 0.0), names=("a", "b"))
    [heat] = found_in(run).maps

    assert found_in(run).names == ("b",)
    assert heat.grid.lowest[0].tolist() == [0.0, 0.0]


def test_the_update_of_a_layer_is_a_share_of_its_weights() -> None:
    at = np.arange(3)
    run = run_of(
        Series("param_update_norm", at, np.array([0.1, 0.2, 0.3]), where="a.weight"),
        Series("param_norm", at, np.array([0.0, 2.0, 3.0]), where="a.weight"),
        names=("a",),
    )
    [heat] = found_in(run).maps

    assert heat.measure.key == "update"
    assert heat.grid.highest[0] == pytest.approx([0.1, 0.1])  # a weight of 0 has no ratio


def test_a_log_without_a_list_of_layers_has_rows_too() -> None:
    run = run_of(
        Series("activation_variance", STEPS, STEPS + 1.0, where="net.0"),
        gradient("net.1.weight", 1.0),
    )

    assert set(found_in(run).names) == {"net.0", "net.1"}


def test_parameters_that_name_their_layer_belong_to_it() -> None:
    run = run_of(
        gradient("w", 2.0),
        parameters=(Parameter("w", (3,), True, "Adam", layer="head"),),
    )

    assert found_in(run).names == ("head",)


@settings(max_examples=60, deadline=None)
@given(
    arrays(
        np.float64, st.tuples(st.integers(1, 6), st.integers(40, 90)), elements=st.floats(width=32)
    ),
    st.integers(24, 40),
)
def test_extremes_and_what_is_not_finite_are_in_some_cell(values: np.ndarray, columns: int) -> None:
    rows, count = values.shape
    series = [
        Series("activation_variance", np.arange(count) * 7, row, where=f"n{i}")
        for i, row in enumerate(values)
    ]
    room = columns * 8 * rows
    run = run_of(*series)
    found = found_in(run, room=room)
    page = {f"n{i}": i for i in range(rows)}
    data = layers.as_data(found, {}, courses.axis(run))  # type: ignore[arg-type]
    [heat] = data["maps"]  # type: ignore[misc, index]
    shape = (len(found.names), heat["columns"])
    low = unpack(heat["low"]).reshape(shape)
    high = low if heat["high"] is None else unpack(heat["high"]).reshape(shape)
    broken = (
        np.zeros(shape, np.uint8)
        if heat["broken"] is None
        else unpack(heat["broken"]).reshape(shape)
    )
    first, last = unpack(heat["first"]), unpack(heat["last"])

    assert heat["columns"] <= max(columns, layers.FEWEST_COLUMNS)
    for row, name in enumerate(found.names):
        logged = values[page[name]]
        for column in range(heat["columns"]):
            here = logged[int(first[column]) // 7 : int(last[column]) // 7 + 1]
            finite, bad = here[np.isfinite(here)], here[~np.isfinite(here)]
            assert bool(broken[row, column]) == bool(bad.size)
            if bad.size:
                kind = NAN if np.isnan(bad[0]) else INFINITE if bad[0] > 0 else MINUS_INFINITE
                assert broken[row, column] == kind
            ends = (finite.min(), finite.max()) if finite.size else (np.nan, np.nan)
            np.testing.assert_array_equal((low[row, column], high[row, column]), ends)


def test_many_layers_keep_those_that_findings_name() -> None:
    names = tuple(f"blocks.{i}" for i in range(layers.MOST_LAYERS + 500))
    run = run_of(*(gradient(f"{name}.weight", 1.0, 2.0) for name in names), names=names)
    found = found_in(run, named=(names[-1],))

    assert len(found.names) == layers.MOST_LAYERS and found.left_out == 500
    assert names[-1] in found.names and names[0] in found.names
    assert "500 of 2500 layers have no row" in html_page.text(
        [Diagnosis(run, Verdict.WARNING, (finding(names[-1]),))]
    )


def finding(*names: str, series: str = "param_grad_norm") -> Finding:
    return Finding(
        "vanishing-gradient",
        Severity.WARNING,
        0.9,
        "x",
        step_start=2,
        step_end=5,
        series=series,
        layers=names,
    )


def test_a_finding_of_a_layer_has_the_curve_of_that_layer_and_leads_to_its_row() -> None:
    run = run_of(*(gradient(f"{n}.weight", *range(1, 20)) for n in "abc"), names=("a", "b", "c"))
    page = html_page.text([Diagnosis(run, Verdict.WARNING, (finding("b"),))])

    assert 'data-heat="grad_norm" data-row="1"' in page
    assert "<figcaption>gradient norm:" in page
    [data] = blocks(page)
    assert data["layers"]["marked"] == [[], [1], []]


def test_a_finding_of_the_loss_that_names_a_layer_shows_the_loss() -> None:
    run = run_of(gradient("b.weight", *range(1, 20)), names=("b",))
    page = html_page.text([Diagnosis(run, Verdict.WARNING, (finding("b", series="loss"),))])

    assert "<figcaption>Loss" in page and ' data-heat="' not in page


def test_values_that_float32_cannot_hold_are_kept_exactly() -> None:
    run = run_of(
        Series("activation_variance", np.arange(3), np.array([1e300, 1e-200, 1.0]), where="a")
    )
    [data] = blocks(html_page.text([Diagnosis(run, Verdict.HEALTHY)]))
    [heat] = data["layers"]["maps"]

    assert unpack(heat["low"]).tolist() == [1e300, 1e-200, 1.0]


def test_the_picture_tells_nothing_zero_and_broken_apart() -> None:
    run = run_of(
        gradient("a.weight", 0.0, 1.0, 10.0, np.nan),
        Series("param_grad_norm", np.array([0, 1]), np.array([1.0, 1.0]), where="b.weight"),
        names=("a", "b"),
    )
    [heat] = found_in(run).maps
    colours = picture.pixels(heat)
    a, b = colours[0], colours[1]

    assert tuple(a[0]) == picture._ZERO and tuple(a[-1]) == picture._BROKEN
    assert tuple(b[-1]) == picture._NOTHING
    assert a[80].sum() > a[140].sum() > 0  # more is darker
    assert picture.address(heat).startswith("data:image/png;base64,iVBOR")
