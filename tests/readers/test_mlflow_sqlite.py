"""MLflow's database; the real one is made by fixtures/make_mlflow.py."""

import json
import math
import os
import shutil
import sqlite3
import sys
import time
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nndiag.errors import UnreadableLog
from nndiag.readers.lines.text_lines import head_of
from nndiag.readers.stores import mlflow_sqlite, sqlite_store

FIXTURE = Path(__file__).parent / "fixtures" / "mlflow"
DATABASE = FIXTURE / "mlflow.db"
EXPECTED = json.loads((FIXTURE / "expected.json").read_text())["database"]
SCHEMA = """
CREATE TABLE runs (run_uuid VARCHAR(32) PRIMARY KEY, name VARCHAR(250), status VARCHAR(20),
                   start_time BIGINT, lifecycle_stage VARCHAR(20), experiment_id INTEGER);
CREATE TABLE metrics ("key" VARCHAR(250), value FLOAT, timestamp BIGINT, run_uuid VARCHAR(32),
                      step BIGINT, is_nan BOOLEAN);
CREATE INDEX index_metrics_run_uuid ON metrics (run_uuid);
"""


@pytest.fixture
def database(tmp_path):
    """Make a small database, from statements after those of the schema."""

    def make(*statements, schema=SCHEMA, losses=(3, 2, 1), name="mlflow.db"):
        path = tmp_path / name
        path.unlink(missing_ok=True)
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("PRAGMA page_size = 512")
            connection.executescript(schema)
            if schema == SCHEMA:
                run = "INSERT INTO runs VALUES ('f00', 'small', 'FINISHED', 1, 'active', 0)"
                connection.execute(run)
                rows = [("loss", loss, 1000 + i, "f00", i, 0) for i, loss in enumerate(losses)]
                connection.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?)", rows)
            for statement in statements:
                connection.execute(statement)
            connection.commit()
        return path

    return make


def aged(path):
    """As if nobody had written to it for long: it is then opened where it is."""
    os.utime(path, (1e9, 1e9))
    return path


def losses(path):
    return list(mlflow_sqlite.read(path).one("loss").values)


def test_the_database_is_recognised_and_another_is_not(database):
    other = database(schema="CREATE TABLE metrics (x); CREATE TABLE runs (y)")

    assert "MLflow" in mlflow_sqlite.recognises(DATABASE, head_of(DATABASE))
    assert mlflow_sqlite.recognises(other, head_of(other)) is None
    assert mlflow_sqlite.recognises(other, b"key,value\n") is None


def test_runs_are_called_by_their_names_and_a_deleted_one_is_left_out():
    names = ["restarted", "without-steps", "at-once", "with-data-sets", "without-metrics"]

    assert list(mlflow_sqlite.runs_in(DATABASE)) == names


def test_runs_of_one_name_are_called_by_their_ids(database):
    path = database(
        "INSERT INTO runs VALUES ('f01', 'small', 'FINISHED', 2, 'active', 0)",
        "INSERT INTO runs VALUES ('f02', 'a/b\u202e', 'FINISHED', 0, 'active', 0)",
    )

    assert list(mlflow_sqlite.runs_in(path)) == ["f02", "f00", "f01"]
    assert mlflow_sqlite.read_run(path, "f00").path == f"{path}#f00"


@pytest.mark.parametrize("name", ["restarted", "at-once", "without-steps"])
def test_the_values_are_those_that_mlflow_itself_gives(name):
    """But for the infinities, which MLflow stores as the largest numbers and gives as such."""
    run = mlflow_sqlite.read_run(DATABASE, name)

    compared = 0
    for metric, history in EXPECTED[name].items():
        [series] = [series for series in run.series if series.name == metric]
        history = sorted(history, key=lambda row: row[1])
        steps = range(len(history)) if name == "without-steps" else [row[0] for row in history]
        newest = dict(zip(steps, (float(row[2]) for row in history), strict=True))
        values = [newest[step] for step in sorted(newest)]
        given = np.clip(series.values, -sys.float_info.max, sys.float_info.max)
        assert list(series.steps) == sorted(newest)
        np.testing.assert_array_equal(given, values)
        compared += 1
    assert compared >= 2


def test_nan_and_infinities_are_restored_and_the_restart_is_seen():
    run = mlflow_sqlite.read_run(DATABASE, "restarted")
    loss = run.one("loss")

    assert math.isnan(loss.values[26])
    assert list(loss.values[27:29]) == [math.inf, -math.inf]
    assert loss.values[15] == 2.0 / 16 + 12  # of the second attempt
    assert run.blind == ()
    assert any("it failed (experiment 'digits')" in note for note in run.notes)


