"""Curves of different length and logging interval, made comparable: levels of common blocks.

A stretch of steps that all curves cover is cut into equal blocks. The level of a curve in a block
is the median of its points there: one spike cannot move it, and on a falling curve it is the value
in the middle of the block whatever the logging interval. Where a block holds few points, the curve
between its neighbours is used. Each level has a standard error from the curve's own noise.

Shapes: T points of a series, B blocks. Steps are the log's own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from nndiag.curves.robust import Array, spread
from nndiag.records import Series

BLOCKS = 16  # of a whole run: a sixteenth is short against training, long against its noise. Ours
FULL = 8  # points in a block from which on they alone are its level. Our own choice
MEDIAN_ERROR = 1.2533  # standard error of a median against that of a mean, of normal noise


@dataclass(frozen=True, slots=True)
class Levels:
    """A curve as levels of blocks; NaN where a block is not covered or mostly not finite."""

    edges: Array  # (B + 1,) steps, the ends of the blocks
    values: Array  # (B,)
    errors: Array  # (B,) standard errors of the values; 0 where the noise is not known

    @property
    def covered(self) -> Array:
        """(B,) whether the curve has a level there."""
        return np.asarray(np.isfinite(self.values))


def overlap(curves: Iterable[Series]) -> tuple[int, int] | None:
    """First and last step that all curves cover; None where there is no such stretch."""
    filled = [curve for curve in curves if len(curve)]
    if not filled:
        return None
    first = max(int(curve.steps[0]) for curve in filled)
    last = min(int(curve.steps[-1]) for curve in filled)
    return (first, last) if first <= last else None


def interval(curve: Series) -> float:
    """Steps between two points of a curve, usually; 0 where there is only one point."""
    return float(np.median(np.diff(curve.steps))) if len(curve) > 1 else 0.0


def block_edges(first: float, last: float, blocks: int = BLOCKS) -> Array:
    """(B + 1,) the ends of equal blocks of a stretch of steps."""
    return np.linspace(first, last, blocks + 1)


def levels(curve: Series, edges: Array) -> Levels:
    """The levels of a curve in the blocks between `edges`.

    A block that the curve does not cover from end to end (to within one logging interval) has no
    level. Points that are not finite are left out; where they are most of a block it has no level.
    """
    values, errors = np.full(edges.size - 1, np.nan), np.zeros(edges.size - 1)
    finite = np.isfinite(curve.values)
    slack = max(1.0, interval(curve))
    for i, (a, b) in enumerate(pairwise(edges.tolist())):
        if not len(curve) or curve.steps[0] > a + slack or curve.steps[-1] < b - slack:
            continue
        low, high = np.searchsorted(curve.steps, a), np.searchsorted(curve.steps, b, side="right")
        here = slice(int(low), int(high))
        if 2 * finite[here].sum() < high - low or not finite.any():
            continue
        inside = curve.values[here][finite[here]]
        values[i] = np.median(inside) if inside.size >= FULL else _between(curve, finite, a, b)
        errors[i] = _error(curve.values[finite & _near(curve, a, b)], inside.size)
    return Levels(edges, values, errors)


def _between(curve: Series, finite: Array, a: float, b: float) -> float:
    """The median of the straight lines between the points of a block and their neighbours."""
    at, values = curve.steps[finite].astype(np.float64), curve.values[finite]
    return float(np.median(np.interp(np.linspace(a, b, 4 * FULL + 1), at, values)))


def _near(curve: Series, a: float, b: float) -> Array:
    """(T,) which points tell the noise of a block: its own, or where they are few the nearest."""
    inside = (curve.steps >= a) & (curve.steps <= b)
    if inside.sum() >= FULL:
        return inside
    distance = np.abs(curve.steps - 0.5 * (a + b))
    limit = np.sort(distance)[min(2 * FULL, distance.size) - 1]
    return np.asarray(distance <= limit)


def _error(near: Array, count: int) -> float:
    """Standard error of a median of `count` points; second differences, as a slope is no noise."""
    if near.size < 4:
        return 0.0
    noise = spread(np.diff(near, 2)) / math.sqrt(6.0)
    return MEDIAN_ERROR * noise / math.sqrt(max(1, count))
