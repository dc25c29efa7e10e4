"""What stands in an offline `.wandb` file, decoded by W&B's own protobuf classes: the oracle."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from nndiag.readers.wandb.wandb_datastore import Datastore

Row = dict[str, Any]


class WandbFile:
    """One run: rows of its history, what is left of its summary, its alerts."""

    def __init__(self, path: Path) -> None:
        self.rows: list[Row] = []
        self.summary: Row = {}
        self.alerts: list[tuple[str, str, str]] = []
        self.metrics: list[tuple[str, str, bool]] = []  # name or glob, step metric, hidden
        self.config: Row = {}
        self.name = self.project = self.host = ""
        self.exit_code: int | None = None
        for record in _records(path):
            self._take(record)

    def _take(self, record: Any) -> None:
        kind = record.WhichOneof("record_type")
        if kind == "history":
            items = sorted(record.history.item, key=_key)  # W&B writes them in any order
            self.rows.append({_key(i): json.loads(i.value_json) for i in items})
        elif kind == "summary":
            self.summary.update({_key(i): json.loads(i.value_json) for i in record.summary.update})
        elif kind == "alert":
            self.alerts.append((record.alert.title, record.alert.text, record.alert.level))
        elif kind == "metric":
            metric = record.metric
            name = metric.name or metric.glob_name
            self.metrics.append((name, metric.step_metric, metric.options.hidden))
        elif kind == "run":
            self.name, self.project = record.run.display_name, record.run.project
            self.host = record.run.host
            self.config |= {i.key: json.loads(i.value_json) for i in record.run.config.update}
        elif kind == "exit":
            self.exit_code = record.exit.exit_code

    @property
    def ours(self) -> list[Row]:
        """Of each row what is ours, where there is something."""
        split = ({k: v for k, v in row.items() if k.startswith("nndiag/")} for row in self.rows)
        return [row for row in split if row]

    @property
    def theirs(self) -> list[Row]:
        """Every row without what is ours and without the time of day."""
        own = ("_timestamp", "_runtime", "_wandb")
        return [
            {k: v for k, v in row.items() if not k.startswith("nndiag/") and k not in own}
            for row in self.rows
        ]


def files_in(folder: Path) -> list[Path]:
    """The `.wandb` files under `folder/wandb`, in the order of their runs' ids."""
    return sorted(folder.glob("wandb/offline-run-*/run-*.wandb"), key=lambda p: p.name)


def when_complete(path: Path, seconds: float = 30.0) -> WandbFile:
    """W&B's service may still write when the process that trained has ended."""
    deadline = time.monotonic() + seconds
    while (found := WandbFile(path)).exit_code is None:
        assert time.monotonic() < deadline, f"{path} has no exit record"
        time.sleep(0.05)
    return found


def _key(item: Any) -> str:
    return item.key or "/".join(item.nested_key)


def _records(path: Path) -> list[Any]:
    from wandb.proto import wandb_internal_pb2

    return [
        wandb_internal_pb2.Record.FromString(data)
        for batch in Datastore(path).batches()
        for data in batch
    ]
