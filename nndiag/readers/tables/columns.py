"""From a table of numbers to a `Run`: which column is what, and when."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np

from nndiag.readers.tables.axis import Axis, axis_of
from nndiag.readers.tables.held_out import mean_of_batches, scale_note
from nndiag.readers.tables.loss_choice import Chosen, choose, unreadable
from nndiag.readers.tables.table import Column, Table
from nndiag.readers.tables.zero_padding import without_zeros
from nndiag.records import Run, Series
from nndiag.vocabulary import canonical, describe

MAX_OTHERS = 200  # series without a meaning to us that are kept
MOSTLY_NAN = 0.5  # of a column's values ...
RESUMING = 3  # ... and so often a number again after them: NaN stands for "not logged here"
SHOWN = 6  # names in a note
MAX_NOTE = 1000  # characters: a name in it may be anything
SINGLE = (
    "accuracy", "val_accuracy", "grad_norm", "clip_threshold", "loss_scale", "step_time_s",
    "update_ratio", "update_gradient_cosine", "epoch",
)  # fmt: skip


def run_of(
    table: Table,
    *,
    path: str,
    format: str,
    loss: str | None,
    notes: Iterable[str] = (),
    blind: tuple[str, ...] = (),
    nan_may_be_blank: bool = False,
    held_out: str = "",
) -> Run:
    """The run that a table shows. `loss` names the series to take for the loss.

    `nan_may_be_blank`: a format whose writers put NaN where nothing was logged in a row.
    `held_out`: the validation loss where no name is that of one.

    Raises:
        UnreadableLog: no series is called `loss`, or none looks like a loss.
    """
    table, padded = _without_padding(table) if nan_may_be_blank else (table, [])
    table, zeros = without_zeros(table)
    table = _without_empty(table)
    choice = choose(table, loss, path, held_out)
    chosen_losses = [_summed(table, chosen) for chosen in choice.losses]
    loss_rows = _rows_of_any(chosen_losses, table.height)
    if not loss_rows.size:
        what = f"{choice.losses[0].name!r} has no value: its terms stand in no row together"
        raise unreadable(table, path, what, loss or "loss")
    axis = axis_of(table, loss_rows)
    series = [
        _series(axis, column, "loss", chosen.owner)
        for column, chosen in zip(chosen_losses, choice.losses, strict=True)
    ]
    of_held_out: list[str] = []
    used = {part for chosen in choice.losses for part in chosen.parts}
    if choice.validation:
        used.update(choice.validation.parts)
        column = _summed(table, choice.validation)
        steps, values, of_held_out = mean_of_batches(*_placed(axis, column))
        series.append(_at_steps(steps, values, "val_loss", name=column.name))
        of_held_out += scale_note(series[0], series[-1])
    rest = [column for name, column in table.columns.items() if name not in used | set(axis.used)]
    owners = tuple(chosen.owner for chosen in choice.losses if chosen.owner)
    series += _with_meaning(axis, rest, owners)
    series = [one for one in series if len(one)]
    said = [*choice.why]
    if choice.validation:
        said += [f"validation loss: {choice.validation.name!r}", *of_held_out]
    said += [*axis.notes, *padded, *zeros, *_repeated(axis, chosen_losses[0]), *table.remarks]
    if table.unreadable:
        said.append(f"left out, no numbers: {_list(table.unreadable)}")
    told = tuple(note[:MAX_NOTE] for note in (*said, *notes))
    return Run(path, format, tuple(series), notes=told, blind=blind)


def _without_empty(table: Table) -> Table:
    """Without the columns of which a reader has taken away every value."""
    columns = {name: column for name, column in table.columns.items() if len(column)}
    return Table(table.height, columns, table.unreadable, table.remarks)


def _summed(table: Table, chosen: Chosen) -> Column:
    """The column chosen, or the sum of several where all have a value."""
    first, *others = (table.columns[part] for part in chosen.parts)
    rows, values = first.rows, first.values
    for other in others:
        if np.array_equal(rows, other.rows):  # as a rule; and far faster where they are many
            with np.errstate(invalid="ignore", over="ignore"):
                values = values + other.values
            continue
        rows, mine, its = np.intersect1d(rows, other.rows, assume_unique=True, return_indices=True)
        with np.errstate(invalid="ignore", over="ignore"):  # inf - inf: NaN, as it should be
            values = values[mine] + other.values[its]
    return Column(chosen.name, rows, values)


def _series(axis: Axis, column: Column, metric: str, owner: str = "", where: str = "") -> Series:
    """A column at its steps."""
    return _at_steps(*_placed(axis, column), metric, owner, where, column.name)


def _at_steps(
    steps: np.ndarray, values: np.ndarray, metric: str, owner: str = "", where: str = "",
    name: str = "",
) -> Series:  # fmt: skip
    """Of values at one step the last counts."""
    if not (steps[1:] > steps[:-1]).all():
        order = np.argsort(steps, kind="stable")
        steps, values = steps[order], values[order]
        is_last = np.append(steps[1:] > steps[:-1], True)
        steps, values = steps[is_last], values[is_last]
    return Series(metric, steps, values, where, owner, name)


def _placed(axis: Axis, column: Column) -> tuple[np.ndarray, np.ndarray]:
    """(steps, values) of a column in the order of its rows, without those that a restart voided."""
    is_full = len(column) == axis.steps.size
    if axis.kept.all():
        return axis.steps if is_full else axis.steps[column.rows], column.values
    kept = axis.kept if is_full else axis.kept[column.rows]
    return axis.steps[column.rows[kept]], column.values[kept]


def _rows_of_any(columns: Sequence[Column], height: int) -> np.ndarray:
    """(n,) int64, rows where at least one of the columns has a value."""
    first = columns[0].rows
    if all(column.rows is first or len(column) == 0 for column in columns):
        return first
    mask = np.zeros(height, dtype=bool)
    for column in columns:
        mask[column.rows] = True
    return np.flatnonzero(mask)


def _repeated(axis: Axis, loss: Column) -> list[str]:
    steps, _ = _placed(axis, loss)
    is_once = bool((steps[1:] > steps[:-1]).all())
    twice = 0 if is_once else steps.size - np.unique(steps).size
    if not twice:
        return []
    return [f"{twice} steps have several values of the loss: the last one counts"]


def _with_meaning(axis: Axis, rest: Sequence[Column], owners: tuple[str, ...]) -> list[Series]:
    """All other columns: each metric once, learning rates in groups, what is left as "other"."""
    best: dict[str, Column] = {}
    for metric in SINGLE:
        own = [column for column in rest if canonical(column.name) == metric]
        if own:
            best[metric] = min(own, key=_plainest)
    series = [_series(axis, column, metric) for metric, column in best.items()]
    rates = [column for column in rest if canonical(column.name) == "lr"]
    groups: dict[str, int] = {}
    for column in rates:
        owner = _owner_of(column.name, owners)
        group = groups[owner] = groups.get(owner, -1) + 1
        series.append(_series(axis, column, "lr", owner, f"group-{group}" if group else ""))
    taken = {column.name for column in (*best.values(), *rates)}
    others = [column for column in rest if column.name not in taken]
    return series + [_series(axis, column, "other") for column in others[:MAX_OTHERS]]


def _plainest(column: Column) -> tuple[object, ...]:
    meaning = describe(column.name)
    return meaning.split == "test", -len(column), len(meaning.words)


def _owner_of(name: str, owners: tuple[str, ...]) -> str:
    """The network a learning rate belongs to: "G" of "lr_G", where there are losses of several."""
    words = set(re.findall("[a-z]+", name.lower()))
    return next((owner for owner in owners if owner.lower() in words), "")


def _without_padding(table: Table) -> tuple[Table, list[str]]:
    """NaN that only says "not logged in this row" is no evidence of a NaN: it goes."""
    columns, cleaned = {}, []
    for name, column in table.columns.items():
        bad = np.isnan(column.values)
        if bad.mean() >= MOSTLY_NAN and (bad[:-1] & ~bad[1:]).sum() >= RESUMING:
            column = Column(name, column.rows[~bad], column.values[~bad])
            cleaned.append(name)
        columns[name] = column
    note = f"NaN taken for 'not logged' where it alternates with numbers: {_list(cleaned)}"
    cleaned_table = Table(table.height, columns, table.unreadable, table.remarks)
    return cleaned_table, [note] if cleaned else []


def _list(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:SHOWN])
    return shown + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
