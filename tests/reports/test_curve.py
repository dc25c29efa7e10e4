from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from nndiag.records import Series
from nndiag.reports.curve import Curve, Mark, draw, spark

BRAILLE = {chr(code) for code in range(0x2800, 0x2900)} | {" "}


def series(values: object, first: int = 0) -> Series:
    values = np.asarray(values, dtype=float)
    return Series("loss", first + np.arange(values.size), values)


def drawn(values: object, **options: object) -> Curve:
    curve = draw(series(values), **options)  # type: ignore[arg-type]
    assert curve is not None
    return curve


def test_one_high_step_among_a_million_is_still_seen() -> None:
    values = np.ones(1_000_000)
    values[700_000] = 9.0

    curve = drawn(values, columns=60)

    assert curve.rows[0].strip() != ""
    assert curve.rows[0].index(curve.rows[0].strip()) == 42  # 70 % of 60 columns


def test_a_falling_line_starts_at_the_top_left_and_ends_at_the_bottom_right() -> None:
    curve = drawn(np.linspace(9, 1, 500), columns=40, rows=6)

    assert curve.rows[0][0] != " " and curve.rows[0][-1] == " "
    assert curve.rows[-1][-1] != " " and curve.rows[-1][0] == " "
    assert (curve.labels[0].strip(), curve.labels[-1].strip()) == ("9", "1")


def test_every_column_between_two_points_is_joined() -> None:
    curve = drawn([1.0, 5.0, 2.0], columns=30, rows=4)

    assert all(any(row[column] != " " for row in curve.rows) for column in range(20))


def test_a_wide_range_gets_a_logarithmic_axis() -> None:
    assert drawn(np.geomspace(1e-3, 1e3, 100)).logarithmic
    assert not drawn(np.linspace(1, 9, 100)).logarithmic
    assert not drawn(np.linspace(-100, 100, 100)).logarithmic  # no logarithm of a negative loss


@pytest.mark.parametrize("values", [[], [1.0], [np.nan] * 5, [1.0, np.nan, np.inf]])
def test_there_is_no_curve_without_two_finite_values(values: list[float]) -> None:
    assert draw(series(values)) is None


def test_marks_name_both_ends_of_a_long_range_and_overlapping_ones_take_a_row_each() -> None:
    marks = [Mark("1", 20, 39), Mark("2", 30, 50, seen_in_curve=False), Mark("3", 80, 80)]
    curve = drawn(np.arange(100.0), columns=50, marks=marks, ascii_only=True)

    assert curve.marks == (
        " " * 10 + "1--------1" + " " * 20 + "3",
        " " * 15 + "2---------2",
    )
    assert [column for column, inside in enumerate(curve.marked) if inside] == [*range(10, 20), 40]


def test_a_mark_outside_of_the_curve_is_put_at_its_edge() -> None:
    curve = drawn(np.arange(100.0), columns=50, marks=[Mark("1", 500, 900)])

    assert curve.marks == (" " * 49 + "1",)


def test_marks_that_find_no_row_are_left_out() -> None:
    marks = [Mark(label, 10, 90) for label in "12345"]

    assert [line.strip()[0] for line in drawn(np.arange(100.0), marks=marks).marks] == [*"123"]


@given(
    arrays(np.float64, st.integers(0, 40), elements=st.floats(allow_nan=True, allow_infinity=True)),
    st.integers(1, 30),
    st.integers(1, 9),
    st.booleans(),
)
def test_any_values_can_be_drawn(values: np.ndarray, columns: int, rows: int, plain: bool) -> None:
    curve = draw(series(values), columns=columns, rows=rows, ascii_only=plain)

    if curve is not None:
        assert len(curve.rows) == len(curve.labels) == rows
        assert {len(row) for row in curve.rows} == {columns}
        assert set("".join(curve.rows)) <= (set(" '.|") if plain else BRAILLE)


def test_labels_have_the_digits_that_tell_them_apart() -> None:
    assert [text.strip() for text in drawn(np.linspace(6.9016, 6.9012, 50), rows=3).labels] == [
        *("6.9016", "6.9014", "6.9012"),
    ]
    assert len(set(drawn([5.0, 5.0, 5.0], rows=3).labels)) == 1


def test_a_row_of_blocks_rises_and_falls_with_the_series() -> None:
    assert spark(series(np.linspace(1, 8, 80)), 8) == "▁▂▃▄▅▆▇█"
    assert spark(series(np.linspace(8, 1, 80)), 8) == "█▇▆▅▄▃▂▁"
    assert spark(series([1.0] * 50), 4) == "▁▁▁▁"


def test_one_high_step_is_seen_in_a_row_of_blocks_too() -> None:
    values = np.ones(1_000_000)
    values[700_000] = 9.0

    assert spark(series(values), 10) == "▁▁▁▁▁▁▁█▁▁"


def test_few_points_of_a_row_of_blocks_are_joined() -> None:
    assert spark(series([1.0, 8.0]), 8) == "▁▂▃▄▅▆▇█"


@given(arrays(np.float64, st.integers(0, 50), elements=st.floats(width=64)))
def test_a_row_of_blocks_is_as_wide_as_asked_or_empty(values: np.ndarray) -> None:
    row = spark(series(values), 12)

    assert len(row) == (12 if np.count_nonzero(np.abs(values) < 1e300) > 1 else 0)
    assert set(row) <= set("▁▂▃▄▅▆▇█")
