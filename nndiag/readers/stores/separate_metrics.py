"""Logs that keep each metric apart (MLflow, DVCLive): their files, and their values put into rows.

What was logged together comes to stand in one row: equal steps, one shortly after the other, and no
metric twice. Rows stand in the order of writing, so that a restart shows as steps going back.
"""

from __future__ import annotations

import os
import stat
from array import array
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nndiag.readers.tables.table import MAX_COLUMNS, MAX_NAME, Column, Table

STEP = "step"  # the column that holds the steps
# Values of one step that lie further apart get rows of their own. A loop of single calls to a slow
# server takes seconds for a step; an evaluation in between takes minutes. Our own choice.
TOGETHER_MS = 10_000.0
MAX_DEPTH = 8  # folders below that of the metrics
MAX_ENTRIES = 100_000  # files and folders below it
SHOWN_REMARKS = 5


@dataclass(slots=True)
class Points:
    """One metric's values in the order in which they were written.

    Times are in milliseconds; 0 throughout where a format keeps none.
    """

    times: array[float] = field(default_factory=lambda: array("d"))
    steps: array[int] = field(default_factory=lambda: array("q"))
    values: array[float] = field(default_factory=lambda: array("d"))

    def __len__(self) -> int:
        return len(self.values)

    def add(self, time: float, step: int, value: float) -> None:
        self.times.append(time)
        self.steps.append(step)
        self.values.append(value)

    def drop_newest(self) -> None:
        for numbers in (self.times, self.steps, self.values):
            numbers.pop()


@dataclass(slots=True)
class Collected:
    """What was read of a folder of metrics, and what was left out of it."""

    metrics: dict[str, Points] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)  # files without a single point
    remarks: list[str] = field(default_factory=list)
    bad: int = 0  # lines
    torn: int = 0  # files

    def table(self, expected: str) -> Table:
        """All metrics; `expected` says what a line should have held."""
        said = self.remarks[:SHOWN_REMARKS]
        if len(self.remarks) > len(said):
            said.append(f"and {len(self.remarks) - len(said)} more files left out")
        if self.torn:
            files = "1 file" if self.torn == 1 else f"{self.torn} files"
            said.append(f"the last line of {files} is cut off: left out")
        if self.bad:
            said.append(f"{self.bad} lines left out that are no {expected}")
        return table_of(self.metrics, *said, unreadable=self.unreadable)


def metric_files(
    folder: Path, remarks: list[str], limit: int = MAX_ENTRIES
) -> Iterator[tuple[Path, str]]:
    """(file, "train/loss") of the regular files below a folder; links are not followed."""
    pending, entries = [(folder, "", 0)], 0
    while pending:
        here, prefix, depth = pending.pop(0)
        try:
            # Not Path.iterdir: scandir tells the kind without following links
            with os.scandir(here) as listing:
                found = sorted(listing, key=lambda entry: entry.name)
        except (OSError, ValueError) as error:  # ValueError: NUL in the name
            what = getattr(error, "strerror", None) or error
            remarks.append(f"{prefix or folder.name!r} cannot be listed: {what}")
            continue
        for entry in found:
            entries += 1
            if entries > limit:
                remarks.append(f"more than {limit} files: the others are left out")
                return
            name = f"{prefix}{entry.name}"
            kind = _kind(entry)
            if stat.S_ISDIR(kind):
                if depth + 1 < MAX_DEPTH:
                    pending.append((Path(entry.path), f"{name}/", depth + 1))
                else:
                    remarks.append(f"{name!r} left out: too deep")
            elif not stat.S_ISREG(kind):
                remarks.append(f"{name!r} left out: a link or no regular file")
            elif not entry.name.startswith("."):
                yield Path(entry.path), name


