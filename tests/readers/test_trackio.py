"""Trackio's database; the real one is made by fixtures/make_trackio.py."""

import json
import math
import os
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nndiag.errors import UnreadableLog
from nndiag.readers.lines.text_lines import head_of
from nndiag.readers.stores import trackio

FIXTURE = Path(__file__).parent / "fixtures" / "trackio"
DATABASE = FIXTURE / "digits.db"
EXPECTED = json.loads((FIXTURE / "expected.json").read_text())
SCHEMA = """CREATE TABLE metrics (id INTEGER PRIMARY KEY AUTOINCREMENT, run_id TEXT NOT NULL,
timestamp TEXT NOT NULL, run_name TEXT NOT NULL, step INTEGER NOT NULL, metrics TEXT NOT NULL)"""


@pytest.fixture
def database(tmp_path):
    """Make a small database of rows (run id, time, run name, step, metrics)."""

    def make(rows, schema=SCHEMA):
        path = tmp_path / "small.db"
        path.unlink(missing_ok=True)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA page_size = 512")
            connection.execute(schema)
            names = [row[1] for row in connection.execute("PRAGMA table_info(metrics)")]
            names = [name for name in names if name != "id"]
            insert = (
                f"INSERT INTO metrics ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"
            )
            connection.executemany(insert, rows)
            connection.commit()
        os.utime(path, (1e9, 1e9))  # nobody writes to it
        return path

    return make


def rows(*records, run="f00"):
    return [
        (run, f"2026-01-01T00:00:{i:02}", "small", i, record) for i, record in enumerate(records)
    ]


def test_the_database_is_recognised_and_another_is_not(database):
    other = database([], schema="CREATE TABLE metrics (timestamp, step, metrics)")

    assert "Trackio" in trackio.recognises(DATABASE, head_of(DATABASE))
    assert trackio.recognises(other, head_of(other)) is None
    assert trackio.recognises(other, b"{}") is None


def test_runs_are_called_by_their_names_or_by_their_ids_where_two_share_one():
    ids = [run["id"] for run in EXPECTED]

    assert list(trackio.runs_in(DATABASE)) == ["restarted", "without-steps", *ids[2:]]
    with pytest.raises(UnreadableLog, match="holds 4 runs: restarted"):
        trackio.read(DATABASE)
    with pytest.raises(UnreadableLog, match="no run is called that"):
        trackio.read_run(DATABASE, "baseline")


@pytest.mark.parametrize("number", range(len(EXPECTED)))
def test_the_values_are_those_that_trackio_itself_gives(number):
    logged = EXPECTED[number]
    run = trackio.read_run(DATABASE, logged["id"])

    assert run.path == f"{DATABASE}#{logged['id']}"
    for series in run.series:
        newest = {}
        for log in logged["logs"]:
            flat = {**log, **{f"train/{key}": v for key, v in log.get("train", {}).items()}}
            if series.name in flat:
                newest[log["step"]] = float(flat[series.name])
        assert list(series.steps) == sorted(newest)
        np.testing.assert_array_equal(series.values, [newest[step] for step in sorted(newest)])
    assert run.one("loss") is not None


def test_nan_and_infinities_a_restart_and_an_alert_are_seen():
    run = trackio.read_run(DATABASE, "restarted")
    loss = run.one("loss")

    assert math.isnan(loss.values[26])
    assert list(loss.values[27:29]) == [math.inf, -math.inf]
    assert run.one("grad_norm").name == "train/grad_norm"
    assert any("resumed once" in note for note in run.notes)
    assert any("error 'loss is not finite' at step 29" in note for note in run.notes)


def test_an_old_database_knows_runs_by_name_only(database):
    old = SCHEMA.replace("run_id TEXT NOT NULL,", "")
    path = database([row[1:] for row in rows(b'{"loss": 2}', '{"loss": 1.5}')], schema=old)

    assert list(trackio.runs_in(path)) == ["small"]
    assert list(trackio.read(path).one("loss").values) == [2.0, 1.5]


def test_rows_stand_in_the_order_of_time_as_trackio_shows_them(database):
    first, second, third = rows('{"loss": 3}', '{"loss": 2}', '{"loss": 1}')

    run = trackio.read(database([third, first, second]))

    assert list(run.one("loss").values) == [3.0, 2.0, 1.0]


def test_rows_that_are_no_objects_are_counted(database):
    deep = "[" * 20000
    path = database(rows('{"loss": 2}', "[1]", "no json", deep, b"\xff", '{"loss": "NaN"}'))

    run = trackio.read(path)

    assert list(run.one("loss").steps) == [0, 5]
    assert math.isnan(run.one("loss").values[1])
    assert any("4 rows left out" in note for note in run.notes)


def test_tables_and_images_are_no_metrics(database):
    picture = '{"loss": 2, "shown": {"_type": "trackio.image", "width": 9}}'

    run = trackio.read(database(rows(picture, picture)))

    assert [series.name for series in run.series] == ["loss"]


def readings(path):
    """Whatever a reader can be asked; its errors are the typed one, or none."""
    trackio.recognises(path, path.read_bytes()[:65536])
    for read in (trackio.runs_in, trackio.read, lambda p: trackio.read_run(p, "f00")):
        try:
            read(path)
        except UnreadableLog as error:
            assert error.what


SMALL = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
LOGGED = [json.dumps({"loss": 3.0 / (1 + i), "lr": 0.1}) for i in range(60)]


@SMALL
@given(st.data())
def test_a_cut_database_is_read_or_refused(database, data):
    path = database(rows(*LOGGED))
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    os.utime(path, (1e9, 1e9))

    readings(path)


@SMALL
@given(st.data())
def test_a_database_with_flipped_bits_is_read_or_refused(database, data):
    path = database(rows(*LOGGED))
    content = bytearray(path.read_bytes())
    places = st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=8)):
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)
    os.utime(path, (1e9, 1e9))

    readings(path)


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["loss", "step", "_type", "value", ""]), inner, max_size=3
        )
    ),
    max_leaves=8,
)
CELLS = (
    st.none() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text(max_size=9) | st.binary()
)


@SMALL
@given(st.lists(st.tuples(st.just("f00") | CELLS, CELLS, CELLS, CELLS, JSON | CELLS), max_size=6))
def test_any_cells_are_read_or_refused(database, cells):
    loose = "CREATE TABLE metrics (run_id, timestamp, run_name, step, metrics)"
    simple = int | float | str | bytes | None
    rows = [
        (*row[:4], row[4] if isinstance(row[4], bytes) else json.dumps(row[4]))
        for row in cells
        if all(isinstance(cell, simple) for cell in row[:4])
    ]

    readings(database(rows, schema=loose))
