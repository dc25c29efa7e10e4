"""From the scalars of several event files to one table: the order of writing, rows, columns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nndiag.readers.tables.table import MAX_COLUMNS, Column, Table
from nndiag.readers.tensorboard.event_scalars import Scalars
from nndiag.vocabulary import describe

STEP = "step"  # the column made of the events' own steps
FEWEST_EPOCHS = 3  # values of a series that may be counted in epochs
STEPS_PER_EPOCH = 2  # fewest steps of the loss from one such value to the next


@dataclass(frozen=True, slots=True)
class Written:
    """The scalars of one file; `names` as they are called in the run."""

    folder: Path
    names: Sequence[str]
    scalars: Scalars


def table_of(files: Sequence[Written]) -> tuple[Table, list[str]]:
    """(a table whose rows are in the order of writing, what to say of it).

    Values that were written one after the other at one step share a row.
    """
    notes = _side_by_side(files)
    names, tags = _tags(files)
    steps = np.concatenate([file.scalars.steps for file in files])
    values = np.concatenate([file.scalars.values for file in files])
    order = _order_of_writing(files)
    if order is not None:
        tags, steps, values = tags[order], steps[order], values[order]
    places = _places(tags, names)
    notes += _mend_epochs(steps, places)
    counters = [one for one in places if describe(one).family == "step"]
    if counters and steps.min() < steps.max():
        other = [one for one in counters if (values[places[one]] != steps[places[one]]).any()]
        if other:
            notes.append(f"left out: {', '.join(other[:4])}: events have steps of their own")
        places = {one: at for one, at in places.items() if one not in counters}
    if len(places) > MAX_COLUMNS:
        notes.append(f"{len(places) - MAX_COLUMNS} series left out: more than {MAX_COLUMNS}")
        places = dict(list(places.items())[:MAX_COLUMNS])
    rows, height = _rows(steps, list(places.values()))
    of_row = np.zeros(height)
    of_row[rows] = steps
    columns = {STEP: Column(STEP, np.arange(height), of_row)}
    for one, at in places.items():
        columns[one] = Column(one, rows[at], values[at])
    return Table(height, columns), notes


def _tags(files: Sequence[Written]) -> tuple[list[str], np.ndarray]:
    """(names, (n,) int32 which of them each value bears), file after file."""
    ids: dict[str, int] = {}
    owners: dict[str, Path] = {}
    parts = []
    for file in files:
        of_file = []
        for name in file.names:
            if owners.setdefault(name, file.folder) != file.folder:  # "a/b" and "b" of a folder "a"
                name = f"{name} ({file.folder.name})"
            of_file.append(ids.setdefault(name, len(ids)))
        parts.append(np.array(of_file, np.int32)[file.scalars.tags])
    return list(ids), np.concatenate(parts)


def _order_of_writing(files: Sequence[Written]) -> np.ndarray | None:
    """By the clock, each file's own order kept; None where it is that of the files already."""
    if len(files) == 1:
        return None
    times = []
    for file in files:
        own = np.where(np.isfinite(file.scalars.times), file.scalars.times, -np.inf)
        times.append(np.maximum.accumulate(own))
    clock = np.concatenate(times)
    if (clock[1:] >= clock[:-1]).all():
        return None
    return np.argsort(clock, kind="stable")


def _places(tags: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """{name: (k,) int64 places of its values, increasing}, in the order of their first values."""
    small = tags.astype(np.int16) if len(names) < 2**15 else tags  # numpy sorts these by radix
    order = np.argsort(small, kind="stable")
    bounds = np.searchsorted(tags[order], np.arange(len(names) + 1))
    found = [order[bounds[i] : bounds[i + 1]] for i in range(len(names))]
    some = [i for i in range(len(names)) if found[i].size]
    some.sort(key=lambda i: int(found[i][0]))
    return {names[i]: found[i] for i in some}


def _rows(steps: np.ndarray, places: Sequence[np.ndarray]) -> tuple[np.ndarray, int]:
    """((n,) int64 the row of each value, how many rows there are).

    A row ends where the step changes, or where a name comes a second time.
    """
    run = np.concatenate([[0], np.cumsum(steps[1:] != steps[:-1])])
    occurrence = np.zeros(steps.size, np.int64)
    for at in places:
        own = run[at]
        if (own[1:] == own[:-1]).any():
            starts = np.flatnonzero(np.diff(own, prepend=-1))
            sizes = np.diff(starts, append=own.size)
            occurrence[at] = np.arange(own.size) - np.repeat(starts, sizes)
    if not occurrence.any():
        return run, int(run[-1]) + 1
    heights = np.zeros(int(run[-1]) + 1, np.int64)
    np.maximum.at(heights, run, occurrence + 1)
    first = np.concatenate([[0], np.cumsum(heights)])
    return first[run] + occurrence, int(first[-1])


def _mend_epochs(steps: np.ndarray, places: dict[str, np.ndarray]) -> list[str]:
    """Series counted in epochs beside a loss counted in steps get its newest step; says which.

    Such a series counts on by 1 while the loss goes on by many steps between its values. `steps`
    is changed in place.
    """
    losses = [n for n in places if describe(n).family == "loss" and _trains(n)]
    if not losses:
        return []
    finest = max(losses, key=lambda one: places[one].size)
    loss_at = places[finest]
    loss_steps = steps[loss_at].copy()
    mended = []
    for name, at in places.items():
        own = steps[at]
        before = np.searchsorted(loss_at, at) - 1
        if name == finest or own.size < FEWEST_EPOCHS or (np.diff(own) == 1).mean() < 0.9:
            continue
        newest = np.where(before >= 0, loss_steps[np.maximum(before, 0)], own)
        first, last = own[[0, -1]].astype(np.float64)  # int64 would overflow
        went_on = float(newest[-1]) - float(newest[0]) >= STEPS_PER_EPOCH * (last - first)
        if went_on and (newest >= own).all():
            steps[at] = newest
            mended.append(repr(name))
    if not mended:
        return []
    shown = ", ".join(mended[:4]) + (f" and {len(mended) - 4} more" if len(mended) > 4 else "")
    return [f"counted in epochs, put at the newest step of {finest!r}: {shown}"]


def _trains(name: str) -> bool:
    return describe(name).split in ("", "train")


def _side_by_side(files: Sequence[Written]) -> list[str]:
    """What to say where several processes wrote the same series at the same time."""
    ends: dict[tuple[Path, str], float] = {}
    overlaps = set()
    for file in files:
        times = file.scalars.times[np.isfinite(file.scalars.times)]
        first, last = (times.min(), times.max()) if times.size else (np.inf, -np.inf)
        for name in file.names:
            key = file.folder, name
            if first < ends.get(key, -np.inf):
                overlaps.add(name)
            ends[key] = max(last, ends.get(key, -np.inf))
    if not overlaps:
        return []
    shown = ", ".join(repr(name) for name in sorted(overlaps)[:3])
    return [f"several files hold {shown} at the same time: their values are taken together"]