def test_several_runs_are_named_and_an_empty_or_unknown_one_is_an_error():
    with pytest.raises(UnreadableLog, match="holds 4 runs: restarted, without-steps"):
        mlflow_sqlite.read(DATABASE)
    with pytest.raises(UnreadableLog, match="no metric was logged"):
        mlflow_sqlite.read_run(DATABASE, "without-metrics")
    with pytest.raises(UnreadableLog, match="no run is called that") as error:
        mlflow_sqlite.read_run(DATABASE, "nobody")
    assert "restarted" in error.value.do


def test_a_deleted_run_can_be_read_by_its_name():
    assert any("deleted" in note for note in mlflow_sqlite.read_run(DATABASE, "deleted").notes)


def test_a_store_without_the_flag_for_nan_is_blind(database):
    path = database("ALTER TABLE metrics DROP COLUMN is_nan")

    run = mlflow_sqlite.read(path)

    assert run.blind == ("loss non-finite",)
    assert any("no flag for NaN" in note for note in run.notes)


def test_cells_of_a_wrong_type_are_counted(database):
    path = database(
        "INSERT INTO metrics VALUES ('loss', 'much', 5, 'f00', 7, 0)",
        "INSERT INTO metrics VALUES ('loss', 0.5, 5, 'f00', 'seven', 0)",
        "INSERT INTO metrics VALUES (x'ff', 0.5, 5, 'f00', 7, 0)",
        "INSERT INTO metrics VALUES ('loss', NULL, 5, 'f00', 7, 0)",
        "INSERT INTO metrics VALUES ('loss', 0.5, 'noon', 'f00', 9, 'yes')",
    )

    run = mlflow_sqlite.read(path)

    assert list(run.one("loss").values) == [3.0, 2.0, 1.0, 0.5]
    assert any("4 rows left out" in note for note in run.notes)


def files_in(folder):
    return {path.name: (path.stat().st_mtime_ns, path.read_bytes()) for path in folder.iterdir()}


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_database_that_is_being_written_to_is_read_and_left_as_it_is(database, mode):
    """The writer is in a transaction; what it has not committed is not there."""
    path = database()
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute(f"PRAGMA journal_mode = {mode}")
        writer.execute("INSERT INTO metrics VALUES ('loss', 0.5, 2000, 'f00', 9, 0)")
        writer.execute("BEGIN EXCLUSIVE")
        writer.execute("PRAGMA cache_spill = 1")
        writer.execute("INSERT INTO metrics VALUES ('loss', 0.1, 3000, 'f00', 10, 0)")
        before = files_in(path.parent)

        assert losses(path) == [3.0, 2.0, 1.0, 0.5]

        assert files_in(path.parent) == before
        writer.execute("COMMIT")
    assert losses(path) == [3.0, 2.0, 1.0, 0.5, 0.1]


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
def test_a_database_whose_writer_was_killed_is_read_with_its_journal(database, tmp_path, mode):
    path = database()
    with closing(sqlite3.connect(path, isolation_level=None)) as writer:
        writer.execute(f"PRAGMA journal_mode = {mode}")
        writer.execute("PRAGMA cache_size = 1")  # so that changes reach the file before COMMIT
        writer.execute("INSERT INTO metrics VALUES ('loss', 0.5, 2000, 'f00', 9, 0)")
        writer.execute("BEGIN")
        rows = [("loss", 0.0, 3000 + i, "f00", 10 + i, 0) for i in range(500)]
        writer.executemany("INSERT INTO metrics VALUES (?, ?, ?, ?, ?, ?)", rows)
        killed = tmp_path / "killed"
        killed.mkdir()
        for file in tmp_path.glob("mlflow.db*"):
            if not file.name.endswith("-shm"):
                aged(Path(shutil.copy(file, killed)))
        writer.execute("ROLLBACK")
    before = files_in(killed)
    assert len(before) == 2

    assert losses(killed / "mlflow.db") == [3.0, 2.0, 1.0, 0.5]

    assert files_in(killed) == before


def test_nothing_is_written_beside_a_database_at_rest(database):
    path = aged(database())
    os.chmod(path.parent, 0o555)
    try:
        before = files_in(path.parent)
        assert losses(path) == [3.0, 2.0, 1.0]
        assert files_in(path.parent) == before
    finally:
        os.chmod(path.parent, 0o755)


def test_a_name_that_looks_like_an_address_is_a_name(database):
    path = aged(database(name="my runs?mode=rwc#1 %41.db"))

    assert losses(path) == [3.0, 2.0, 1.0]


