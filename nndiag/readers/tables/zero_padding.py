"""Zeros that stand for "not computed in this row": training and validation in turn, each 0 between.

A loss of exactly 0 is rare, a held-out one of 0 in every other row is nothing that was measured.
Taken for a gap where a training and a held-out series share their rows, and each is 0 wherever the
other is not; or where a held-out loss is 0 but at regular intervals.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nndiag.readers.tables.table import Column, Table
from nndiag.vocabulary import describe

FEWEST = 3  # numbers, and zeros between them, that make a habit
_FAMILIES = frozenset(["loss", "error"])
_HELD_OUT = frozenset(["val", "test"])


def without_zeros(table: Table) -> tuple[Table, list[str]]:
    """The table with gaps instead of such zeros, and what to say of it."""
    losses = [c for name, c in table.columns.items() if describe(name).family in _FAMILIES]
    held_out = [c for c in losses if describe(c.name).split in _HELD_OUT and _alternates(c)]
    training = [c for c in losses if describe(c.name).split not in _HELD_OUT and _alternates(c)]
    gaps: dict[bool, list[np.ndarray]] = {True: [], False: []}  # rows, by whether held out
    for one in held_out:
        others = [other for other in training if _take_turns(one, other)]
        if others or _is_regular(one):
            gaps[True].append(_zeros(one))
        gaps[False] += [_zeros(other) for other in others]
    columns = dict(table.columns)
    for is_held_out, rows in gaps.items():
        if rows:
            unmeasured = np.unique(np.concatenate(rows))
            columns.update(_cleaned(columns.values(), unmeasured, is_held_out))
    changed = [name for name, column in columns.items() if len(column) < len(table.columns[name])]
    if not changed:
        return table, []
    shown = ", ".join(map(repr, changed[:4])) + (" and others" if len(changed) > 4 else "")
    note = f"0 taken for 'not computed in this row' where it takes turns with numbers: {shown}"
    return Table(table.height, columns, table.unreadable, table.remarks), [note]


def _zeros(column: Column) -> np.ndarray:
    rows: np.ndarray = column.rows[column.values == 0]
    return rows


def _alternates(column: Column) -> bool:
    """Numbers come again after zeros, several times."""
    is_zero = column.values == 0
    return int((np.diff(is_zero.astype(np.int8)) < 0).sum()) >= FEWEST


def _take_turns(one: Column, other: Column) -> bool:
    """In the rows that they share, exactly one of them is 0; they share nearly all."""
    shared, mine, its = np.intersect1d(
        one.rows, other.rows, assume_unique=True, return_indices=True
    )
    if shared.size < 0.9 * max(len(one), len(other)):
        return False
    return bool(((one.values[mine] == 0) ^ (other.values[its] == 0)).all())


def _is_regular(column: Column) -> bool:
    """More zeros than numbers, and the numbers at equal distances."""
    at = np.flatnonzero(column.values)
    gaps = np.unique(np.diff(at))
    return at.size > FEWEST and gaps.size == 1 and int(gaps[0]) > 1


def _cleaned(
    columns: Iterable[Column], unmeasured: np.ndarray, is_held_out: bool
) -> dict[str, Column]:
    """The series of that split that are 0 in every row where its loss was not measured."""
    cleaned = {}
    for column in columns:
        if (describe(column.name).split in _HELD_OUT) != is_held_out:
            continue
        if describe(column.name).family not in (*_FAMILIES, "accuracy"):
            continue
        empty = np.isin(column.rows, unmeasured)
        if empty.any() and not column.values[empty].any():
            cleaned[column.name] = Column(column.name, column.rows[~empty], column.values[~empty])
    return cleaned
