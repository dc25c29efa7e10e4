"""Tables that grow, and tables that are too large."""

import numpy as np
import pytest

from nndiag.readers.tables.table import TableBuilder


def built(rows, most=1 << 27):
    builder = TableBuilder(most)
    for row in rows:
        builder.add(row.items())
    return builder.table()


def as_rows(table):
    rows = [{} for _ in range(table.height)]
    for name, column in table.columns.items():
        for row, value in zip(column.rows.tolist(), column.values.tolist(), strict=True):
            rows[row][name] = value
    return rows


SHAPES = {
    "full columns": [{"a": 1.0, "b": 2.0}, {"a": 3.0, "b": 4.0}],
    "a column that begins late": [{"a": 1.0}, {"a": 2.0, "b": 3.0}, {"a": 4.0, "b": 5.0}],
    "a column that ends early": [{"a": 1.0, "b": 2.0}, {"a": 3.0}, {"a": 4.0}],
    "gaps in all": [{"a": 1.0}, {"b": 2.0}, {"a": 3.0}, {}, {"b": 4.0}],
}


@pytest.mark.parametrize("rows", SHAPES.values(), ids=SHAPES)
def test_what_is_added_is_in_the_table(rows):
    assert as_rows(built(rows)) == rows


@pytest.mark.parametrize("rows", SHAPES.values(), ids=SHAPES)
def test_blocks_and_rows_give_the_same_table(rows):
    builder = TableBuilder()
    for part in (rows, rows):
        for name in {name for row in part for name in row}:
            present = [i for i, row in enumerate(part) if name in row]
            values = np.array([part[i][name] for i in present])
            is_full = len(present) == len(part)
            builder.add_block(name, None if is_full else np.array(present), values)
        builder.advance(len(part))

    assert as_rows(builder.table()) == rows + rows


def test_of_a_name_twice_in_a_row_the_first_value_counts():
    builder = TableBuilder()
    builder.add([("a", 1.0), ("a", 2.0)])
    builder.add([("b", 1.0)])
    builder.add([("a", 3.0), ("a", 4.0)])

    assert as_rows(builder.table()) == [{"a": 1.0}, {"b": 1.0}, {"a": 3.0}]


def thinned(rows, most=40_000):
    table = built(rows, most)
    assert any("more than we keep" in remark for remark in table.remarks)
    assert sum(2 * len(column) for column in table.columns.values()) < 2 * most
    return table


def test_too_many_rows_are_thinned_evenly_and_stay_together():
    table = thinned({"step": float(i), "loss": i + 0.5} for i in range(200_000))

    steps = table.columns["step"].values
    assert np.array_equal(table.columns["loss"].values, steps + 0.5)
    assert table.columns["step"].rows is table.columns["loss"].rows
    assert set(np.diff(steps)) <= {8.0, 16.0, 24.0}
    assert steps[-1] > 199_900


def test_a_nan_among_too_many_rows_stays():
    bad = {77_777, 123_456, 199_998}
    table = thinned({"step": float(i), "loss": np.nan if i in bad else 1.0} for i in range(200_000))

    is_bad = np.isnan(table.columns["loss"].values)
    assert set(table.columns["step"].values[is_bad]) == bad


def test_rows_of_a_rare_kind_all_stay():
    def rows():
        for i in range(200_000):
            yield {"step": float(i), "loss": 1.0}
            if i % 1000 == 0:
                yield {"step": float(i), "val_loss": 2.0}

    table = thinned(rows())
    assert len(table.columns["val_loss"]) == 200


def test_two_kinds_of_rows_in_turn_are_both_thinned():
    table = thinned({"d" if i % 2 else "g": float(i)} for i in range(200_000))

    assert len(table.columns["d"]) == pytest.approx(len(table.columns["g"]), rel=0.01)


def test_rows_that_are_all_of_different_kinds_are_thinned_too():
    rng = np.random.default_rng(0)
    names = [f"c{i}" for i in range(40)]
    rows = ({names[j]: 1.0 for j in np.flatnonzero(rng.random(40) < 0.2)} for _ in range(30_000))

    thinned(rows)