VIEWS = {
    "a view": "DROP TABLE metrics; CREATE VIEW metrics AS WITH RECURSIVE n(i) AS (SELECT 1 UNION "
    "ALL SELECT i + 1 FROM n) SELECT 'loss' AS key, i AS value, i AS timestamp, 'f00' AS run_uuid, "
    "i AS step, 0 AS is_nan FROM n",
    "computed columns": "DROP TABLE metrics; CREATE TABLE metrics (key, timestamp, run_uuid, step, "
    "is_nan, value AS (length(hex(zeroblob(400000000)))))",
    "a virtual table": "DROP TABLE metrics; CREATE VIRTUAL TABLE metrics USING fts5(key, value, "
    "timestamp, run_uuid, step, is_nan)",
    "a trigger and an index with other names": "CREATE TRIGGER 'sqlite;--' AFTER INSERT ON metrics "
    'BEGIN DELETE FROM metrics; END; CREATE INDEX "x""y" ON metrics (value * 0)',
}


@pytest.mark.parametrize("statements", VIEWS.values(), ids=VIEWS)
def test_only_tables_are_read(database, statements):
    path = database()
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(statements)

    if "TRIGGER" in statements:
        assert losses(path) == [3.0, 2.0, 1.0]
    else:
        assert mlflow_sqlite.recognises(path, head_of(path)) is None
        with pytest.raises(UnreadableLog, match="no database of MLflow"):
            mlflow_sqlite.read(path)


def test_a_file_that_is_no_database_is_an_error(log, tmp_path):
    path = log("mlflow.db", sqlite_store.MAGIC + b"\xff" * 5000)

    assert mlflow_sqlite.recognises(path, head_of(path)) is None
    for broken in (path, log("other.db", "text"), tmp_path / "missing.db", tmp_path):
        with pytest.raises(UnreadableLog):
            mlflow_sqlite.read(broken)


def test_a_fifo_beside_or_instead_of_a_database_is_never_waited_for(database, tmp_path):
    path = database()
    os.mkfifo(f"{path}-wal")
    os.mkfifo(tmp_path / "fifo.db")

    assert losses(path) == [3.0, 2.0, 1.0]
    with pytest.raises(UnreadableLog, match="not a regular file"):
        mlflow_sqlite.read(tmp_path / "fifo.db")


def test_a_damaged_database_gives_what_stands_before_the_damage(database):
    path = database(losses=[5.0 - 0.01 * i for i in range(400)])
    content = bytearray(path.read_bytes())
    content[len(content) * 3 // 5 :] = bytes(len(content) - len(content) * 3 // 5)
    path.write_bytes(content)

    run = mlflow_sqlite.read_run(path, "f00")

    assert 10 < len(run.one("loss")) < 400
    assert run.one("loss").values[5] == 5.0 - 0.05
    assert any("the database is damaged" in note for note in run.notes)


def test_pages_in_a_ring_do_not_keep_us_busy(database):
    """Each inner page of the table points to itself: SQLite would walk it for ever."""
    path = database(losses=range(400))
    content = bytearray(path.read_bytes())
    inner = [at for at in range(512, len(content), 512) if content[at] == 5]
    assert inner
    for at in inner:
        page = (at // 512 + 1).to_bytes(4, "big")
        content[at + 8 : at + 12] = page
        for cell in range(int.from_bytes(content[at + 3 : at + 5], "big")):
            start = at + int.from_bytes(content[at + 12 + 2 * cell :][:2], "big")
            content[start : start + 4] = page
    path.write_bytes(content)

    began = time.monotonic()
    with pytest.raises(UnreadableLog):
        mlflow_sqlite.read(path)
    assert time.monotonic() - began < 5


def readings(path):
    """Whatever a reader can be asked; its errors are the typed one, or none."""
    mlflow_sqlite.recognises(path, path.read_bytes()[:65536])
    for read in (
        mlflow_sqlite.runs_in,
        mlflow_sqlite.read,
        lambda p: mlflow_sqlite.read_run(p, "f00"),
    ):
        try:
            read(path)
        except UnreadableLog as error:
            assert error.what


SMALL = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))


@SMALL
@given(st.data())
def test_a_cut_database_is_read_or_refused(database, data):
    path = database(losses=range(60))
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])

    readings(aged(path))


@SMALL
@given(st.data())
def test_a_database_with_flipped_bits_is_read_or_refused(database, data):
    path = database(losses=range(60))
    content = bytearray(path.read_bytes())
    places = st.integers(0, len(content) - 1)
    for place in data.draw(st.lists(places, min_size=1, max_size=8)):
        content[place] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(content)

    readings(aged(path))


CELLS = (
    st.none()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats()
    | st.text(max_size=9)
    | st.binary(max_size=9)
)


@SMALL
@given(st.lists(st.tuples(st.just("loss") | CELLS, CELLS, CELLS, CELLS, CELLS), max_size=8))
def test_any_cells_are_read_or_refused(database, rows):
    path = database()
    with closing(sqlite3.connect(path)) as connection:
        insert = "INSERT INTO metrics VALUES (?, ?, ?, 'f00', ?, ?)"
        connection.executemany(insert, rows)
        connection.commit()

    readings(aged(path))
