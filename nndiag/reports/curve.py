"""A curve drawn with characters: braille where the terminal can, ASCII where it cannot.

Each column of dots shows the lowest and the highest value of its share of the steps, so that a
spike of one step in a million is still seen. Values that are not finite are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nndiag.records import Series
from nndiag.reports.wording import number

MARK_ROWS = 3  # marks that overlap take a row each; what finds no row is left out
LOG_FROM = 20.0  # highest / lowest value from which the axis is logarithmic; our own choice
_BRAILLE = 0x2800
_DOTS = ((0x01, 0x08), (0x02, 0x10), (0x04, 0x20), (0x40, 0x80))  # [row][column] of one character
_HALVES = " '.|"  # in ASCII: none, the upper, the lower, both halves of a character


@dataclass(frozen=True, slots=True)
class Mark:
    """A step range to show under the curve."""

    label: str  # one character
    start: int  # log's own steps
    end: int
    seen_in_curve: bool = True  # it is about this curve, so this part of it is set off too


@dataclass(frozen=True, slots=True)
class Curve:
    """A drawing, top row first. All rows are equally wide."""

    rows: tuple[str, ...]
    labels: tuple[str, ...]  # of the value axis, one for each row, right-aligned
    marks: tuple[str, ...]  # lines under the step axis: "   1--1  2"
    marked: tuple[bool, ...]  # for each column: inside a mark that is about this curve
    first_step: int
    last_step: int
    logarithmic: bool


def draw(
    series: Series,
    *,
    columns: int = 60,
    rows: int = 8,
    marks: Sequence[Mark] = (),
    ascii_only: bool = False,
) -> Curve | None:
    """The curve of a series; None where fewer than two values are finite."""
    # A loss beyond 1e300 is as good as infinite, and its range could not be computed.
    finite = np.abs(series.values) < 1e300
    if np.count_nonzero(finite) < 2:
        return None
    values = series.values[finite]
    lowest, highest = float(values.min()), float(values.max())
    logarithmic = lowest > 0 and highest >= LOG_FROM * lowest
    first, last = int(series.steps[0]), int(series.steps[-1])
    per_column, per_row = (1, 2) if ascii_only else (2, 4)
    low, high = _envelope(
        _dot(series.steps[finite], first, last, columns * per_column),
        np.log10(values) if logarithmic else values,
        columns * per_column,
    )
    grid = _lit(low, high, rows * per_row)
    bottom, top = float(np.nanmin(low)), float(np.nanmax(high))
    text, marked = _marks(marks, first, last, columns, "-" if ascii_only else "\u2501")
    return Curve(
        rows=tuple((_ascii if ascii_only else _braille)(grid, row) for row in range(rows)),
        labels=_labels(bottom, top, rows, logarithmic),
        marks=text,
        marked=marked,
        first_step=first,
        last_step=last,
        logarithmic=logarithmic,
    )


_LEVELS = "▁▂▃▄▅▆▇█"


def spark(series: Series, columns: int) -> str:
    """A series in one row: the highest value of each share of the steps; "" without two values."""
    finite = np.abs(series.values) < 1e300
    if np.count_nonzero(finite) < 2:
        return ""
    values, steps = series.values[finite], series.steps[finite]
    if values.min() > 0 and values.max() >= LOG_FROM * values.min():
        values = np.log10(values)
    place = steps.astype(np.float64)
    if len(values) < columns:
        high = np.interp(np.linspace(place[0], place[-1], columns), place, values)
    else:
        _, high = _envelope(_dot(steps, int(steps[0]), int(steps[-1]), columns), values, columns)
        filled = np.flatnonzero(~np.isnan(high))
        high = np.interp(np.arange(columns), filled, high[filled])  # a line between sparse points
    bottom = float(high.min())
    span = float(high.max()) - bottom
    scale = (len(_LEVELS) - 1) / span if 1e-300 < span < np.inf else 0.0
    return "".join(_LEVELS[round((float(one) - bottom) * scale)] for one in high)


def _dot(steps: np.ndarray, first: int, last: int, dots: int) -> np.ndarray:
    """(T,) steps -> (T,) dot columns 0..dots-1."""
    span = max(1, last - first)
    share_T = (steps - float(first)) * dots / (span + 1.0)  # int64 would overflow at 2**63
    dot_T: np.ndarray = np.minimum(share_T, dots - 1).astype(np.int64)
    return dot_T


def _envelope(dot_T: np.ndarray, value_T: np.ndarray, dots: int) -> tuple[np.ndarray, np.ndarray]:
    """Lowest and highest value in each dot column, NaN where it holds none."""
    low, high = np.full(dots, np.inf), np.full(dots, -np.inf)
    np.minimum.at(low, dot_T, value_T)
    np.maximum.at(high, dot_T, value_T)
    empty = low > high
    low[empty] = high[empty] = np.nan
    return low, high


def _lit(low: np.ndarray, high: np.ndarray, dots: int) -> np.ndarray:
    """(rows of dots, columns of dots) bool, row 0 on top."""
    bottom, top = np.nanmin(low), np.nanmax(high)
    span = float(top) - float(bottom)
    scale = (dots - 1) / span if span > 1e-300 else 0.0  # a flat line, but for a denormal
    grid = np.zeros((dots, low.size), dtype=bool)
    before: tuple[int, int, int] | None = None  # column, lowest and highest dot of the last one
    for column in np.flatnonzero(~np.isnan(low)):
        down = round(float(low[column] - bottom) * scale)
        up = round(float(high[column] - bottom) * scale)
        grid[dots - 1 - up : dots - down, column] = True
        if before is not None:
            _join(grid, before, (int(column), down, up))
        before = (int(column), down, up)
    return grid


def _join(grid: np.ndarray, left: tuple[int, int, int], right: tuple[int, int, int]) -> None:
    """Light the dots between two neighbouring columns that do not touch, so that a line is seen."""
    dots = grid.shape[0]
    (left_column, left_down, left_up), (column, down, up) = left, right
    if column - left_column > 1:
        start, end = (left_down + left_up) / 2, (down + up) / 2
        for between in range(left_column + 1, column):
            share = (between - left_column) / (column - left_column)
            grid[dots - 1 - round(start + (end - start) * share), between] = True
    elif down > left_up + 1:
        grid[dots - down : dots - 1 - left_up, column] = True
    elif left_down > up + 1:
        grid[dots - left_down : dots - 1 - up, column] = True


def _braille(grid: np.ndarray, row: int) -> str:
    cells = []
    for column in range(0, grid.shape[1], 2):
        block = grid[4 * row : 4 * row + 4, column : column + 2]
        code = sum(_DOTS[y][x] for y, x in zip(*np.nonzero(block), strict=True))
        cells.append(chr(_BRAILLE + code) if code else " ")
    return "".join(cells)


def _ascii(grid: np.ndarray, row: int) -> str:
    upper, lower = grid[2 * row], grid[2 * row + 1]
    return "".join(_HALVES[level] for level in upper.astype(int) + 2 * lower)


def _labels(bottom: float, top: float, rows: int, logarithmic: bool) -> tuple[str, ...]:
    """The value at the top, in the middle and at the bottom; blanks elsewhere."""
    chosen = sorted({0, rows // 2, rows - 1})
    share = np.array(chosen) / max(1, rows - 1)
    values = top * (1 - share) + bottom * share  # never top - bottom: it may not be finite
    texts = _distinct(np.power(10.0, values) if logarithmic else values)
    width = max(len(text) for text in texts)
    shown = dict(zip(chosen, texts, strict=True))
    return tuple(shown.get(row, "").rjust(width) for row in range(rows))


def _distinct(values: np.ndarray) -> list[str]:
    """Values with as many digits as it takes to tell them apart, but no more."""
    texts = [number(float(f"{value:.3g}")) for value in values]
    for digits in (4, 5, 6, 7):
        if len(set(texts)) == len(texts) or np.ptp(values) == 0:
            break
        texts = [f"{value:.{digits}g}" for value in values]
    return texts


def _marks(
    marks: Sequence[Mark], first: int, last: int, columns: int, dash: str
) -> tuple[tuple[str, ...], tuple[bool, ...]]:
    """Lines under the axis: `1` for a short range, `1----1` for a long one; the first on top."""
    rows = [[" "] * columns for _ in range(MARK_ROWS)]
    inside = [False] * columns
    for mark in marks:
        ends = np.clip([mark.start, mark.end], first, last)
        start, end = (int(column) for column in _dot(ends, first, last, columns))
        free = (row for row in rows if not "".join(row[max(0, start - 1) : end + 2]).strip())
        if (row := next(free, None)) is None:
            continue
        row[start : end + 1] = [dash] * (end + 1 - start)
        row[start] = mark.label
        if end - start > 1:
            row[end] = mark.label
        if mark.seen_in_curve:
            inside[start : end + 1] = [True] * (end + 1 - start)
    lines = tuple("".join(row).rstrip() for row in rows)
    return tuple(line for line in lines if line), tuple(inside)
