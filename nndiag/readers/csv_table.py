"""CSV, TSV, semicolons, columns set with spaces: Lightning, Keras, ultralytics, DeePMD, anybody's.

Quirks met in the wild: blank cells (train and validation in different rows), padded headers, a
header behind a `#`, text before the header, the header again after a restart, restarts without a
header, a last line cut off, decimal commas.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path

import numpy as np

from nndiag.errors import UnreadableLog
from nndiag.readers.columns import run_of
from nndiag.readers.rows import TAGS, is_known, measurements
from nndiag.readers.table import BLANKS, Table, TableBuilder, number
from nndiag.readers.text_lines import TextLines, text_of
from nndiag.records import Run
from nndiag.vocabulary import describe

name = "csv"

MAX_LINE = 1 << 20  # characters
PREAMBLE = 200  # lines that may stand before the header
BLOCK = 8192  # rows that are turned into numbers together
DELIMITERS = (",", "\t", ";", " ")
_WORDS = {",": "comma", "\t": "tab", ";": "semicolon", " ": "space"}


@dataclass(frozen=True, slots=True)
class Layout:
    """Where the header is, and how cells are parted."""

    line: int  # of the header, from 0; -1 where there is none
    delimiter: str  # " " stands for any white space
    names: tuple[str, ...]

    def cells(self, line: str) -> list[str]:
        return cells_of(line, self.delimiter)


def recognises(path: Path, head: bytes) -> str | None:
    """Why this looks like a table; None if it does not."""
    lines = text_of(head).splitlines()
    layout = find_layout(lines[:-1] if len(lines) > 2 else lines)  # the last one may be cut
    if layout is None:
        if path.suffix.lower() not in (".csv", ".tsv") or not lines:
            return None
        if _header(lines[0], _numeric_delimiter(lines[0])):
            return "line 1 names columns"
        return "numbers in columns, no header" if _numbers_only(lines) else None
    shown = ", ".join(layout.names[:4]) + (", ..." if len(layout.names) > 4 else "")
    return f"line {layout.line + 1} names columns ({_WORDS[layout.delimiter]}): {shown}"


def read(path: Path, loss: str | None = None) -> Run:
    """The run in a table; `loss` names the column to take for the loss.

    Raises:
        UnreadableLog: it holds no table, no loss, or no column called `loss`.
    """
    lines = TextLines(path, MAX_LINE)
    table = _Rows(lines).table(path)
    return run_of(table, path=str(path), format=name, loss=loss, nan_may_be_blank=True)


def cells_of(line: str, delimiter: str) -> list[str]:
    if delimiter == " ":
        return line.split()
    if '"' not in line:
        return line.split(delimiter)
    try:  # line by line: a quote that is never closed must not swallow the file
        return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:  # a field above 128 KiB
        return line.split(delimiter)


def find_layout(lines: Sequence[str]) -> Layout | None:
    """The first line that names columns of which the next line holds the numbers."""
    for i, line in enumerate(lines[:PREAMBLE]):
        following = [other for other in lines[i + 1 : i + 5] if other.strip()][:3]
        for delimiter in DELIMITERS:
            names = _header(line, delimiter)
            if names and _fits(names, delimiter, following):
                return Layout(i, delimiter, names)
    return None


def _header(line: str, delimiter: str) -> tuple[str, ...] | None:
    """The names in a header line; None if it is none."""
    text = line.lstrip("# \t") if delimiter == " " or line.startswith("#") else line
    names = [cell.strip().strip("'\"") for cell in cells_of(text, delimiter)]
    while names and not names[-1]:
        names.pop()
    filled = [cell for cell in names if cell]
    if not filled or any(number(cell) is not None for cell in filled):
        return None
    if len(names) == 1 and (delimiter != "," or not _is_loss_alone(names[0])):
        return None
    if delimiter == " " and not any(is_known(cell) for cell in filled):
        return None  # any sentence would do else
    # a name without letters, or as long as a sentence, is none
    if not all(len(cell) <= 120 and any(map(str.isalpha, cell)) for cell in filled):
        return None
    return tuple(_distinct(cell or f"column {i + 1}" for i, cell in enumerate(names)))


def _is_loss_alone(name: str) -> bool:
    """A file of one column; not "step;loss", which another delimiter parts."""
    return describe(name).family == "loss" and not any(other in name for other in "\t;")


def _distinct(names: Iterator[str]) -> Iterator[str]:
    seen: dict[str, int] = {}
    for one in names:
        seen[one] = seen.get(one, 0) + 1
        yield one if seen[one] == 1 else f"{one}.{seen[one] - 1}"


def _fits(names: tuple[str, ...], delimiter: str, following: Sequence[str]) -> bool:
    """The lines after a header hold as many cells, numbers for the most part."""
    if not following:
        return False
    first = cells_of(following[0], delimiter)
    if not first or len(first) > 2 * len(names) + 2 or (len(names) > 1) != (len(first) > 1):
        return False
    if delimiter == " " and any(len(cells_of(x, " ")) != len(names) for x in following):
        return False
    filled = [cell for cell in first if cell.strip().lower() not in BLANKS]
    numbers = sum(_number(cell, delimiter) is not None for cell in filled)
    return numbers > 0 and 2 * numbers >= len(filled)


def _numbers_only(lines: Sequence[str]) -> bool:
    cells = [cells_of(line, _numeric_delimiter(line)) for line in lines[:3] if line.strip()]
    return all(len(row) > 1 and all(number(c) is not None for c in row) for row in cells)


def _numeric_delimiter(line: str) -> str:
    return next((d for d in DELIMITERS if d in line), ",")


def _number(cell: str, delimiter: str) -> float | None:
    value = number(cell)
    if value is None and delimiter == ";" and cell.count(",") == 1:  # "0,5": a decimal comma
        value = number(cell.replace(",", "."))
    return value


class _Rows:
    """Turns lines into a table, block by block."""

    def __init__(self, lines: TextLines) -> None:
        self.lines = lines
        self.builder = TableBuilder()
        self.layout = Layout(-1, ",", ())
        self.block: list[list[str]] = []
        self.preamble = self.headers = self.odd = 0  # lines

    def table(self, path: Path) -> Table:
        body = self._after_header(path)
        for line in body:
            if line[:1].isalpha() or line[:1] in "#\"'":
                names = _header(line, self.layout.delimiter)
                if names and (names == self.layout.names or any(map(is_known, names))):
                    self._flush()
                    self.layout = Layout(0, self.layout.delimiter, names)
                    self.headers += 1
                    continue
            if not line.strip():
                continue
            self.block.append(self.layout.cells(line))
            if len(self.block) >= BLOCK:
                self._flush()
        torn = self._drop_torn()
        self._flush()
        return self.builder.table(*self._remarks(torn))

    def _after_header(self, path: Path) -> Iterator[str]:
        """The lines after the header, which is found on the way."""
        source = iter(self.lines)
        first: list[str] = []
        for line in source:
            first.append(line)
            if len(first) >= PREAMBLE + 5:
                break
        layout = find_layout(first)
        if layout is None:
            filled = [line for line in first if line.strip()]
            if not filled or not _numbers_only(filled):
                raise _no_table(path, filled)
            delimiter = _numeric_delimiter(filled[0])
            width = len(cells_of(filled[0], delimiter))
            layout = Layout(-1, delimiter, tuple(f"column {i + 1}" for i in range(width)))
        self.layout, self.preamble = layout, max(layout.line, 0)
        yield from first[layout.line + 1 :]
        yield from source

    def _drop_torn(self) -> bool:
        """A last line without its end may lack cells, and half of a number is another number."""
        is_torn = self.lines.ends_torn and bool(self.block)
        if is_torn and len(self.block[-1]) < len(self.layout.names):
            self.block.pop()
            return True
        return False

    def _flush(self) -> None:
        names, block = self.layout.names, self.block
        self.block = []
        if not block:
            return
        if any(one.lower() in TAGS or one.lower() == "value" for one in names):
            for cells in block:
                record = dict(zip(names, cells, strict=False))
                pairs = measurements({n: c for n, c in record.items() if not _is_blank(c)})
                self.builder.add(pairs)
            return
        width = len(names)
        self.odd += sum(
            len(cells) > width and any(c.strip() for c in cells[width:]) for cells in block
        )
        columns = list(zip_longest(*block, fillvalue=""))[:width]
        for one, column in zip(names, columns, strict=False):
            self._add(one, column)
        self.builder.advance(len(block))

    def _add(self, name: str, cells: Sequence[str]) -> None:
        """One column of a block."""
        present, texts = np.arange(len(cells)), cells
        if "" in cells:
            rows = [i for i, cell in enumerate(cells) if cell]
            present, texts = np.array(rows, dtype=np.int64), [cells[i] for i in rows]
        values = _plain_numbers(texts)
        if values is None:
            found = [_number(cell, self.layout.delimiter) for cell in texts]
            bad = [v is None and not _is_blank(t) for v, t in zip(found, texts, strict=True)]
            if any(bad):
                self.builder.note_text(name, sum(bad))
            good = np.array([value is not None for value in found], dtype=bool)
            present = present[good]
            values = np.array([value for value in found if value is not None], dtype=np.float64)
        self.builder.add_block(name, present, values)

    def _remarks(self, torn: bool) -> list[str]:
        remarks = []
        if self.preamble:
            remarks.append(f"{self.preamble} lines before the header left out")
        if self.headers:
            remarks.append(f"{self.headers} more header lines inside the file")
        if self.odd:
            remarks.append(f"{self.odd} rows have more cells than the header: the rest left out")
        if self.lines.cut:
            remarks.append(f"{self.lines.cut} lines longer than {MAX_LINE} characters cut")
        if torn:
            remarks.append("the last line is cut off: left out")
        return remarks


def _no_table(path: Path, filled: Sequence[str]) -> UnreadableLog:
    what = "is empty"
    if filled:
        is_header = len(filled) == 1 and _header(filled[0], _numeric_delimiter(filled[0]))
        what = "names columns and holds no row" if is_header else "no line in it names columns"
    do = "name another format: --reader text, --reader jsonl"
    return UnreadableLog(where=str(path), what=what, do=do)


def _is_blank(cell: str) -> bool:
    return cell.strip().lower() in BLANKS


def _plain_numbers(cells: Sequence[str]) -> np.ndarray | None:
    """All cells as numbers at once; None where one needs a closer look."""
    try:
        values = np.array(list(map(float, cells)), dtype=np.float64)
    except (ValueError, OverflowError):
        return None
    text = "".join(cells)
    # float() takes "1_000" and Arabic digits, and makes "1e999" infinite; number() does not
    if "_" in text or not text.isascii() or np.isinf(values).any():
        return None
    return values