def _kind(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_mode
    except OSError:
        return 0


def table_of(metrics: dict[str, Points], *remarks: str, unreadable: Sequence[str] = ()) -> Table:
    """All metrics as one table, with a column `step`."""
    said = list(remarks)
    metrics, left_out = _limited(metrics)
    if left_out:
        said.append(f"{left_out} metrics left out: more than {MAX_COLUMNS}, or too long a name")
    if not metrics:
        return Table(0, {}, tuple(unreadable), tuple(said))
    which, steps, times, values = _as_written(list(metrics.values()))
    rows, starts = _rows(which, steps, times, len(metrics))
    columns = {}
    if STEP in metrics:  # a metric of that name: the steps themselves are surer
        said.append(f"a metric is called {STEP!r}: kept as '{STEP} (metric)'")
    height = int(starts.size)
    if height == 1 or (steps != steps[0]).any():  # else no program gave them
        columns[STEP] = Column(STEP, np.arange(height), steps[starts].astype(np.float64))
    for i, name in enumerate(metrics):
        own = which == i
        name = f"{STEP} (metric)" if name == STEP else name
        columns[name] = Column(name, rows[own], values[own])
    return Table(height, columns, tuple(unreadable), tuple(said))


def _limited(metrics: dict[str, Points]) -> tuple[dict[str, Points], int]:
    """The metrics that fit into a table, and how many do not."""
    filled = {name: points for name, points in metrics.items() if len(points)}
    fitting = [name for name in filled if len(name) <= MAX_NAME][:MAX_COLUMNS]
    return {name: filled[name] for name in fitting}, len(filled) - len(fitting)


def _as_written(
    metrics: Sequence[Points],
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """(metric, step, time, value) of all points, each (n,), in the order of writing.

    A metric's own points never change places. Those of several are ordered by time; at equal times,
    or where there is none, by attempt and step.
    """
    own_steps = [np.frombuffer(points.steps, np.int64) for points in metrics]
    attempts = [_attempts(steps) for steps in own_steps]
    last = max(int(attempt[-1]) for attempt in attempts)
    # a metric with fewer attempts than others was written in the last ones: the first one died
    # before its first evaluation
    attempt = np.concatenate([own + (last - own[-1]) for own in attempts])
    times = np.concatenate(
        [np.maximum.accumulate(np.frombuffer(points.times, np.float64)) for points in metrics]
    )
    steps = np.concatenate(own_steps)
    values = np.concatenate([np.frombuffer(points.values, np.float64) for points in metrics])
    sizes = [len(points) for points in metrics]
    which = np.repeat(np.arange(len(sizes)), sizes)
    place = np.concatenate([np.arange(size) for size in sizes])
    order = np.lexsort((which, place, steps, attempt, times))
    return which[order], steps[order], times[order], values[order]


def _attempts(steps: np.ndarray) -> np.ndarray:
    """(n,) How often the steps have gone back so far."""
    back = np.zeros(steps.size, dtype=np.int64)
    back[1:] = steps[1:] < steps[:-1]
    return np.cumsum(back)


def _rows(
    which: np.ndarray, steps: np.ndarray, times: np.ndarray, metrics: int
) -> tuple[np.ndarray, np.ndarray]:
    """(row of each point, (n,); first point of each row, (height,))."""
    newest: dict[int, tuple[int, float]] = {}  # step -> its newest row, and when that began
    last_row, last_step = [-1] * metrics, [0] * metrics
    rows, starts = np.empty(which.size, dtype=np.int64), array("q")
    points = zip(which.tolist(), steps.tolist(), times.tolist(), strict=True)
    for i, (metric, step, time) in enumerate(points):
        if last_row[metric] >= 0 and step < last_step[metric]:
            newest.clear()  # a restart: what it repeats is not what was there before
        row, began = newest.get(step, (-1, 0.0))
        if row <= last_row[metric] or time - began > TOGETHER_MS:
            row = len(starts)
            starts.append(i)
            newest[step] = row, time
        rows[i] = row
        last_row[metric], last_step[metric] = row, step
    return rows, np.frombuffer(starts, np.int64)
