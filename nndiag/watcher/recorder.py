"""Measurements -> journal: one rank directory, made when the process turns out to train.

The adapter's `Sink`. Files are opened when first needed and written record by record; nothing is
held back, so a SIGKILL loses at most the step in flight. Only a disk that hangs is left alone for a
while: see `patience`.
"""

from __future__ import annotations

import contextlib
import functools
import os
import platform
from collections.abc import Callable, Mapping
from os import unlink  # bound here: a script may patch what it likes
from time import perf_counter as _clock
from typing import Any

from nndiag.adapters.base import NAN, NO_GRADIENT, Capture, Column, StepRow, Structure
from nndiag.journal.format import COLUMNS, PROCESS_SCHEMA
from nndiag.journal.private import scrubbed
from nndiag.journal.writer import (
    EventWriter,
    StreamWriter,
    make_new_directory,
    write_json,
    write_text,
)
from nndiag.watcher import capture_files
from nndiag.watcher.patience import SLOW_S, Patience

NORMS = ("param_grad_norm", "param_norm", "param_update_norm")
MAX_ATTEMPTS = 10_000  # directories tried for one rank: restarts, spawned processes
MAX_WAITING = 100  # events kept in memory: before the first step, and while the disk hangs
REASONS = ("note", "observation-ended")  # events that say what is missing
RESERVE = "reserve"  # a file that is given up for room, when the disk is full and that must be said
RESERVE_BYTES = 4096


def _patiently(method: Callable[..., None]) -> Callable[..., None]:
    """Leave it out while the disk is left alone."""

    @functools.wraps(method)
    def patient(self: Recorder, *arguments: Any) -> None:
        patience = self.patience
        if patience.until_s and patience.refuses():
            return
        began = _clock()
        try:
            if self._waiting or patience.dropped:
                self._say_what_waited()
            method(self, *arguments)
        except Exception:
            patience.took(_clock() - began)
            raise
        if (seconds := _clock() - began) >= SLOW_S:
            self._say_it_hung(seconds)

    return patient


