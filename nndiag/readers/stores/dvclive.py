"""DVCLive's folder: `plots/metrics/**/<name>.tsv`, a table for each metric, and `metrics.json`.

A table has the columns `step` and the last part of the metric's name, and `timestamp` (in ms)
where the program asked for it. Values that are not finite are the words nan, inf and -inf. A
resumed run goes on in the same tables. `metrics.json` holds the newest value of each metric, also
of those that were logged without a table. Before DVCLive 1.0 the tables lay in
`scalars/`, first in the folder itself.
"""

from __future__ import annotations

import json
import os
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from nndiag.errors import UnreadableLog
from nndiag.readers.lines.text_lines import TextLines, head_of, text_of, whole_of
from nndiag.readers.stores.separate_metrics import MAX_ENTRIES, Collected, Points, metric_files
from nndiag.readers.tables.columns import run_of
from nndiag.readers.tables.rows import as_number
from nndiag.readers.tables.table import number
from nndiag.records import Run

name = "dvclive"

MAX_LINE = 4096  # characters
LOOKED_AT = 5  # tables that are asked whether they are DVCLive's
MAX_LOOKED_AT = 100  # files and folders that are passed by to find them
MAX_SUMMARY = 1 << 20  # bytes of metrics.json
LARGEST = 2.0**62  # step or time
PLACES = ("plots/metrics", "metrics", "scalars")  # of the tables, below the folder that is given
# what json.loads raises for text that is no JSON, is too deep, or has an integer of 5000 digits
BROKEN = (ValueError, RecursionError, OverflowError)


def recognises(path: Path, head: bytes) -> str | None:
    """Why this looks like a folder of DVCLive; None if it does not."""
    if head or not os.path.isdir(path):
        return None
    folder = _tables_in(path)
    if folder is None:
        return None
    return f"a folder with tables of DVCLive, header 'step', in {folder.name}/"


def read(path: Path, loss: str | None = None) -> Run:
    """The run in a folder of DVCLive; `loss` names the series to take for the loss.

    Raises:
        UnreadableLog: it is none, or holds no loss or none called `loss`.
    """
    folder = _tables_in(path)
    if folder is None:
        do = "name DVCLive's folder, the one with plots/metrics in it"
        raise UnreadableLog(where=str(path), what="no tables of DVCLive in it", do=do)
    collected = Collected()
    untimed = False
    for file, metric in _tables(folder, collected.remarks, MAX_ENTRIES):
        try:
            has_times = _add(collected, file, metric)
        except UnreadableLog as error:
            collected.remarks.append(f"{metric!r} left out: {error.what}")
        else:
            untimed |= not has_times
    if untimed:  # times order the metrics only where all of them have some
        for points in collected.metrics.values():
            points.times = array("d", bytes(8 * len(points)))
    newest = max((max(points.steps) for points in collected.metrics.values()), default=None)
    table = collected.table("step and number")
    notes = _seen_later(folder, newest)
    return run_of(table, path=str(path), format=name, loss=loss, notes=notes)


def _tables_in(path: Path) -> Path | None:
    """The folder of DVCLive's tables in a folder, or that folder itself; None if there is none."""
    below = [path / place for place in PLACES]
    itself = [path] if path.name in ("metrics", "scalars") else []
    found = next((folder for folder in (*below, *itself) if _holds_tables(folder)), None)
    # the oldest layout; not for folders below, which may be runs of their own
    is_old = found is None and path.name == "dvclive" and _holds_tables(path, below=False)
    return path if is_old else found


def _holds_tables(folder: Path, *, below: bool = True) -> bool:
    if not os.path.isdir(folder):
        return False
    asked = 0
    for file, metric in _tables(folder, [], MAX_LOOKED_AT):
        if "/" in metric and not below:
            break
        try:
            lines = text_of(head_of(file)[:MAX_LINE]).splitlines()
        except UnreadableLog:
            continue
        if lines and _layout(lines[0], metric) is not None:
            return True
        asked += 1
        if asked == LOOKED_AT:
            break
    return False


def _tables(folder: Path, remarks: list[str], limit: int) -> Iterator[tuple[Path, str]]:
    for file, metric in metric_files(folder, remarks, limit):
        if file.suffix == ".tsv":
            yield file, metric.removesuffix(".tsv")


@dataclass(frozen=True, slots=True)
class _Layout:
    """Which column is what."""

    step: int
    value: int
    time: int | None


def _layout(header: str, metric: str) -> _Layout | None:
    """The layout of a table that begins so; None if it is another program's."""
    cells = [cell.strip('"') for cell in header.split("\t")]
    *before, last = cells
    if last != metric.rpartition("/")[2]:
        return None
    if before == ["step"]:
        return _Layout(0, 1, None)
    if sorted(before) == ["step", "timestamp"]:
        return _Layout(before.index("step"), 2, before.index("timestamp"))
    return None


def _add(collected: Collected, file: Path, metric: str) -> bool:
    """The points in a table; says whether they have times."""
    lines = TextLines(file, MAX_LINE)
    layout: _Layout | None = None
    points = Points()
    line, was_good, bad = "", False, 0
    for line in lines:
        if layout is None:
            layout = _layout(line, metric)
            if layout is None:
                collected.remarks.append(f"{metric!r} left out: no table of DVCLive")
                return True
            continue
        was_good = _point(line.split("\t"), layout, points)
        bad += not was_good and bool(line.strip())
    if lines.ends_torn and line.strip() and layout is not None:
        # DVCLive ends each line: the value in this one may lack its last digits
        collected.torn += 1
        if was_good:
            points.drop_newest()
        else:
            bad -= 1
    if len(points):
        collected.metrics[metric] = points
        collected.bad += bad
    else:
        collected.unreadable.append(metric)
    return not len(points) or (layout is not None and layout.time is not None)


def _point(cells: list[str], layout: _Layout, points: Points) -> bool:
    if len(cells) <= layout.value:
        return False
    step, value = number(cells[layout.step]), number(cells[layout.value])
    time = 0.0 if layout.time is None else number(cells[layout.time])
    if step is None or value is None or time is None:
        return False
    if not (abs(step) < LARGEST and abs(time) < LARGEST) or step != int(step):
        return False
    points.add(time, int(step), value)
    return True


def _seen_later(folder: Path, newest: int | None) -> list[str]:
    """A note where metrics.json has seen later steps than the tables have."""
    here = folder.absolute()
    home = here.parent.parent if here.parent.name == "plots" else here.parent
    try:
        summary = json.loads(whole_of(home / "metrics.json", MAX_SUMMARY))
    except (UnreadableLog, *BROKEN):
        return []
    step = as_number(summary.get("step")) if isinstance(summary, dict) else None
    # counted on after the last value: a program that ends with next_step() is one ahead
    if newest is None or step is None or not newest + 1 < step < LARGEST:
        return []
    return [f"metrics.json has seen step {step:.0f}, the tables end at step {newest}"]
