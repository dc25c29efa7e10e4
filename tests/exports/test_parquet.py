"""Parquet, read back by pyarrow, pandas and polars."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nndiag.exports.tables import TABLES, Tables

pyarrow = pytest.importorskip("pyarrow", reason="parquet needs pyarrow: pip install pyarrow")

from nndiag.exports import parquet  # noqa: E402

files = pyarrow.parquet  # loaded by our module


def written(tables: Tables, folder: Path) -> dict[str, Path]:
    paths = {table: folder / f"{table}.parquet" for table in TABLES}
    for table, path in paths.items():
        with path.open("wb") as file:
            parquet.write(table, tables, file)
    return paths


def test_nan_is_a_number_and_null_is_nothing(hostile, tmp_path):
    table = files.read_table(written(hostile, tmp_path)["steps"])

    assert table["step"].to_pylist() == [-2, 0, 1, 5, 300, 2**40]
    assert str(table["loss"].to_pylist()) == "[0.3333333333333333, nan, inf, -inf, 5e-324, 1e+300]"
    assert table["Adam/lr"].to_pylist() == [None, 0.1, None, 1e-05, None, None]
    assert table["loss"].null_count == 0
    assert '=HYPERLINK("http://x","y")' in table.column_names


def test_layers_are_long_and_findings_keep_their_lists(hostile, tmp_path):
    paths = written(hostile, tmp_path)

    layers = files.read_table(paths["layers"]).to_pylist()
    [finding] = files.read_table(paths["findings"]).to_pylist()

    assert layers[0] == {
        "step": 0, "metric": "param_norm", "where": "@net.0.weight", "owner": "Adam", "value": 2.5,
    }  # fmt: skip
    assert [row["metric"] for row in layers] == ["param_norm"] * 2 + ["activation_variance"]
    assert finding["layers"] == ["@net.0", "net.1"]
    assert json.loads(finding["remedies"])[0]["name"] == "lower-lr"
    assert (finding["step_start"], finding["step_end"]) == (0, 5)


def test_a_run_without_layers_and_findings_has_empty_tables(nothing, tmp_path):
    paths = written(nothing, tmp_path)

    rows = {table: files.read_metadata(path).num_rows for table, path in paths.items()}
    assert rows == {"steps": 700, "layers": 0, "findings": 0}
    told = json.loads(files.read_schema(paths["steps"]).metadata[b"nndiag"])
    assert told["verdict"] == "healthy"


def test_pandas_and_polars_read_the_same_numbers(spike, tmp_path):
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    paths = written(spike, tmp_path)
    [loss] = [s for s in spike.diagnosis.run.series if s.metric == "loss"]

    assert np.array_equal(pandas.read_parquet(paths["steps"])["loss"], loss.values)
    assert np.array_equal(polars.read_parquet(paths["steps"])["loss"].to_numpy(), loss.values)
    one = spike.layers[0]
    chosen = polars.read_parquet(paths["layers"]).filter(
        polars.col("metric") == one.metric, polars.col("where") == one.where
    )
    assert np.array_equal(chosen["value"].to_numpy(), one.values)