class Recorder:
    """Writes what one process shows to `<run>/rank-K/`."""

    def __init__(
        self,
        run_dir: str,
        framework: str,
        version: str,
        rank_and_world: Callable[[], tuple[int, int] | None] = lambda: None,
    ) -> None:
        """`rank_and_world`: what the framework says of this process; else the launcher is asked."""
        self._run_dir = run_dir
        self._framework = framework
        self._version = version
        self._rank_and_world = rank_and_world
        self._rank: int | None = None
        self._world: int | None = None
        self._start_s = _clock()
        self._directory = ""
        self._events: EventWriter | None = None
        self._steps: dict[int, StreamWriter] = {}
        self._widths: dict[int, int] = {}
        self._layers: dict[int, tuple[StreamWriter, dict[Column, int]]] = {}
        self._files = 0
        self._waiting: list[Mapping[str, object]] = []  # events that are not written yet
        self.patience = Patience()
        self.newest_step = 0

    @property
    def directory(self) -> str:
        """The folder of this rank; empty before there is something to record."""
        return self._directory

    @property
    def recording(self) -> bool:
        """Whether this process has made an optimizer step."""
        return self._events is not None

    # -- the adapter's sink

    @_patiently
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

    @_patiently
    def layers(self, optimizer: int, owner: str, step: int, values: Mapping[Column, float]) -> None:
        self._begin()
        stream, places = self._layers.get(optimizer, (None, {}))
        if stream is None or not values.keys() <= places.keys():
            if stream is not None:
                stream.close()
            columns = [*places, *(c for c in values if c not in places)]
            path = os.path.join(self._directory, f"layers-{self._files}.arrows")
            self._files += 1
            stream = StreamWriter(path, owner=owner, columns=columns, dtype="f4")
            places = {column: i for i, column in enumerate(columns)}
            self._layers[optimizer] = (stream, places)
        if len(values) == len(places):  # thousands of columns: nothing of Python's for each
            row = list(map(values.__getitem__, places))
        else:
            row = [NO_GRADIENT if metric in NORMS else NAN for metric, _ in places]
            for column, value in values.items():
                row[places[column]] = value
        stream.append(step, self._now(), row)

    @_patiently
    def structure(self, structure: Structure) -> None:
        self._begin()
        write_json(
            os.path.join(self._directory, "process.json"),
            {
                "schema": PROCESS_SCHEMA,
                "pid": os.getpid(),
                "rank": self._rank,
                "world_size": self._world,
                "restart": _number("TORCHELASTIC_RESTART_COUNT"),
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

    def fact(self, **fields: object) -> None:
        self.event("fact", **fields)

    def note(self, text: str) -> None:
        self.event("note", text=scrubbed(text))

    @_patiently
    def capture(self, capture: Capture, replaces: str = "") -> None:
        self._begin()
        capture_files.write(self._directory, capture, replaces)

    # -- events

    def metric(self, name: str, value: float, source: str) -> None:
        """A number that the script itself reported."""
        step = self.newest_step
        self.event("metric", step=step, owner="", name=name, value=value, source=source)

    def event(self, event: str, **fields: object) -> None:
        """Write an event; before the first step they wait, since most processes never train."""
        if len(self._waiting) < MAX_WAITING or event == "observation-ended":
            self._waiting.append({"event": event, **fields})
        if self._events is not None and not self.patience.resting():
            self._write_events()

    def end(self, reason: str) -> None:
        """Observation ends before the process does. Said also where there is no step to show."""
        reason = scrubbed(reason)
        if not self.recording:
            write_text(os.path.join(self._run_dir, f"failed-{os.getpid()}"), reason)
        try:
            if any(event["event"] == "observation-ended" for event in self._waiting):
                self._write_events()  # it was told before, and could not be written
            else:
                self.event("observation-ended", step=self.newest_step, reason=reason)
        except OSError:
            self._give_up_reserve()
            self._write_events()

    def close(self) -> None:
        """Close the files. A reason that still waits for the disk gets its one try."""
        if self._events is not None:
            until = _clock() + SLOW_S
            for event in self._waiting:
                if event["event"] in REASONS and _clock() < until:
                    self._events.append(event)
            self._waiting.clear()
            self._events.close()
            self._give_up_reserve()
        for stream in (*self._steps.values(), *(s for s, _ in self._layers.values())):
            stream.close()

    # -- a disk that hangs

    @_patiently
    def _write_events(self) -> None:
        """Nothing but what each write does first: the events that wait."""

    def _say_what_waited(self) -> None:
        """Write the events that wait, now that there is a file and the disk is used."""
        if self._events is None:
            return
        if dropped := self.patience.dropped:
            self.patience.dropped = 0
            text = f"{dropped} records were left out while the disk was left alone"
            self._waiting.insert(0, {"event": "note", "text": text})
        while self._waiting:
            event = self._waiting.pop(0)
            try:
                self._events.append(event)
            except OSError:
                if event["event"] in REASONS:  # these wait for better times, others are lost
                    self._waiting.insert(0, event)
                raise

    def _say_it_hung(self, seconds: float) -> None:
        """At once: the disk answers again, and nobody knows for how long."""
        self.patience.took(seconds)
        if self._events is not None:
            text = (
                f"the disk took {seconds:.1f} s for one write; nothing was written in the "
                f"{self.patience.rest_s():.0f} s after it, so that the training need not wait"
            )
            self._events.append({"event": "note", "text": text})

    def _keep_reserve(self) -> None:
        with contextlib.suppress(OSError):
            write_text(os.path.join(self._directory, RESERVE), " " * RESERVE_BYTES)

    def _give_up_reserve(self) -> None:
        with contextlib.suppress(OSError):
            unlink(os.path.join(self._directory, RESERVE))

    # -- where it goes

    def _now(self) -> float:
        return _clock() - self._start_s

    def _begin(self) -> None:
        if self._events is not None:
            return
        if not self._directory:
            self._directory = self._own_directory()
        self._events = EventWriter(os.path.join(self._directory, "events.jsonl"))
        self._keep_reserve()
        self._say_what_waited()

    def _own_directory(self) -> str:
        """A new directory for this rank: rank-3, or where that was taken by an earlier attempt of
        the same rank rank-3.1; without RANK in the environment the next free number."""
        told = self._rank_and_world()
        self._rank, self._world = told or (_number("RANK"), _number("WORLD_SIZE"))
        rank = self._rank
        for attempt in range(MAX_ATTEMPTS):
            if rank is None:
                name = f"rank-{attempt}"
            else:
                name = f"rank-{rank}.{attempt}" if attempt else f"rank-{rank}"
            path = os.path.join(self._run_dir, name)
            try:
                make_new_directory(path)
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
