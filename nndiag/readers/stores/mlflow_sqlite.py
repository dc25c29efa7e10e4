"""MLflow's database (`mlflow.db`, its default since 3.x): experiments, runs, and a row a value.

NaN is stored as 0 with `is_nan` = 1, and the infinities as the largest and smallest float64: all
three are restored. The same value of a metric at the same step in the same millisecond is stored
once. Rows stand in the order of writing.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nndiag.errors import UnreadableLog
from nndiag.readers.stores.mlflow_files import about_run
from nndiag.readers.stores.separate_metrics import Points, table_of
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
from nndiag.readers.tables.table import Table
from nndiag.records import Run

name = "mlflow-db"

MAX_RUNS = 100_000
_METRICS = frozenset(["key", "value", "timestamp", "run_uuid"])


def recognises(path: Path, head: bytes) -> str | None:
    """Why this looks like MLflow's database; None if it does not."""
    if not is_store(head):
        return None
    try:
        is_mlflow = read_store(path, _is_mlflow)
    except UnreadableLog:
        return None
    return "an SQLite database with MLflow's tables runs and metrics" if is_mlflow else None


def runs_in(path: Path) -> Sequence[str]:
    """The runs that are not deleted, the earliest first: by name, or by id where a name is shared.

    Raises:
        UnreadableLog: it is no database of MLflow, or there is no run in it.
    """
    runs = [run for run in read_store(path, lambda store: _runs(store, path)) if not run.is_deleted]
    if not runs:
        raise UnreadableLog(where=str(path), what="no run in this MLflow database")
    return [run.label for run in runs]


def read(path: Path, loss: str | None = None) -> Run:
    """The only run with metrics in a database.

    Raises:
        UnreadableLog: there is none, there are several, or it cannot be read.
    """

    def with_metrics(store: Store) -> list[str]:
        runs = _runs(store, path)
        found = {row[0] for row in store.rows("SELECT DISTINCT run_uuid FROM metrics")}
        return [run.label for run in runs if not run.is_deleted and run.id in found]

    return read_run(path, only_one(path, read_store(path, with_metrics), "MLflow"), loss)


def read_run(path: Path, run: str, loss: str | None = None) -> Run:
    """The run called `run`, by its id, or by its name where no other has that.

    Raises:
        UnreadableLog: there is no such run, it has no metrics, or no loss or none called `loss`.
    """
    where = f"{path}#{run}"

    def work(store: Store) -> tuple[Table, tuple[str, ...], list[str]]:
        runs = _runs(store, path)
        found = [one for one in runs if run in (one.id, one.label)]
        if not found:
            do = f"known: {listed([one.label for one in runs])}"
            raise UnreadableLog(where=where, what="no run is called that", do=do)
        has_flag = "is_nan" in store.columns("metrics")
        blind = () if has_flag else ("loss non-finite",)
        return _table(store, found[0], has_flag), blind, found[0].notes

    table, blind, notes = read_store(path, work)
    if not table.columns:
        raise UnreadableLog(where=where, what="no metric was logged in this MLflow run")
    if blind:
        notes.append("this old MLflow database has no flag for NaN: one may stand there as 0")
    return run_of(table, path=where, format=name, loss=loss, notes=notes, blind=blind)


@dataclass(frozen=True, slots=True)
class _Run:
    id: str
    name: str
    status: str
    experiment: str
    is_deleted: bool
    label: str = ""

    @property
    def notes(self) -> list[str]:
        notes = about_run({"run_name": self.name, "run_id": self.id, "status": self.status})
        if self.experiment not in ("", "Default"):
            notes[0] = f"{notes[0]} (experiment {self.experiment!r})"
        return [*notes, "the run was deleted in MLflow"] if self.is_deleted else notes


def _is_mlflow(store: Store) -> bool:
    return store.columns("metrics") >= _METRICS and "run_uuid" in store.columns("runs")


def _runs(store: Store, path: Path) -> list[_Run]:
    """All runs, the earliest first."""
    if not _is_mlflow(store):
        raise UnreadableLog(where=str(path), what="is no database of MLflow")
    columns = store.columns("runs")
    wanted = ", ".join(
        column if column in columns else "''"
        for column in ("run_uuid", "name", "status", "lifecycle_stage", "experiment_id")
    )
    order = "start_time, rowid" if "start_time" in columns else "rowid"
    experiments = _experiments(store)
    found: list[_Run] = []
    for row in store.rows(f"SELECT {wanted} FROM runs ORDER BY {order} LIMIT ?", (MAX_RUNS,)):
        run_id, run_name, status, stage = (c if isinstance(c, str) else "" for c in row[:4])
        if run_id:
            experiment = experiments.get(row[4], "")
            found.append(_Run(run_id, run_name, status, experiment, stage == "deleted"))
    labels = labels_of([(run.id, run.name) for run in found])
    return [replace(run, label=label) for run, label in zip(found, labels, strict=True)]


def _experiments(store: Store) -> dict[object, str]:
    """Names of experiments by their ids."""
    if not store.columns("experiments") >= {"experiment_id", "name"}:
        return {}
    rows = store.rows("SELECT experiment_id, name FROM experiments LIMIT ?", (MAX_RUNS,))
    return {key: str(experiment) for key, experiment in rows}


def _table(store: Store, run: _Run, has_flag: bool) -> Table:
    columns = store.columns("metrics")
    step = "step" if "step" in columns else "0"
    flag = "is_nan" if has_flag else "0"
    metrics: dict[str, Points] = {}
    bad = 0
    remarks = []
    wanted = f"key, value, timestamp, {step}, {flag}"
    query = f"SELECT {wanted} FROM metrics WHERE run_uuid = ? ORDER BY rowid"
    try:
        for key, value, time, at, is_nan in store.rows(query, (run.id,)):
            if not (
                isinstance(key, str) and isinstance(value, int | float) and isinstance(at, int)
            ):
                bad += 1
                continue
            own = metrics.get(key)
            if own is None:
                own = metrics[key] = Points()
            own.add(_time(time), at, _restored(float(value), is_nan))
    except Damaged as error:
        if not metrics:
            raise
        remarks.append(f"the database is damaged, what follows in it is left out: {error}")
    if bad:
        remarks.append(f"{bad} rows left out that do not hold a number and a step")
    return table_of(metrics, *remarks)


def _time(cell: object) -> float:
    return float(cell) if isinstance(cell, int | float) and math.isfinite(cell) else 0.0


def _restored(value: float, is_nan: object) -> float:
    """The value that was logged: MLflow stores none that are not finite."""
    if isinstance(is_nan, int) and is_nan:
        return math.nan
    if abs(value) >= sys.float_info.max:
        return math.copysign(math.inf, value)
    return value
