"""Which rows of a table stay when it holds more than fits in memory.

One of each pair of neighbours of one kind stays: the first, but if only the second holds a NaN or
an infinity, the second. Two rows are of one kind when they fill the same columns, so a row of
validation never pairs with one of training; rows of rare kinds all stay.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RARE = 0.125  # of the rows: kinds that together are no more than that are left alone
TOO_MANY = 0.75  # of the rows that may stay of each halving; more, and kinds do not count

# (rows, values) of a column; rows None where it has a value in every row
Filled = tuple[np.ndarray | None, np.ndarray]


def halved(columns: Sequence[Filled], height: int) -> np.ndarray:
    """(height,) bool, True for the rows that stay: about half of them."""
    nonfinite = np.zeros(height, dtype=bool)
    kinds = np.zeros(height, dtype=np.uint32)
    marks = np.random.default_rng(0).integers(1, 2**32, len(columns), dtype=np.uint32)
    for (rows, values), mark in zip(columns, marks, strict=True):
        bad = ~np.isfinite(values)
        nonfinite[bad if rows is None else rows[bad]] = True
        if rows is not None:
            kinds[rows] ^= mark
    kept = _one_of_each_pair(kinds, nonfinite)
    if kept.sum() > TOO_MANY * height:
        kept = _one_of_each_pair(np.zeros_like(kinds), nonfinite)
    return kept


def _one_of_each_pair(kinds: np.ndarray, nonfinite: np.ndarray) -> np.ndarray:
    kept = np.zeros(kinds.size, dtype=bool)
    if (kinds == kinds[:1]).all():
        kept[0::2] = True
        better = 2 * np.flatnonzero(nonfinite[1::2] & ~nonfinite[: kinds.size // 2 * 2 : 2])
        kept[better], kept[better + 1] = False, True
        return kept
    order = np.argsort(kinds, kind="stable")
    groups = np.split(order, np.flatnonzero(np.diff(kinds[order])) + 1)
    may_stay = RARE * kinds.size
    for group in sorted(groups, key=len):
        if group.size <= may_stay:
            may_stay -= group.size
            kept[group] = True
            continue
        first, second = group[0::2], group[1::2]
        better = nonfinite[second] & ~nonfinite[first[: second.size]]
        kept[np.where(better, second, first[: second.size])] = True
        kept[first[second.size :]] = True
    return kept
