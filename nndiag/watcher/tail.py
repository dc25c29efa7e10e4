"""The newest measurements of a run that is being written: what the live view draws.

Each call reads only what was appended since the last one, and keeps a few hundred numbers however
long the run is. Standard library only: the supervisor starts fast and stays small.
"""

from __future__ import annotations

import json
import math
import os
import struct
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nndiag.journal.format import EVENTS_FILE, PROCESS_FILE, STREAM_SCHEMA, RecordEncoder

READ_BYTES = 1 << 20  # at most, from each file, at each look
HEADER_BYTES = 8 << 20  # names of a hundred thousand columns
SPEED_WINDOW_S = 10.0

Columns = tuple[tuple[str, str], ...]


class StreamTail:
    """One growing `.arrows` file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.owner = ""
        self.columns: Columns = ()
        self._place = 0  # of the next row
        self._row: struct.Struct | None = None
        self._body = 0  # where a row's numbers start
        self._size = 0  # of a row

    def new_rows(self) -> Iterator[tuple[int, float, tuple[float, ...]]]:
        """(step, seconds, values) of the rows since the last call; the newest, if many."""
        with self.path.open("rb") as file:
            if self._row is None and not self._read_header(file.read(HEADER_BYTES)):
                return
            whole = (os.fstat(file.fileno()).st_size - self._place) // self._size
            most = max(1, READ_BYTES // self._size)
            if whole > most:
                self._place += (whole - most) * self._size
                whole = most
            file.seek(self._place)
            content = file.read(whole * self._size)
        for start in range(0, len(content) - self._size + 1, self._size):
            yield self._decoded(content, start)
        self._place += len(content) // self._size * self._size

    def newest_row(self) -> tuple[float, ...] | None:
        """The values of the last whole row; None where it is the same as at the last call."""
        newest = None
        with self.path.open("rb") as file:
            if self._row is None and not self._read_header(file.read(HEADER_BYTES)):
                return None
            rows = (os.fstat(file.fileno()).st_size - self._place) // self._size
            if rows > 0:
                file.seek(self._place + (rows - 1) * self._size)
                newest = self._decoded(file.read(self._size), 0)[2]
                self._place += rows * self._size
        return newest

    def _decoded(self, content: bytes, start: int) -> tuple[int, float, tuple[float, ...]]:
        assert self._row is not None
        step, seconds, *values = self._row.unpack_from(content, start + self._body)
        return step, seconds, tuple(values)

    def _read_header(self, content: bytes) -> bool:
        """Whether the header, and so the size of a row, is known."""
        begin = content.find(f'{{"schema": "{STREAM_SCHEMA}"'.encode())
        end = content.find(b"\0", max(begin, 0))
        if begin < 0 or end < 0:
            return False
        told = json.loads(content[begin:end])
        columns = tuple((str(metric), str(where)) for metric, where in told["columns"])
        start = 8 + int.from_bytes(content[4:8], "little")
        for dtype, code in (("f8", "d"), ("f4", "f")):
            encoder = RecordEncoder(len(columns), dtype)  # type: ignore[arg-type]
            if content.startswith(encoder.prefix, start):
                self.owner, self.columns, self._place = told["owner"], columns, start
                self._row = struct.Struct(f"<qd{len(columns)}{code}")
                self._body, self._size = len(encoder.prefix), encoder.size
                return True
        return False


class Trace:
    """The course of one number over a whole run in at most `2 * bins` means. Constant memory."""

    def __init__(self, bins: int = 80) -> None:
        self._most = 2 * bins
        self._per_bin = 1
        self._bins: list[tuple[float, int]] = []  # sum and count of the finite values
        self.last = math.nan
        self.count = 0

    def add(self, value: float) -> None:
        if self.count % self._per_bin == 0:
            if len(self._bins) == self._most:
                pairs = zip(self._bins[::2], self._bins[1::2], strict=True)
                self._bins = [(a + c, b + d) for (a, b), (c, d) in pairs]
                self._per_bin *= 2
            self._bins.append((0.0, 0))
        self.count += 1
        self.last = value
        if math.isfinite(value):
            total, count = self._bins[-1]
            self._bins[-1] = (total + value, count + 1)

    def means(self, most: int) -> list[float]:
        """At most `most` means, oldest first; NaN where nothing finite was seen."""
        bins = self._bins
        group = -(-len(bins) // most) if most > 0 else 1
        merged = [bins[start : start + group] for start in range(0, len(bins), max(group, 1))]
        return [_mean(sum(s for s, _ in part), sum(n for _, n in part)) for part in merged]


def _mean(total: float, count: int) -> float:
    return total / count if count else math.nan


class Progress:
    """What one optimizer did so far."""

    def __init__(self, owner: str) -> None:
        self.owner = owner
        self.step = -1
        self.loss, self.lr, self.grad_norm = Trace(), Trace(), Trace()
        self.clip = math.nan  # newest threshold
        self.clipped = self.clippable = 0  # steps
        self.recent: deque[tuple[float, int]] = deque(maxlen=4096)  # seconds, step

    def add(self, step: int, seconds: float, row: dict[str, float]) -> None:
        self.step = step
        self.recent.append((seconds, step))
        while len(self.recent) > 2 and seconds - self.recent[0][0] > SPEED_WINDOW_S:
            self.recent.popleft()
        if row.get("backward_calls", 1) > 0 and "loss" in row:
            self.loss.add(row["loss"])
        if "lr" in row:
            self.lr.add(row["lr"])
        norm, clip = row.get("grad_norm", math.nan), row.get("clip_threshold", math.nan)
        if not math.isnan(norm) and norm != -1:
            self.grad_norm.add(norm)
        if clip > 0:
            self.clip = clip
            self.clippable += 1
            self.clipped += norm > clip

    @property
    def steps_per_s(self) -> float:
        if len(self.recent) < 2:
            return math.nan
        (began, first), (now, last) = self.recent[0], self.recent[-1]
        return (last - first) / (now - began) if now > began else math.nan


class RunTail:
    """The newest of a whole run: the optimizers and layers of its lowest rank."""

    def __init__(self, run: Path) -> None:
        self.process: dict[str, Any] = {}
        self.optimizers: dict[str, Progress] = {}
        self.layers: dict[tuple[str, str], float] = {}  # (metric, where) -> newest value
        self.layers_read = 0  # rows
        self.metrics: dict[str, float] = {}  # as the script reported them, newest value
        self.own_s = self.elapsed_s = 0.0  # seconds since the start, and our share of them
        self._run = run
        self._steps: dict[Path, StreamTail] = {}
        self._layers: dict[Path, StreamTail] = {}
        self._process_read = 0  # modification time, ns
        self._events_read = 0  # bytes

    @property
    def overhead_percent(self) -> float:
        return 100 * self.own_s / self.elapsed_s if self.elapsed_s > 0 else math.nan

    def refresh(self) -> None:
        """Look at what is new. Raises `OSError` or `ValueError` where the run cannot be read."""
        ranks = sorted(self._run.glob("rank-*"), key=lambda path: (len(path.name), path.name))
        if not ranks:
            return
        self._read_process(ranks[0] / PROCESS_FILE)
        self._read_events(ranks[0] / EVENTS_FILE)
        for path in sorted(ranks[0].glob("steps-*.arrows")):
            self._read_steps(self._steps.setdefault(path, StreamTail(path)))
        for path in sorted(ranks[0].glob("layers-*.arrows"))[-4:]:
            tail = self._layers.setdefault(path, StreamTail(path))
            row = tail.newest_row()
            if row is not None:
                self.layers.update(zip(tail.columns, row, strict=True))
                self.layers_read += 1

    def _read_steps(self, tail: StreamTail) -> None:
        for step, seconds, values in tail.new_rows():
            row = {
                metric: value
                for (metric, where), value in zip(tail.columns, values, strict=True)
                if not where
            }
            progress = self.optimizers.setdefault(tail.owner, Progress(tail.owner))
            progress.add(step, seconds, row)
            self.elapsed_s = seconds
            own_s = row.get("nndiag_time_s", math.nan)
            self.own_s += own_s if own_s > 0 else 0.0

    def _read_process(self, path: Path) -> None:
        try:
            changed = path.stat().st_mtime_ns
            if changed != self._process_read:
                self.process = json.loads(path.read_bytes())
                self._process_read = changed
        except FileNotFoundError:
            pass

    def _read_events(self, path: Path) -> None:
        """Metrics among the new lines; an unfinished line is left for the next time."""
        try:
            size = path.stat().st_size
        except FileNotFoundError:
            return
        if size == self._events_read:
            return
        with path.open("rb") as file:
            file.seek(max(self._events_read, size - READ_BYTES))
            content = file.read(READ_BYTES)
            end = content.rfind(b"\n") + 1
            self._events_read = file.tell() - len(content) + end
        for line in content[:end].splitlines():
            if b'"metric"' in line:
                self._take_metric(line)

    def _take_metric(self, line: bytes) -> None:
        try:
            event = json.loads(line)
            if event["event"] == "metric":
                self.metrics[str(event["name"])] = float(event["value"])
        except (ValueError, TypeError, KeyError):  # not whole, or not ours: it is only shown
            pass
