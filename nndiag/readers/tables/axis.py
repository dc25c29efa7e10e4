"""When each row of a log happened, in optimizer steps, and which rows a restart made void."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nndiag.readers.tables.table import Column, Table
from nndiag.vocabulary import StepAxis, step_axis

MIN_COVERAGE = 0.8  # of the loss's rows that a column of steps must stand in
UNORDERED = 0.2  # of the loss's rows: above it, going back is disorder and no restart
SHORT_ATTEMPT = 0.1  # of the longest attempt: a shorter last one is a failed start
MOST_STRANDS, MIN_STRAND = 8, 20  # in a log of several processes; values of each on average
MOST_UNORDERED = 2_000_000  # values whose order is looked into
LARGEST_STEP = 2.0**53  # above it, steps are not distinct in a float64


@dataclass(frozen=True, slots=True)
class Axis:
    """The step of every row."""

    steps: np.ndarray  # (height,) int64
    kept: np.ndarray  # (height,) bool; False: of an attempt that a restart made void
    used: tuple[str, ...]  # columns that it was made of
    notes: tuple[str, ...]


def axis_of(table: Table, loss_rows: np.ndarray) -> Axis:
    """The steps of a log whose loss stands in `loss_rows`, (n,) int64 increasing, n > 0."""
    names = step_axis(table.columns)
    steps, used, notes = _steps(table, loss_rows, names)
    kept, restarts = _after_restarts(steps, loss_rows)
    return Axis(steps, kept, used, (*notes, *restarts))


def _steps(
    table: Table, loss_rows: np.ndarray, names: StepAxis
) -> tuple[np.ndarray, tuple[str, ...], tuple[str, ...]]:
    epochs = table.columns[names.epoch].filled(table.height) if names.epoch else None
    for name in filter(None, (names.step, *names.others)):
        column = table.columns[name]
        if _covers(column, loss_rows, table.height) and _counts(column, loss_rows, table.height):
            steps = column.filled(table.height)
            if epochs is not None:
                steps = _mend_epochs_in_steps(steps, column.rows, loss_rows, epochs)
                if StepAxis(name, names.epoch).may_restart_each_epoch:
                    whole = _over_epochs(steps, epochs, loss_rows)
                    if whole is not None:
                        note = f"steps: {name!r} counted on over {names.epoch!r}"
                        return whole, (name, names.epoch), (note,)
            return steps.astype(np.int64), (name,), ()
    if epochs is not None and _is_axis(epochs, loss_rows):
        note = f"one point per epoch: steps are {names.epoch!r}"
        return epochs.astype(np.int64), (names.epoch,), (note,)
    is_loss = np.zeros(table.height, dtype=bool)
    is_loss[loss_rows] = True
    counted = np.maximum(np.cumsum(is_loss) - 1, 0)
    return counted, (), ("no column counts steps: the values of the loss are counted from 0",)


def _covers(column: Column, loss_rows: np.ndarray, height: int) -> bool:
    return bool(np.mean(is_among(loss_rows, column.rows, height)) >= MIN_COVERAGE)


def _counts(column: Column, loss_rows: np.ndarray, height: int) -> bool:
    """Whole numbers, and not the same one in every row of the loss."""
    values = column.values
    if not np.isfinite(values).all() or max(values.max(), -values.min()) > LARGEST_STEP:
        return False
    own = values
    if loss_rows.size < height:
        own = values[is_among(column.rows, loss_rows, height)]
    return bool((own == np.round(own)).all() and (own.size < 2 or (own != own[0]).any()))


def is_among(rows: np.ndarray, others: np.ndarray, height: int) -> np.ndarray:
    """(n,) bool: which of `rows` are `others` too; linear, since all are below `height`."""
    if others.size == height:
        return np.ones(rows.size, dtype=bool)
    mask = np.zeros(height, dtype=bool)
    mask[others] = True
    among: np.ndarray = mask if rows.size == height else mask[rows]
    return among


def _is_axis(epochs: np.ndarray, loss_rows: np.ndarray) -> bool:
    """One row of the loss for each epoch, about; not fractions, not a constant.

    In a log of several runs each of them counts from its own beginning.
    """
    if not np.isfinite(epochs).all() or np.abs(epochs).max() > LARGEST_STEP:
        return False
    own = epochs[loss_rows]
    is_whole = bool((own == np.round(own)).all())
    if not is_whole or own.size == 1:
        return is_whole
    is_new, is_back = own[1:] > own[:-1], own[1:] < own[:-1]
    starts_again = bool(is_new.mean() > 0.5 and is_back.mean() <= UNORDERED)
    return starts_again or np.unique(own).size > 0.5 * own.size


def _mend_epochs_in_steps(
    steps: np.ndarray, own_rows: np.ndarray, loss_rows: np.ndarray, epochs: np.ndarray
) -> np.ndarray:
    """Rows of metrics alone whose step is the epoch (mmengine) get the step of the loss before."""
    of_loss = np.full(steps.size, -1, dtype=np.int64)
    of_loss[loss_rows] = loss_rows
    np.maximum.accumulate(of_loss, out=of_loss)
    before = np.where(of_loss >= 0, steps[np.maximum(of_loss, 0)], -np.inf)
    wrong = np.zeros(steps.size, dtype=bool)
    wrong[own_rows] = True
    wrong[loss_rows] = False
    wrong &= (steps < before) & (steps == epochs)
    return np.where(wrong, before, steps)


def _over_epochs(steps: np.ndarray, epochs: np.ndarray, loss_rows: np.ndarray) -> np.ndarray | None:
    """Global steps where `steps` starts again with each epoch; None where it does not."""
    own, epoch = steps[loss_rows], epochs[loss_rows]
    if own.size < 2 or not np.isfinite(epochs).all() or (epoch != np.round(epoch)).any():
        return None
    new_epoch = np.diff(epoch) > 0
    starts_again = new_epoch & (np.diff(own) <= 0)
    if not starts_again.any() or starts_again.sum() < 0.5 * new_epoch.sum():
        return None
    forward = np.diff(own)[np.diff(own) > 0]
    # iterations counted from 0 leave room after the last one, or two epochs would share a step
    gap = float(np.median(forward)) if own.min() == 0 and forward.size else 0.0
    length = max(own.max() + gap, 1.0)
    first = 0.0 if epoch.min() <= 0 else 1.0
    if np.abs(epochs).max() + 1.0 > LARGEST_STEP / length:
        return None
    whole: np.ndarray = np.round((epochs - first) * length + steps).astype(np.int64)
    return whole


def _after_restarts(steps: np.ndarray, loss_rows: np.ndarray) -> tuple[np.ndarray, list[str]]:
    """(rows of the attempt that counts, what to say). A resumed run overwrites what it repeats."""
    kept = np.ones(steps.size, dtype=bool)
    own = steps if loss_rows.size == steps.size else steps[loss_rows]
    back = np.flatnonzero(own[1:] < own[:-1]) + 1
    if not back.size:
        return kept, []
    if back.size > max(2, UNORDERED * own.size):
        mine = _of_one_writer(own)
        if mine is None:
            return kept, ["the steps of the log are out of order: sorted"]
        kept, notes = _after_restarts(steps, loss_rows[mine])
        kept[loss_rows[~mine]] = False
        note = (
            "several processes wrote into this log at the same time: one of them is judged; "
            f"{np.count_nonzero(~mine)} values of the loss left out"
        )
        return kept, [note, *notes]
    bounds = [0, *(_start_row(steps, loss_rows, int(i)) for i in back), steps.size]
    attempts: list[list[tuple[int, int]]] = []  # each a list of [first row, row after the last]
    first_step = 0
    for start, end, at in zip(bounds, bounds[1:], [0, *back.tolist()], strict=False):
        if not attempts or own[at] <= first_step:
            attempts.append([])
            first_step = int(own[at])
        attempts[-1].append((start, end))
    sizes = [sum(_inside(loss_rows, start, end) for start, end in a) for a in attempts]
    chosen = len(attempts) - 1
    if sizes[chosen] < SHORT_ATTEMPT * max(sizes):
        chosen = sizes.index(max(sizes))
    kept[:] = False
    for start, end in attempts[chosen]:
        first = steps[loss_rows[np.searchsorted(loss_rows, start)]]
        kept[:start] &= steps[:start] < first
        kept[start:end] = True
    return kept, _restart_notes(attempts, chosen, int(own.size - kept[loss_rows].sum()))


def _of_one_writer(steps: np.ndarray) -> np.ndarray | None:
    """(n,) bool: the values of one process where a few of them wrote by turns; None if not so.

    The steps of each go up: each value goes on where the last one below it was. Steps in any order
    at all would need some 2 sqrt(n) such strands (Ulam's problem).
    """
    if not MIN_STRAND * MOST_STRANDS <= steps.size <= MOST_UNORDERED:
        return None
    last: list[int] = []
    strands: list[list[int]] = []
    for i, step in enumerate(steps.tolist()):
        below = [(end, k) for k, end in enumerate(last) if end < step]
        if not below:
            if len(strands) == MOST_STRANDS:
                return None
            strands.append([i])
            last.append(step)
            continue
        _, k = max(below)
        strands[k].append(i)
        last[k] = step
    chain = max(strands, key=len)
    for strand in strands:  # in the order of their beginnings: those after a restart
        if strand[0] > chain[-1]:
            chain = chain + strand
    mine = np.zeros(steps.size, dtype=bool)
    mine[chain] = True
    return mine


def _start_row(steps: np.ndarray, loss_rows: np.ndarray, i: int) -> int:
    """The first row of the attempt whose first loss is the i-th: an evaluation may come before."""
    row, before = int(loss_rows[i]), int(loss_rows[i - 1])
    first = steps[row]
    while row - 1 > before and steps[row - 1] <= first:
        row -= 1
    return row


def _inside(rows: np.ndarray, start: int, end: int) -> int:
    return int(np.searchsorted(rows, end) - np.searchsorted(rows, start))


def _restart_notes(attempts: list[list[tuple[int, int]]], chosen: int, left_out: int) -> list[str]:
    notes = []
    if len(attempts) > 1:
        which = "the last" if chosen == len(attempts) - 1 else "the longest"
        notes.append(
            f"{len(attempts)} runs one after the other, from their first step on: "
            f"{which} one is judged; {left_out} values of the loss left out"
        )
    resumes = len(attempts[chosen]) - 1
    if resumes:
        times = "once" if resumes == 1 else f"{resumes} times"
        text = f"resumed {times} at an earlier step: the later values count"
        notes.append(text if len(attempts) > 1 else f"{text}; {left_out} left out")
    return notes
