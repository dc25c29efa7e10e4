"""What every reader of other people's logs makes first: named columns of numbers, with gaps."""

from __future__ import annotations

import re
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

MAX_COLUMNS = 2000  # names; what comes later is left out and counted
MAX_NAME = 200  # characters of a column's name that are kept

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
class TableBuilder:
    """Collects rows of named numbers into a `Table`."""

    height: int = 0
    _rows: dict[str, array[int]] = field(default_factory=dict)
    _values: dict[str, array[float]] = field(default_factory=dict)
    _texts: Counter[str] = field(default_factory=Counter)
    _dropped: int = 0

    def add(self, pairs: Iterable[tuple[str, float | None]]) -> None:
        """One row. A value of None is one that is no number; it only names the column."""
        row = self.height
        for name, value in pairs:
            if value is None:
                self.note_text(name)
                continue
            rows = self._rows.get(name)
            if rows is None:
                rows = self._new_column(name)
                if rows is None:
                    continue
            elif (
                rows and rows[-1] == row
            ):  # twice in one row, as in "loss 0.5 (avg loss 0.6)": the first
                continue
            rows.append(row)
            self._values[name].append(value)
        self.height += 1

    def add_block(self, name: str, present: np.ndarray, values: np.ndarray) -> None:
        """Values of one column for the next rows; `present` counts from `height`. See `advance`."""
        rows = self._rows.get(name)
        if rows is None:
            rows = self._new_column(name)
        if rows is not None and present.size:
            rows.frombytes((present + self.height).astype(np.int64).tobytes())
            self._values[name].frombytes(values.astype(np.float64).tobytes())

    def advance(self, rows: int) -> None:
        self.height += rows

    def note_text(self, name: str, cells: int = 1) -> None:
        """A cell that holds something else than a number."""
        if len(self._texts) < MAX_COLUMNS:
            self._texts[name[:MAX_NAME]] += cells

    def _new_column(self, name: str) -> array[int] | None:
        if len(self._rows) >= MAX_COLUMNS or len(name) > MAX_NAME:
            self._dropped += 1
            return None
        self._rows[name], self._values[name] = array("q"), array("d")
        return self._rows[name]

    def table(self, *remarks: str) -> Table:
        columns = {
            name: Column(name, np.array(rows, np.int64), np.array(self._values[name], np.float64))
            for name, rows in self._rows.items()
            if len(rows)
        }
        said = list(remarks)
        if self._dropped:
            said.append(f"{self._dropped} values left out: more than {MAX_COLUMNS} names")
        some = {n: count for n, count in self._texts.items() if n in columns}
        for name, count in list(some.items())[:5]:
            said.append(f"{name!r}: {count} cells left out that are no numbers")
        unreadable = tuple(name for name in self._texts if name not in columns)
        return Table(self.height, columns, unreadable, tuple(said))
