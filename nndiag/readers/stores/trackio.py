"""Trackio's database (`<project>.db`): a row for each call of `log`, its metrics as JSON.

NaN and the infinities are the strings "NaN", "Infinity" and "-Infinity". Tables, images and
histograms are objects with a `_type`. Rows are read as Trackio itself does, by time. What a run
says of the machine (`system_metrics`) has no steps and is not read.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from nndiag.errors import UnreadableLog
from nndiag.readers.stores.sqlite_store import (
    Damaged,
    Store,
    is_store,
    labels_of,
    listed,
    only_one,
    read_store,
)
from nndiag.readers.tables.columns import run_of
from nndiag.readers.tables.rows import measurements
from nndiag.readers.tables.table import Table, TableBuilder
from nndiag.records import Run

name = "trackio"

MAX_RUNS = 100_000
MAX_JSON = 1 << 20  # bytes of one row
SHOWN_ALERTS = 3
MAX_TITLE = 80  # characters of an alert
# what json.loads raises for text that is no JSON, is too deep, or has an integer of 5000 digits
BROKEN = (ValueError, RecursionError, OverflowError)


def recognises(path: Path, head: bytes) -> str | None:
    """Why this looks like Trackio's database; None if it does not."""
    if not is_store(head):
        return None
    try:
        is_trackio = read_store(path, _is_trackio)
    except UnreadableLog:
        return None
    return "an SQLite database with Trackio's table metrics" if is_trackio else None


def runs_in(path: Path) -> Sequence[str]:
    """The runs of a project, the earliest first: by name, or by id where a name is shared.

    Raises:
        UnreadableLog: it is no database of Trackio, or there is no run in it.
    """
    runs = [label for _, label in read_store(path, lambda store: _runs(store, path))]
    if not runs:
        raise UnreadableLog(where=str(path), what="no run in this Trackio database")
    return runs


def read(path: Path, loss: str | None = None) -> Run:
    """The only run in a database.

    Raises:
        UnreadableLog: there is none, there are several, or it cannot be read.
    """
    return read_run(path, only_one(path, runs_in(path), "Trackio"), loss)


def read_run(path: Path, run: str, loss: str | None = None) -> Run:
    """The run called `run`, by its id, or by its name where no other has that.

    Raises:
        UnreadableLog: there is no such run, or it holds no loss or none called `loss`.
    """
    where = f"{path}#{run}"

    def work(store: Store) -> tuple[Table, list[str]]:
        runs = _runs(store, path)
        found = [run_id for run_id, label in runs if run in (run_id, label)]
        if not found:
            do = f"known: {listed([label for _, label in runs])}"
            raise UnreadableLog(where=where, what="no run is called that", do=do)
        return _table(store, found[0]), _alerts(store, found[0])

    table, alerts = read_store(path, work)
    return run_of(table, path=where, format=name, loss=loss, notes=alerts)


def _is_trackio(store: Store) -> bool:
    return store.columns("metrics") >= {"timestamp", "run_name", "metrics"}


def _key(store: Store, table: str) -> str:
    """The column that tells runs apart; older databases know only their names."""
    return "run_id" if "run_id" in store.columns(table) else "run_name"


def _runs(store: Store, path: Path) -> list[tuple[str, str]]:
    """(id, label) of all runs, the earliest first."""
    if not _is_trackio(store):
        raise UnreadableLog(where=str(path), what="is no database of Trackio")
    key = _key(store, "metrics")
    query = f"SELECT {key}, run_name FROM metrics GROUP BY {key} ORDER BY MIN(timestamp) LIMIT ?"
    found = [
        (run_id, run_name if isinstance(run_name, str) else "")
        for run_id, run_name in store.rows(query, (MAX_RUNS,))
        if isinstance(run_id, str)
    ]
    ids = [run_id for run_id, _ in found]
    return list(zip(ids, labels_of(found), strict=True))


def _table(store: Store, run: str) -> Table:
    step = "step" if "step" in store.columns("metrics") else "NULL"
    key = _key(store, "metrics")
    query = f"SELECT timestamp, {step}, metrics FROM metrics WHERE {key} = ? ORDER BY rowid"
    rows: list[tuple[str, object, object]] = []
    remarks = []
    try:
        for time, at, text in store.rows(query, (run,)):
            rows.append((time if isinstance(time, str) else "", at, text))
    except Damaged as error:
        if not rows:
            raise
        remarks.append(f"the database is damaged, what follows in it is left out: {error}")
    # Not by SQLite, which would hold what a corrupt file claims to hold before it gives a row
    rows.sort(key=lambda row: row[0])  # stable
    builder, bad = TableBuilder(), 0
    for _, at, text in rows:
        record = _record(text)
        if record is None:
            bad += 1
            continue
        own = [("step", float(at))] if isinstance(at, int) else []
        builder.add([*own, *measurements(record)])
    if bad:
        remarks.append(f"{bad} rows left out whose metrics are no JSON object")
    return builder.table(*remarks)


def _record(text: object) -> dict[str, object] | None:
    """The metrics of a row, without tables and media; None if it is no JSON object."""
    if not isinstance(text, str | bytes) or len(text) > MAX_JSON:
        return None
    try:
        record = json.loads(text)
    except BROKEN:
        return None
    if not isinstance(record, dict):
        return None
    return {
        key: value
        for key, value in record.items()
        if not (isinstance(value, dict) and "_type" in value)
    }


def _alerts(store: Store, run: str) -> list[str]:
    """What Trackio was told to warn of, as a note."""
    if not store.columns("alerts") >= {"run_name", "title", "level", "step", "timestamp"}:
        return []
    query = (
        f"SELECT level, title, step FROM alerts WHERE {_key(store, 'alerts')} = ? "
        "ORDER BY timestamp LIMIT 1000"
    )
    try:
        found = [(str(level), str(title), at) for level, title, at in store.rows(query, (run,))]
    except Damaged:
        return ["the alerts of this run cannot be read"]
    if not found:
        return []
    shown = [
        f"{level} {title[:MAX_TITLE]!r}" + (f" at step {at}" if isinstance(at, int) else "")
        for level, title, at in found[:SHOWN_ALERTS]
    ]
    more = f" and {len(found) - SHOWN_ALERTS} more" if len(found) > SHOWN_ALERTS else ""
    return [f"alerts that the program itself gave Trackio: {', '.join(shown)}{more}"]
