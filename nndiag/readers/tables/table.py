"""What every reader of other people's logs makes first: named columns of numbers, with gaps."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from nndiag.readers.tables.thinning import Filled, halved

MAX_COLUMNS = 2000  # names; what comes later is left out and counted
MAX_NAME = 200  # characters of a column's name that are kept
MOST_NUMBERS = 1 << 27  # that a table holds, 1 GiB; a value in a column with gaps counts twice
# The same for lines of text or JSON, 160 MiB: some ten million lines, and a log of any length is
# read in less than half a gigabyte.
MOST_OF_LINES = 20 << 20
LOOK_EVERY = 8192  # rows

# Python's float() takes more than a log may hold: "1_000", Arabic digits. Nothing else is a number.
_NUMBER = re.compile(
    r"[-+]?(?:[0-9]{1,60}(?:\.[0-9]{0,60})?|\.[0-9]{1,60})(?:[eE][-+]?[0-9]{1,4})?", re.ASCII
)
_NONFINITE = {
    "nan": np.nan, "inf": np.inf, "infinity": np.inf, "+inf": np.inf, "+infinity": np.inf,
    "-inf": -np.inf, "-infinity": -np.inf, "-nan": np.nan, "+nan": np.nan,
}  # fmt: skip
BLANKS = frozenset(["", "na", "n/a", "none", "null", "-", "--", "<na>"])


def number(text: str) -> float | None:
    """The number that a cell holds; None if it is none. "1e999" is none: it would turn infinite."""
    text = text.strip()
    if _NUMBER.fullmatch(text):
        value = float(text)
        return value if abs(value) != np.inf else None
    return _NONFINITE.get(text.lower()) if len(text) <= 9 else None


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a log, without its blank cells."""

    name: str
    rows: np.ndarray  # (n,) int64, rows where it has a value, increasing
    values: np.ndarray  # (n,) float64

    def __len__(self) -> int:
        return int(self.rows.size)

    def filled(self, height: int) -> np.ndarray:
        """(height,) Its newest value at each row; the first one before there is any; else NaN."""
        if len(self) == height:
            return self.values
        at = np.full(height, -1, dtype=np.int64)
        at[self.rows] = np.arange(len(self))
        np.maximum.accumulate(at, out=at)
        return self.values[np.maximum(at, 0)] if len(self) else np.full(height, np.nan)


@dataclass(frozen=True, slots=True)
class Table:
    """A log as columns; a row is a line of it, or an object, in the order of the log."""

    height: int  # rows
    columns: Mapping[str, Column]
    unreadable: tuple[str, ...] = ()  # columns that held no number at all
    remarks: tuple[str, ...] = ()  # what was left out

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.columns)


@dataclass(slots=True)
class _Growing:
    """A column that is still being read."""

    values: array[float]
    rows: array[int] | None  # None: 0, 1, 2, ... one for each value

    def rows_as_array(self) -> np.ndarray:
        return np.arange(len(self.values)) if self.rows is None else _int64(self.rows)


