"""Measurements -> journal: one rank directory, made when the process turns out to train.

The adapter's `Sink`. Files are opened when first needed and written record by record; nothing is
held back, so a SIGKILL loses at most the step in flight.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Mapping

from nndiag.adapters.base import NAN, NO_GRADIENT, Column, StepRow, Structure
from nndiag.journal.format import COLUMNS, PROCESS_SCHEMA
from nndiag.journal.writer import EventWriter, StreamWriter, write_json

NORMS = ("param_grad_norm", "param_norm", "param_update_norm")
MAX_ATTEMPTS = 10_000  # directories tried for one rank: restarts, spawned processes


class Recorder:
    """Writes what one process shows to `<run>/rank-K/`."""

    def __init__(self, run_dir: str, framework: str, version: str) -> None:
        self._run_dir = run_dir
        self._framework = framework
        self._version = version
        self._start_s = time.perf_counter()
        self._directory = ""
        self._events: EventWriter | None = None
        self._steps: dict[int, StreamWriter] = {}
        self._widths: dict[int, int] = {}
        self._layers: dict[int, tuple[StreamWriter, dict[Column, int]]] = {}
        self._files = 0
        self._pending: list[Mapping[str, object]] = []  # events before the first step
        self.newest_step = 0

    @property
    def recording(self) -> bool:
        """Whether this process has made an optimizer step."""
        return self._events is not None

    # -- the adapter's sink

    def step(self, optimizer: int, owner: str, step: int, row: StepRow) -> None:
        self._begin()
        values = _in_order(row)
        stream = self._steps.get(optimizer)
        if stream is None:
            rates = range(1, max(len(row.lrs), 1))
            columns = [(name, "") for name in COLUMNS] + [("lr", f"group-{i}") for i in rates]
            path = os.path.join(self._directory, f"steps-{optimizer}.arrows")
            stream = StreamWriter(path, owner=owner, columns=columns, dtype="f8")
            self._steps[optimizer] = stream
            self._widths[optimizer] = len(columns)
        width = self._widths[optimizer]
        values = (values + [NAN] * width)[:width]  # groups that were added later are left out
        stream.append(step, self._now(), values)
        self.newest_step = step

    def layers(self, optimizer: int, owner: str, step: int, values: Mapping[Column, float]) -> None:
        self._begin()
        stream, places = self._layers.get(optimizer, (None, {}))
        if stream is None or any(column not in places for column in values):
            if stream is not None:
                stream.close()
            columns = [*places, *(c for c in values if c not in places)]
            path = os.path.join(self._directory, f"layers-{self._files}.arrows")
            self._files += 1
            stream = StreamWriter(path, owner=owner, columns=columns, dtype="f4")
            places = {column: i for i, column in enumerate(columns)}
            self._layers[optimizer] = (stream, places)
        row = [NO_GRADIENT if metric in NORMS else NAN for metric, _ in places]
        for column, value in values.items():
            row[places[column]] = value
        stream.append(step, self._now(), row)

    def structure(self, structure: Structure) -> None:
        self._begin()
        write_json(
            os.path.join(self._directory, "process.json"),
            {
                "schema": PROCESS_SCHEMA,
                "pid": os.getpid(),
                "rank": _number("RANK"),
                "world_size": _number("WORLD_SIZE"),
                self._framework: self._version,
                "python": platform.python_version(),
                "device": structure.device,
                "optimizers": structure.optimizers,
                "models": structure.models,
                "relus": structure.relus,
            },
        )

    def nonfinite(self, **origin: object) -> None:
        self.event("nonfinite", **origin)

    def note(self, text: str) -> None:
        self.event("note", text=text)

    # -- events

    def metric(self, name: str, value: float, source: str) -> None:
        """A number that the script itself reported."""
        step = self.newest_step
        self.event("metric", step=step, owner="", name=name, value=value, source=source)

    def event(self, event: str, **fields: object) -> None:
        """Write an event; before the first step they wait, since most processes never train."""
        record = {"event": event, **fields}
        if self._events is not None:
            self._events.append(record)
        elif len(self._pending) < 100:
            self._pending.append(record)

    def end(self, reason: str) -> None:
        """Observation ends before the process does. Said also where there is no step to show."""
        if not self.recording:
            path = os.path.join(self._run_dir, f"failed-{os.getpid()}")
            with open(path, "x", encoding="utf-8") as file:
                file.write(reason)
        self.event("observation-ended", step=self.newest_step, reason=reason)

    def close(self) -> None:
        for stream in (*self._steps.values(), *(s for s, _ in self._layers.values())):
            stream.close()
        if self._events is not None:
            self._events.close()

    # -- where it goes

    def _now(self) -> float:
        return time.perf_counter() - self._start_s

    def _begin(self) -> None:
        if self._events is not None:
            return
        if not self._directory:
            self._directory = self._own_directory()
        self._events = EventWriter(os.path.join(self._directory, "events.jsonl"))
        for event in self._pending:
            self._events.append(event)
        self._pending.clear()

    def _own_directory(self) -> str:
        """A new directory for this rank: rank-3, or where that was taken by an earlier attempt of
        the same rank rank-3.1; without RANK in the environment the next free number."""
        rank = _number("RANK")
        for attempt in range(MAX_ATTEMPTS):
            if rank is None:
                name = f"rank-{attempt}"
            else:
                name = f"rank-{rank}.{attempt}" if attempt else f"rank-{rank}"
            path = os.path.join(self._run_dir, name)
            try:
                os.mkdir(path, 0o700)
            except FileExistsError:
                continue
            return path
        raise FileExistsError(f"{MAX_ATTEMPTS} directories for one rank")


def _in_order(row: StepRow) -> list[float]:
    """The row as the journal's columns have it, the learning rates of further groups last."""
    first, *further = list(row.lrs) or [NAN]
    return [float(first if name == "lr" else getattr(row, name)) for name in COLUMNS] + further


def _number(variable: str) -> int | None:
    text = os.environ.get(variable, "")
    return int(text) if text.isdigit() else None
