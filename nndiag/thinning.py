"""Fewer points that draw the same picture: extremes and values that are not finite are kept.

A mean over a range of steps would hide the one step that matters. So of each range the lowest and
the highest value stay, and the first one that is NaN or infinite.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from nndiag.records import Series

BUCKETS = 512  # of the steps of a loss; a screen draws 144
REACH = 3.0  # usual gaps that a column may reach beyond its steps; further on it is a hole
MEASURED, NAN, INFINITE, MINUS_INFINITE = range(4)  # what a cell says of values that are not finite


@dataclass(frozen=True, slots=True)
class Grid:
    """Several series over the same ranges of steps, one row for each: L rows, C columns.

    A column holds about as many measured steps as the next, so that none is empty; its ends lie
    halfway to its neighbours, but not far from its own steps: a hole in the log stays a hole.
    """

    starts: np.ndarray  # (C,) float64, steps relative to `origin`
    ends: np.ndarray  # (C,) float64
    first: np.ndarray  # (C,) int64, first measured step of each column
    last: np.ndarray  # (C,) int64
    lowest: np.ndarray  # (L, C) float64, NaN where nothing finite was measured
    highest: np.ndarray  # (L, C) float64
    broken: np.ndarray  # (L, C) uint8: MEASURED, or the first value that is not finite


def thinned(series: Series, buckets: int = BUCKETS) -> Series:
    """A series of at most 3 * `buckets` + 2 points that draws the same picture."""
    count = len(series)
    if count <= 3 * buckets:
        return series
    position_T = offsets(series.steps, int(series.steps[0]))
    bucket_T = np.minimum(position_T * (buckets / position_T[-1]), buckets - 1).astype(np.int64)
    is_finite = np.isfinite(series.values)
    finite, broken = np.flatnonzero(is_finite), np.flatnonzero(~is_finite)
    by_value = finite[np.lexsort((series.values[finite], bucket_T[finite]))]
    lowest = by_value[_firsts(bucket_T[by_value])]
    highest = by_value[::-1][_firsts(bucket_T[by_value][::-1])]
    ends = np.array([0, count - 1])
    first_broken = broken[_firsts(bucket_T[broken])]
    return at(series, np.unique(np.concatenate([ends, lowest, highest, first_broken])))


def without_repeats(series: Series) -> Series:
    """The same line with fewer points: of a value that is repeated the first and last stay."""
    same = series.values[1:] == series.values[:-1]
    if not same.any():
        return series
    inner = np.concatenate([[False], same[:-1] & same[1:], [False]])
    return at(series, np.flatnonzero(~inner))


def at(series: Series, kept: np.ndarray) -> Series:
    """The points of a series at these places."""
    return replace(series, steps=series.steps[kept], values=series.values[kept])


def offsets(steps: np.ndarray, origin: int) -> np.ndarray:
    """(T,) steps as float64 relative to `origin`, which is no later than the first of them.

    Unsigned and wrapping on the way: the span of steps may exceed an int64.
    """
    start = np.array([origin], dtype=np.int64).view(np.uint64)
    relative_T: np.ndarray = (steps.view(np.uint64) - start).astype(np.float64)
    return relative_T


def grid(rows: Sequence[Series], columns: int, origin: int) -> Grid:
    """`rows` in at most `columns` ranges of steps."""
    steps_M = _all_steps(rows)
    gap_M = np.diff(offsets(steps_M, origin)) if steps_M.size > 1 else np.ones(1)
    reach = REACH * float(np.median(gap_M))
    edges = _edges(steps_M.size, gap_M, columns, reach)
    first_C = steps_M[edges[:-1]]
    last_C = steps_M[edges[1:] - 1]
    starts, ends = _extents(first_C, last_C, origin, reach)
    shape = (len(rows), first_C.size)
    lowest, highest = np.full(shape, np.nan), np.full(shape, np.nan)
    broken = np.zeros(shape, dtype=np.uint8)
    for index, series in enumerate(rows):
        column_T = np.searchsorted(first_C, series.steps, side="right") - 1
        _fill(column_T, series.values, lowest[index], highest[index], broken[index])
    return Grid(starts, ends, first_C, last_C, lowest, highest, broken)


def _all_steps(rows: Sequence[Series]) -> np.ndarray:
    """Every step at which a row was measured, sorted. Rows mostly share theirs: that is quick."""
    known = np.empty(0, dtype=np.int64)
    for series in rows:
        if not np.array_equal(series.steps, known):
            known = np.union1d(known, series.steps)
    return known


def _edges(count: int, gap_M: np.ndarray, columns: int, reach: float) -> np.ndarray:
    """Where columns begin among `count` measured steps, and where the last one ends.

    Evenly, and also at the widest holes, so that few columns lie across one.
    """
    holes = np.flatnonzero(gap_M > 2 * reach) + 1
    widest = holes[np.argsort(-gap_M[holes - 1], kind="stable")][: columns // 4]
    even = min(count, columns - widest.size)
    edges = (np.arange(even + 1) * count) // max(1, even)
    found: np.ndarray = np.union1d(edges, widest).astype(np.int64)
    return found


def _extents(
    first_C: np.ndarray, last_C: np.ndarray, origin: int, reach: float
) -> tuple[np.ndarray, np.ndarray]:
    """Where each column starts and ends on the axis, relative to `origin`."""
    if not first_C.size:
        return np.empty(0), np.empty(0)
    first, last = offsets(first_C, origin), offsets(last_C, origin)
    middle = (last[:-1] + first[1:]) / 2
    half = reach / REACH / 2
    starts = np.maximum(first - reach, np.concatenate([[first[0] - half], middle]))
    ends = np.minimum(last + reach, np.concatenate([middle, [last[-1] + half]]))
    return starts, ends


def _fill(
    column_T: np.ndarray,
    value_T: np.ndarray,
    lowest: np.ndarray,
    highest: np.ndarray,
    broken: np.ndarray,
) -> None:
    """One row of a grid from the values of a series; `column_T` is sorted."""
    if not value_T.size:
        return
    is_finite = np.isfinite(value_T)
    if not is_finite.all():
        bad, where = value_T[~is_finite], column_T[~is_finite]
        starts = _firsts(where)
        kinds = np.where(np.isnan(bad), NAN, np.where(bad > 0, INFINITE, MINUS_INFINITE))
        broken[where[starts]] = kinds[starts]
        value_T, column_T = value_T[is_finite], column_T[is_finite]
    starts = _firsts(column_T)
    if starts.size:
        lowest[column_T[starts]] = np.minimum.reduceat(value_T, starts)
        highest[column_T[starts]] = np.maximum.reduceat(value_T, starts)


def _firsts(sorted_T: np.ndarray) -> np.ndarray:
    """Where each value of a sorted array comes first."""
    return np.flatnonzero(np.diff(sorted_T, prepend=sorted_T[:1] - 1))