@dataclass(slots=True)
class TableBuilder:
    """Collects rows of named numbers into a `Table`, and thins them out where they are too many."""

    most_numbers: int = MOST_NUMBERS
    height: int = 0
    _columns: dict[str, _Growing] = field(default_factory=dict)
    _texts: Counter[str] = field(default_factory=Counter)
    _dropped: int = 0
    _look_at: int = LOOK_EVERY  # height from which on to see whether it is too much
    _halvings: int = 0
    _thinned: int = 0  # rows at the start that were halved as often as that
    _left_out: int = 0  # rows

    def add(self, pairs: Iterable[tuple[str, float | None]]) -> None:
        """One row. A value of None is one that is no number; it only names the column."""
        row = self.height
        for name, value in pairs:
            if value is None:
                self.note_text(name)
                continue
            column = self._columns.get(name) or self._new_column(name)
            if column is None:
                continue
            rows = column.rows
            if rows is None:
                if len(column.values) > row:
                    continue
                if len(column.values) < row:
                    rows = column.rows = _array(np.arange(len(column.values)))
            elif rows and rows[-1] == row:
                continue  # twice in one row, as in "loss 0.5 (avg loss 0.6)": the first
            if rows is not None:
                rows.append(row)
            column.values.append(value)
        self.advance(1)

    def add_block(self, name: str, present: np.ndarray | None, values: np.ndarray) -> None:
        """Values of one column for the next rows; `present` counts from `height`. See `advance`.

        `present` is int64 and increasing; None stands for 0, 1, 2, ...
        """
        column = self._columns.get(name) or self._new_column(name)
        if column is None or not values.size:
            return
        in_a_row = present is None or int(present[-1]) == present.size - 1
        if column.rows is None and not (in_a_row and len(column.values) == self.height):
            column.rows = _array(np.arange(len(column.values)))
        if column.rows is not None:
            rows = np.arange(values.size) if present is None else present
            column.rows.frombytes((rows + self.height).astype(np.int64).data.cast("B"))
        column.values.frombytes(np.ascontiguousarray(values, np.float64).data.cast("B"))

    def advance(self, rows: int) -> None:
        self.height += rows
        if self.height >= self._look_at:
            self._look_at = self.height + LOOK_EVERY
            if self._numbers() > self.most_numbers:
                self._thin()

    def note_text(self, name: str, cells: int = 1) -> None:
        """A cell that holds something else than a number."""
        if len(self._texts) < MAX_COLUMNS:
            self._texts[name[:MAX_NAME]] += cells

    def _new_column(self, name: str) -> _Growing | None:
        if len(self._columns) >= MAX_COLUMNS or len(name) > MAX_NAME:
            self._dropped += 1
            return None
        column = _Growing(array("d"), array("q") if self.height else None)
        self._columns[name] = column
        return column

    def _numbers(self) -> int:
        return sum(len(c.values) + len(c.rows or ()) for c in self._columns.values())

    def _thin(self) -> None:
        """Leave rows out, old and new ones alike."""
        self._thin_new()
        if self._numbers() > 0.8 * self.most_numbers:
            self._halve(0)
            self._halvings += 1
            self._thinned = self.height

    def _thin_new(self) -> None:
        for _ in range(self._halvings):
            self._halve(self._thinned)
        self._thinned = self.height

    def _halve(self, start: int) -> None:
        """Leave out half of the rows from `start` on."""
        seen: list[Filled] = []
        for column in self._columns.values():
            if column.rows is None and len(column.values) == self.height:
                seen.append((None, _float64(column.values)[start:]))
                continue
            rows = column.rows_as_array()
            first = int(np.searchsorted(rows, start))
            seen.append((rows[first:] - start, _float64(column.values)[first:]))
        stays = np.concatenate([np.ones(start, bool), halved(seen, self.height - start)])
        place: np.ndarray | None = None
        for column in self._columns.values():
            if column.rows is None and len(column.values) == self.height:
                column.values = _array(_float64(column.values)[stays])
                continue
            if place is None:
                place = np.cumsum(stays, dtype=np.int64) - 1
            rows = column.rows_as_array()
            mine = stays[rows]
            column.values = _array(_float64(column.values)[mine])
            column.rows = _array(place[rows[mine]])
        height = int(np.count_nonzero(stays))
        self._left_out += self.height - height
        self.height, self._look_at = height, height + LOOK_EVERY

    def table(self, *remarks: str) -> Table:
        """All that was collected. To be called once, at the end."""
        if self._halvings:
            self._thin_new()
        every = np.arange(self.height)  # one for all columns without gaps: they are large
        columns = {}
        for name, column in self._columns.items():
            is_full = column.rows is None and len(column.values) == self.height
            if column.values:
                rows = every if is_full else column.rows_as_array()
                columns[name] = Column(name, rows, _float64(column.values))
        said = list(remarks)
        if self._left_out:
            said.append(
                f"{self.height + self._left_out} rows are more than we keep: of each "
                f"{2**self._halvings} neighbours one is judged, if possible one with NaN"
            )
        if self._dropped:
            said.append(f"{self._dropped} values left out: more than {MAX_COLUMNS} names")
        some = {n: count for n, count in self._texts.items() if n in columns}
        for name, count in list(some.items())[:5]:
            said.append(f"{name!r}: {count} cells left out that are no numbers")
        unreadable = tuple(name for name in self._texts if name not in columns)
        return Table(self.height, columns, unreadable, tuple(said))


def _array(values: np.ndarray) -> array:  # type: ignore[type-arg]
    """The numbers in a form that can grow."""
    grown = array("d" if values.dtype == np.float64 else "q")
    grown.frombytes(np.ascontiguousarray(values).data.cast("B"))
    return grown


def _int64(numbers: array[int]) -> np.ndarray:
    return np.frombuffer(numbers, np.int64) if numbers else np.empty(0, np.int64)


def _float64(numbers: array[float]) -> np.ndarray:
    return np.frombuffer(numbers, np.float64) if numbers else np.empty(0)
