"""Rows that look alike, turned into columns many at a time: a call for each number is too slow.

The rows of a log come in a few shapes (a training step, an evaluation). The cells of each shape
are collected, and every some thousand rows all of them go to the builder, in the log's order.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np

from nndiag.readers.tables.table import TableBuilder

Convert = Callable[[object], float | None]
Pairs = Iterable[tuple[str, float | None]]


_float: Convert = float  # type: ignore[assignment]


class Shape:
    """The rows whose cells mean the same: cell i belongs to the column `names[i]`."""

    def __init__(
        self,
        names: Sequence[str],
        *,
        convert: Sequence[Convert] = (),
        places: Sequence[int] = (),
        constants: Sequence[float] = (),
    ) -> None:
        """`convert`: how to read each cell, `float` if not given. `places`: those in the log.

        `constants` are the values of the last names, which have no cells.
        """
        self.names = tuple(names)
        self.constants = tuple(constants)
        self.places = tuple(places) or tuple(range(len(self.names)))
        self.convert: tuple[Convert, ...] = tuple(convert) or (_float,) * len(self.names)
        self.rows: list[int] = []
        self.cells: list[Sequence[object]] = []


class _Part(NamedTuple):
    """Values of a column in a batch, from the rows of one shape."""

    rows: np.ndarray  # (n,) int64, from the start of the batch
    values: np.ndarray  # (n,) float64
    place: int  # of the name in its row

    @property
    def first(self) -> tuple[int, int]:
        return int(self.rows[0]), self.place


class RowBatches:
    """Fills a builder with rows that look like others (`add_to`) or like none (`add`)."""

    def __init__(self, builder: TableBuilder) -> None:
        self.shapes: list[Shape] = []  # that have rows in this batch
        self._builder = builder
        self._row = 0  # of the next row, from the start of the batch
        self._odd: dict[str, tuple[int, list[int], list[float]]] = {}  # place, rows, values

    def add_to(self, shape: Shape, rows: Sequence[Sequence[object]]) -> None:
        """Rows of one shape, each with a cell for each of its names."""
        if not shape.rows:
            self.shapes.append(shape)
        shape.rows.extend(range(self._row, self._row + len(rows)))
        shape.cells.extend(rows)
        self._row += len(rows)

    def add_one(self, shape: Shape, cells: Sequence[object]) -> None:
        """As `add_to`, for one row."""
        if not shape.rows:
            self.add_to(shape, (cells,))
            return
        shape.rows.append(self._row)
        shape.cells.append(cells)
        self._row += 1

    def add(self, pairs: Pairs) -> None:
        """A row that is like no other; of a name that comes twice, the first value counts."""
        for place, (name, value) in enumerate(pairs):
            if value is None:
                self._builder.note_text(name)
                continue
            _, rows, values = self._odd.setdefault(name, (place, [], []))
            if not rows or rows[-1] != self._row:
                rows.append(self._row)
                values.append(value)
        self._row += 1

    def flush(self) -> None:
        """Hand all rows to the builder."""
        parts: dict[str, list[_Part]] = defaultdict(list)
        for shape in self.shapes:
            for name, part in self._parts_of(shape):
                if part.rows.size:
                    parts[name].append(part)
            shape.rows, shape.cells = [], []
        for name, (place, rows, values) in self._odd.items():
            parts[name].append(_Part(np.array(rows, np.int64), np.array(values), place))
        # columns come in the order in which the log first names them
        for name in sorted(parts, key=lambda name: min(part.first for part in parts[name])):
            self._builder.add_block(name, *_in_order(parts[name]))
        self._builder.advance(self._row)
        self._row = 0
        self.shapes, self._odd = [], {}

    def _parts_of(self, shape: Shape) -> Iterator[tuple[str, _Part]]:
        rows = np.array(shape.rows, dtype=np.int64)
        columns = zip(*shape.cells, strict=True)
        with_cells = len(shape.names) - len(shape.constants)
        for i, cells in enumerate(columns):
            name, convert = shape.names[i], shape.convert[i]
            yield name, _Part(*self._converted(name, convert, rows, cells), shape.places[i])
        for i, value in enumerate(shape.constants, start=with_cells):
            yield shape.names[i], _Part(rows, np.full(rows.size, value), shape.places[i])

    def _converted(
        self, name: str, convert: Convert, rows: np.ndarray, cells: Sequence[object]
    ) -> tuple[np.ndarray, np.ndarray]:
        try:
            found = list(map(convert, cells))
        except OverflowError:  # an integer of 400 digits
            found = [_without_overflow(convert, cell) for cell in cells]
        if None not in found:
            return rows, np.array(found, dtype=np.float64)
        good = np.array([value is not None for value in found], dtype=bool)
        self._builder.note_text(name, len(found) - int(good.sum()))
        return rows[good], np.array([value for value in found if value is not None], np.float64)


def _without_overflow(convert: Convert, cell: object) -> float | None:
    try:
        return convert(cell)
    except OverflowError:
        return None


def _in_order(parts: Sequence[_Part]) -> tuple[np.ndarray, np.ndarray]:
    if len(parts) == 1:
        return parts[0].rows, parts[0].values
    rows = np.concatenate([part.rows for part in parts])
    values = np.concatenate([part.values for part in parts])
    order = np.argsort(rows, kind="stable")
    return rows[order], values[order]
