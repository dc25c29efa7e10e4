"""CSV and JSON lines, read back by pandas, polars, Python's own modules and our readers."""

from __future__ import annotations

import csv
import io
import json
import math
from pathlib import Path

import numpy as np
import pytest

from nndiag.analysis import analyze
from nndiag.exports import csv_tables, json_lines
from nndiag.exports.files import new_file, write_all
from nndiag.exports.tables import TABLES, Tables, tables_of
from tests.exports.conftest import ROOT, TINY

FORMATS = {"csv": csv_tables, "jsonl": json_lines}


def text(form: str, table: str, tables: Tables) -> str:
    return "".join(FORMATS[form].table(table, tables))


def written(form: str, table: str, tables: Tables, folder: Path) -> Path:
    path = folder / f"{table}{FORMATS[form].SUFFIX}"
    with new_file(path, force=False) as file:
        write_all(file, FORMATS[form].table(table, tables))
    return path


def same(found: object, series) -> bool:
    return np.array_equal(np.asarray(found, np.float64), series.values, equal_nan=True)


def test_a_csv_cell_has_every_digit_and_is_empty_only_where_nothing_was_recorded(hostile):
    header, *rows = csv.reader(io.StringIO(text("csv", "steps", hostile)))

    loss = header.index("loss")
    cells = {int(row[0]): row[loss] for row in rows}
    assert cells == {
        -2: repr(1 / 3), 0: "nan", 1: "inf", 5: "-inf", 300: "5e-324", 2**40: "1e+300",
    }  # fmt: skip
    assert {row[header.index("Adam/lr")] for row in rows} == {"", "0.1", "1e-05"}


def test_no_text_of_a_csv_is_a_formula_and_no_number_is_text(hostile):
    for table in TABLES:
        for row in csv.reader(io.StringIO(text("csv", table, hostile))):
            for cell in row:
                if cell.startswith(csv_tables.FORMULA):
                    assert math.isinf(float(cell)) or float(cell) < 0


def test_every_name_is_a_column_of_its_own(hostile):
    [header] = list(csv.reader(io.StringIO(text("csv", "steps", hostile))))[:1]

    assert header == [
        "step", "loss", "Adam/lr", "SGD/lr", "'=HYPERLINK(\"http://x\",\"y\")",
        'comma, "quote"\nline', "step_2", "reported/loss", "half ? a pair",
    ]  # fmt: skip


def test_json_lines_are_json_without_tokens_of_its_own(hostile):
    def refuse(token: str) -> None:
        raise AssertionError(token)

    lines = text("jsonl", "steps", hostile).splitlines()
    rows = [json.loads(line, parse_constant=refuse) for line in lines]

    assert [row["step"] for row in rows] == [-2, 0, 1, 5, 300, 2**40]
    assert [row["loss"] for row in rows] == [1 / 3, "NaN", "Infinity", "-Infinity", TINY, 1e300]
    assert "Adam/lr" not in rows[0]
    layers = [json.loads(line) for line in text("jsonl", "layers", hostile).splitlines()]
    assert layers[1] == {
        "step": 5, "metric": "param_norm", "where": "@net.0.weight", "owner": "Adam",
        "value": "NaN",
    }  # fmt: skip
    [finding] = [json.loads(line) for line in text("jsonl", "findings", hostile).splitlines()]
    assert finding["remedies"][0]["to"] == 0.03 and finding["layers"] == ["@net.0", "net.1"]


@pytest.mark.parametrize("form", FORMATS)
def test_a_run_without_layers_and_findings_has_empty_tables(form: str, nothing):
    assert len(text(form, "layers", nothing).splitlines()) == (form == "csv")
    assert len(text(form, "findings", nothing).splitlines()) == (form == "csv")


def test_pandas_and_polars_read_the_numbers_as_they_were(spike, tmp_path):
    pandas, polars = pytest.importorskip("pandas"), pytest.importorskip("polars")
    path, long = (written("csv", table, spike, tmp_path) for table in ("steps", "layers"))
    by_name = {s.label: s for s in spike.diagnosis.run.series if s.metric == s.label}

    frame = pandas.read_csv(path, index_col="step")
    other = polars.read_csv(path, infer_schema_length=None)
    for name in ("loss", "grad_norm", "step_time_s"):
        steps = by_name[name].steps
        # pandas' own reader may round the last digit
        assert np.allclose(frame.loc[steps, name], by_name[name].values, rtol=1e-15, atol=0)
        found = other.filter(polars.col("step").is_in(steps.tolist()))[name]
        assert found.null_count() == 0 and same(found, by_name[name])
    layers = pandas.read_csv(long, keep_default_na=False)
    assert len(layers) == spike.rows["layers"]
    one = spike.layers[-1]
    chosen = layers[(layers["metric"] == one.metric) & (layers["where"] == one.where)]
    assert np.allclose(chosen["value"], one.values, rtol=1e-15, atol=0)
    assert list(chosen["step"]) == one.steps.tolist()


def test_polars_reads_json_lines(spike, tmp_path):
    polars = pytest.importorskip("polars")
    path = written("jsonl", "steps", spike, tmp_path)

    frame = polars.read_ndjson(path, infer_schema_length=None)

    [loss] = [s for s in spike.diagnosis.run.series if s.metric == "loss"]
    assert same(frame["loss"], loss)


@pytest.mark.parametrize("form", FORMATS)
def test_the_exported_steps_are_judged_as_the_run_was(form: str, spike, tmp_path):
    path = written(form, "steps", spike, tmp_path)

    [again] = analyze(str(path)).diagnoses

    assert [f.name for f in again.findings] == ["loss-spike"]
    assert again.findings == tuple(f.with_(owner="") for f in spike.diagnosis.findings)
    assert again.verdict == spike.diagnosis.verdict


def test_a_loss_that_became_nan_is_told_after_the_way_through_csv(tmp_path):
    [nan] = analyze(str(ROOT / "sample_runs" / "nan_loss" / "run")).diagnoses

    for form in FORMATS:
        [again] = analyze(str(written(form, "steps", tables_of(nan), tmp_path))).diagnoses
        assert [f.name for f in again.findings][:1] == ["loss-nonfinite"]
