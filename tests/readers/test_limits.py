"""Each limit that a reader sets holds: without it a hostile log would cost memory, time or a crash.

`test_hostile_input.py` shows that nothing goes wrong; here is what each guard does about it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import sys
import time
import warnings
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nndiag.detectors import catalogue as detectors
from nndiag.diagnosis import diagnose
from nndiag.errors import UnreadableLog
from nndiag.readers import wire
from nndiag.readers.formats import csv_table, json_lines, megatron
from nndiag.readers.stores import mlflow_files
from nndiag.readers.stores.separate_metrics import MAX_DEPTH, metric_files
from nndiag.readers.stores.sqlite_store import Damaged, Store, read_store
from nndiag.readers.tables.columns import MAX_NOTE, run_of
from nndiag.readers.tables.rows import measurements
from nndiag.readers.tables.table import MAX_COLUMNS, MAX_NAME, TableBuilder
from nndiag.readers.tensorboard import tfrecord
from nndiag.readers.wandb import wandb_datastore, wandb_history, wandb_run
from nndiag.records import Series
from tests.fuzz.containers import event_frame, wandb_file

FIXTURES = Path(__file__).parent / "fixtures"


@pytest.fixture(autouse=True)
def no_warning() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def test_a_table_has_a_limited_number_of_columns() -> None:
    builder = TableBuilder()
    builder.add((f"column {number}", 1.0) for number in range(MAX_COLUMNS + 7))
    table = builder.table()

    assert len(table.columns) == MAX_COLUMNS
    assert any("7 values left out" in remark for remark in table.remarks)


def test_a_name_as_long_as_a_book_is_none() -> None:
    builder = TableBuilder()
    builder.add([("n" * (MAX_NAME + 1), 1.0), ("n" * MAX_NAME, 1.0), ("loss", 1.0)])

    assert sorted(map(len, builder.table().columns)) == [4, MAX_NAME]


def test_a_key_as_long_as_a_book_is_kept_nowhere() -> None:
    record = {"mode": "val", "loss" * 100_000: 1.0, "a": {"b" * 100_000: 1.0}}

    assert max(len(name) for name, _ in measurements(record)) <= MAX_NAME + len("val/") + 1


def test_steps_at_both_ends_of_int64_are_in_order() -> None:
    far = [-(2**63), 0, 2**63 - 1]
    assert len(Series("loss", np.array(far), np.zeros(3))) == 3
    with pytest.raises(ValueError, match="increase strictly"):
        Series("loss", np.array(far[::-1]), np.zeros(3))


def test_losses_at_the_end_of_float64_are_judged_without_a_warning() -> None:
    builder = TableBuilder()
    for step in range(300):
        loss = 1e308 if step % 7 else 1e-308
        builder.add([("step", float(step)), ("loss", loss), ("grad_norm", loss), ("lr", 1e300)])
    run = run_of(builder.table(), path="log", format="csv", loss=None)

    diagnosis = diagnose(run, detectors.every())
    assert not [a for a in diagnosis.abstained if a.reason.startswith("could not judge")]


def test_a_note_is_no_longer_than_a_paragraph() -> None:
    builder = TableBuilder()
    builder.add([("loss", 1.0)])
    run = run_of(builder.table(), path="log", format="csv", loss=None, notes=["x" * 5000])

    assert max(map(len, run.notes)) == MAX_NOTE


def test_a_cell_above_what_the_csv_module_takes_is_a_cell() -> None:
    long = "x" * 200_000

    assert csv_table.cells_of(f'1,"{long}', ",") == ["1", f'"{long}']


def test_steps_beyond_what_a_float_counts_are_no_steps(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text("step,loss\n" + "".join(f"{s}e300,0.5\n" for s in range(1, 9)))
    run = csv_table.read(path)

    [loss] = run.series_of("loss")
    assert loss.steps.tolist() == list(range(8))
    assert any("no column counts steps" in note for note in run.notes)


@pytest.mark.parametrize("odd", ["NaN", "Infinity", "1e300"])
def test_epochs_that_are_no_numbers_count_no_steps(odd: str, tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    rows = [f'{{"epoch": {epoch}, "loss": 0.5}}' for epoch in range(6)]
    path.write_text("\n".join([*rows[:3], f'{{"epoch": {odd}, "val_loss": 0.7}}', *rows[3:], ""]))
    run = json_lines.read(path)

    for series in run.series:
        assert series.steps.min() >= 0 and series.steps.max() < 10


def test_a_loss_without_a_value_is_no_loss(tmp_path: Path) -> None:
    path = tmp_path / "train.log"
    path.write_text(" iteration 1/ 9 | lm loss: 0 | number of skipped iterations: 1 |\n")
    with pytest.raises(UnreadableLog):
        megatron.read(path)

    path = tmp_path / "log.jsonl"
    path.write_text('{"loss_a": 1}\n{"loss_b": 2}\n' * 5)
    with pytest.raises(UnreadableLog, match="in no row together"):
        json_lines.read(path, "loss_a + loss_b")


def test_metric_files_are_regular_files(tmp_path: Path) -> None:
    run = tmp_path / "run"
    metrics = run / "metrics"
    metrics.mkdir(parents=True)
    (run / "meta.yaml").write_text("run_id: abc\nrun_name: x\nstatus: 3\n")
    lines = "".join(f"17000000000{step:02} 0.5 {step}\n" for step in range(9))
    (metrics / "loss").write_text(lines)
    (tmp_path / "secret").write_text(lines)
    (metrics / "linked").symlink_to(tmp_path / "secret")
    (metrics / "folder").symlink_to(tmp_path, target_is_directory=True)
    os.mkfifo(metrics / "pipe")
    remarks: list[str] = []

    assert [name for _, name in metric_files(metrics, remarks)] == ["loss"]
    assert len(remarks) == 3
    assert [series.name for series in mlflow_files.read(run).series] == ["loss"]


def test_metric_files_have_a_number_and_a_depth(tmp_path: Path) -> None:
    deep = tmp_path
    for _ in range(MAX_DEPTH + 3):
        deep = deep / "d"
        deep.mkdir()
    (deep / "loss").touch()
    remarks: list[str] = []
    assert list(metric_files(tmp_path, remarks)) == []
    assert any("too deep" in remark for remark in remarks)

    for number in range(30):
        (tmp_path / f"m{number}").touch()
    assert len(list(metric_files(tmp_path, remarks, limit=10))) <= 10
    assert any("more than 10 files" in remark for remark in remarks)


@contextlib.contextmanager
def store() -> Iterator[Store]:
    connection = sqlite3.connect(":memory:")
    with contextlib.closing(connection):
        yield Store(connection, 4096)


COUNTING = "WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c)"


@pytest.mark.parametrize(
    ("query", "why"),
    [
        (f"{COUNTING} SELECT count(*) FROM c", "too long to read"),
        (f"{COUNTING} SELECT x FROM c", "more than its size"),
        (f"{COUNTING} SELECT zeroblob(1000000) FROM c", "more than its size"),
    ],
    ids=["work", "rows", "bytes"],
)
def test_a_database_gives_no_more_than_its_size_allows(query: str, why: str) -> None:
    started = time.process_time()
    with store() as one, pytest.raises(Damaged, match=why):
        for _ in one.rows(query):
            pass

    assert time.process_time() - started < 5


@pytest.mark.skipif(sys.version_info < (3, 11), reason="setlimit came with Python 3.11")
def test_a_cell_of_a_database_has_a_limited_size(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE t (x)")
        connection.execute("INSERT INTO t VALUES (zeroblob(20000000))")
        connection.commit()
    with pytest.raises(Exception, match="too big"):
        read_store(path, lambda one: list(one.rows("SELECT x FROM t")))


def test_a_database_may_complain_in_words_that_are_no_utf8(tmp_path: Path) -> None:
    path = tmp_path / "some.db"
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("CREATE TABLE secret (x)")
    path.write_bytes(path.read_bytes().replace(b"TABLE secret (x)", b"TABLE secret x\xc3("))
    with pytest.raises(UnreadableLog):
        read_store(path, lambda one: list(one.rows("SELECT x FROM secret")))


TORN = {
    "a varint without its end": b"\x08\xff\xff",
    "a varint of eleven bytes": b"\x08" + b"\xff" * 10 + b"\x01",
    "a length beyond the message": b"\x0a\x7fabc",
    "a length of 2^63": b"\x0a" + b"\xff" * 8 + b"\x7f" + b"abc",
    "half a fixed64": b"\x091234",
    "half a fixed32": b"\x0d12",
    "a group": b"\x0b\x0c",
    "field number 0": b"\x00\x01",
}


@pytest.mark.parametrize("message", TORN.values(), ids=TORN)
def test_a_message_that_goes_beyond_its_end_is_refused(message: bytes) -> None:
    # what stands behind the end would make it whole
    with pytest.raises(wire.Malformed):
        list(wire.fields(message + bytes(300), 0, len(message)))


def test_a_record_of_wandb_has_a_limited_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wandb_datastore, "MAX_RECORD", 100_000)
    path = tmp_path / "run.wandb"
    path.write_bytes(wandb_file([b"short", b"x" * 300_000, b"end"]))
    datastore = wandb_datastore.Datastore(path)

    assert [record for batch in datastore.batches() for record in batch] == [b"short", b"end"]
    assert any("1 records above" in sentence for sentence in datastore.damage())


def test_a_history_of_wandb_has_a_limited_number_of_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    [path] = (FIXTURES / "wandb" / "healthy").rglob("*.wandb")
    monkeypatch.setattr(wandb_history, "MAX_NAMES", 6)
    run = wandb_run.read(path)

    assert len(run.series) <= 6
    assert any("values left out: more than 6 names" in note for note in run.notes)


def test_event_files_are_not_searched_for_records_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "events.out.tfevents.1.host"
    path.write_bytes((event_frame(b"payload") * 2 + b"\x01gap\x02") * 50)
    records = tfrecord.RecordFile(path)
    assert sum(len(some.starts) for some in records) == 100

    monkeypatch.setattr(tfrecord, "MAX_GAPS", 5)
    records = tfrecord.RecordFile(path)
    assert sum(len(some.starts) for some in records) < 20
    assert records.lost_bytes > 1000


def test_texts_that_are_no_plain_numbers_are_left_out(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    texts = ['"1e999"', '"1_000"', '"\u0661"', "true", '"0x10"', '"nan"', "NaN"]
    rows = [{"step": step, "loss": 0.5} for step in range(20)]
    path.write_text(
        "".join(f'{{"step": {20 + i}, "loss": {text}}}\n' for i, text in enumerate(texts))
        + "".join(json.dumps(row) + "\n" for row in rows)
    )
    [loss] = json_lines.read(path).series_of("loss")

    assert sorted(set(loss.values[np.isfinite(loss.values)])) == [0.5]
