"""CSV, TSV, semicolons, columns set with spaces: Lightning, Keras, ultralytics, DeePMD, anybody's.

Quirks met in the wild: blank cells (train and validation in different rows), padded headers, a
header behind a `#`, more comments below it, text before the header, the header again after a
restart, restarts without a header, "Epoch 1 Summary,val_loss=0.5" among the rows, a last line cut
off, decimal commas.
"""

from __future__ import annotations

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, zip_longest
from pathlib import Path

import numpy as np

from nndiag.errors import UnreadableLog
from nndiag.readers.formats import polars_table
from nndiag.readers.lines.text_lines import TextLines, lines_of, suffix_of, text_of
from nndiag.readers.tables.columns import run_of
from nndiag.readers.tables.rows import TAGS, is_known, measurements
from nndiag.readers.tables.table import BLANKS, Table, TableBuilder, number
from nndiag.records import Run
from nndiag.vocabulary import describe, numbers_in

name = "csv"

MAX_LINE = 1 << 20  # characters
PREAMBLE = 200  # lines that may stand before the header
BLOCK = 8192  # rows that are turned into numbers together, where not in C
BLOCK_BYTES = 4 << 20  # that are read, and turned into numbers in C, together
PATIENCE = 3  # blocks in a row that are no pure numbers: then the rest is not tried in C
LARGE = 24 << 20  # bytes of a file from which on loading polars, 0.2 s, pays
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
        if suffix_of(path) not in (".csv", ".tsv") or not lines:
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
    table = table_of(path)
    return run_of(table, path=str(path), format=name, loss=loss, nan_may_be_blank=True)


def table_of(path: Path) -> Table:
    """The columns of a table in a file.

    Raises:
        UnreadableLog: it cannot be read, or holds no table.
    """
    return _Rows(TextLines(path, MAX_LINE)).table(path)


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
    """The first line that names columns of which the next line holds the numbers.

    Of several comments above the numbers it is the last one that fits.
    """
    found: Layout | None = None
    for i, line in enumerate(lines[:PREAMBLE]):
        if found and not line.startswith("#"):
            break
        after = lines[_after_comments(lines, i + 1) :]
        following = [other for other in after[:4] if other.strip()][:3]
        for delimiter in DELIMITERS:
            names = _header(line, delimiter)
            if names and _fits(names, delimiter, following):
                found = Layout(i, delimiter, names)
                break
    return found


def _after_comments(lines: Sequence[str], at: int) -> int:
    """The first line from `at` on that is no comment."""
    while at < len(lines) and lines[at].startswith("#"):
        at += 1
    return at


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
    if delimiter == " " and any(cell.endswith(":") for cell in filled):
        return None  # "lr_policy: poly", a setting
    if any(map(_is_assignment, filled)):
        return None
    # a name without letters, or as long as a sentence, is none
    if not all(len(cell) <= 120 and any(map(str.isalpha, cell)) for cell in filled):
        return None
    return tuple(_distinct(cell or f"column {i + 1}" for i, cell in enumerate(names)))


def _is_assignment(cell: str) -> bool:
    """ "val_loss=0.5": a name and its value."""
    return "=" in cell and number(cell.rpartition("=")[2]) is not None


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
    """Turns blocks of lines into a table: in C where a block holds numbers alone, else by line."""

    def __init__(self, lines: TextLines) -> None:
        self.lines = lines
        self.builder = TableBuilder()
        self.layout = Layout(-1, ",", ())
        self.block: list[list[str]] = []
        self.preamble = self.headers = self.odd = 0  # lines
        self.refused = 0  # blocks in a row that could not be read in C
        self.is_large = False

    def table(self, path: Path) -> Table:
        self.is_large = _size_of(path) >= LARGE
        for block in self._after_header(path):
            end = block.rfind(b"\n") + 1  # the last line of all may have no end
            if not self._read_in_c(block if end == len(block) else block[:end]):
                end = 0
            if end < len(block):
                self._read_by_line(block[end:])
        torn = self._drop_torn()
        self._flush()
        return self.builder.table(*self._remarks(torn))

    def _after_header(self, path: Path) -> Iterator[bytes]:
        """The lines after the header, which is found on the way."""
        blocks = self.lines.blocks(BLOCK_BYTES)
        block = next(blocks, b"")
        ends = list(islice(_ends_of_lines(block), PREAMBLE + 5))
        first = lines_of(block[: ends[-1]] if len(ends) == PREAMBLE + 5 else block)
        layout = find_layout(first)
        if layout is None:
            filled = [line for line in first if line.strip()]
            if not filled or not _numbers_only(filled):
                raise _no_table(path, filled)
            delimiter = _numeric_delimiter(filled[0])
            width = len(cells_of(filled[0], delimiter))
            layout = Layout(-1, delimiter, tuple(f"column {i + 1}" for i in range(width)))
        self.layout, self.preamble = layout, max(layout.line, 0)
        start = _after_comments(first, layout.line + 1)
        yield block[ends[start - 1] :] if start else block
        yield from blocks

    def _read_in_c(self, block: bytes) -> bool:
        """Whether a block of whole lines could be read as nothing but numbers, and was."""
        names, delimiter = self.layout.names, self.layout.delimiter
        doubtful = not block.isascii() or b'"' in block or _are_long(names)
        if doubtful or self.refused >= PATIENCE:
            return False
        columns: Sequence[polars_table.Numbers | list[str]] | None
        if self.is_large and delimiter != " " and polars_table.library() is not None:
            first = self.layout.cells(block[: block.find(b"\n")].decode())
            texts = {i for i, cell in enumerate(first) if _is_text(cell)}
            is_number = [i not in texts for i in range(len(names))]
            columns = polars_table.columns_of(block, delimiter, is_number)
        else:
            columns = _all_numbers(block, delimiter, len(names))
        if columns is None or not _are_honest(block, columns):
            self.refused += 1
            return False
        self.refused = 0
        self._flush()
        height = 0
        for one, column in zip(names, columns, strict=True):
            if isinstance(column, list):
                self._add(one, column)
            else:
                self.builder.add_block(one, *column)
            height = max(height, _rows_of(column))
        self.builder.advance(height)
        return True

    def _read_by_line(self, block: bytes) -> None:
        for line in lines_of(block):
            if line[:1].isalpha() or line[:1] in "#\"'":
                names = _header(line, self.layout.delimiter)
                if names and (names == self.layout.names or self._renames(line, names)):
                    self._flush()
                    self.layout = Layout(0, self.layout.delimiter, names)
                    self.headers += 1
                    continue
            if not line.strip() or self._is_comment(line):
                continue
            if "=" in line and any(map(_is_assignment, self.layout.cells(line))):
                self._flush()
                self.builder.add(numbers_in(line))
                continue
            if len(self.block) >= BLOCK:
                self._flush()
            self.block.append(self.layout.cells(line))

    def _renames(self, line: str, names: tuple[str, ...]) -> bool:
        """Whether a line inside the table is another header, and not a comment."""
        if line.startswith("#"):
            known = sum(one in self.layout.names or is_known(one) for one in names)
            return 2 * known > len(names)
        return any(map(is_known, names))

    def _is_comment(self, line: str) -> bool:
        """A line behind a `#` that holds words for the most part."""
        if not line.startswith("#"):
            return False
        cells = self.layout.cells(line[1:])
        return 2 * sum(number(cell) is not None for cell in cells) < len(cells)

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
        if _are_long(names):
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
        present: np.ndarray | None = None
        texts = cells
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
            if present is not None or not good.all():
                present = (np.arange(len(cells)) if present is None else present)[good]
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
        if self.lines.damage:
            remarks.append(self.lines.damage)
        return remarks


def _size_of(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except (OSError, ValueError):
        return 0  # opening it says what is wrong


def _ends_of_lines(block: bytes) -> Iterator[int]:
    """Where each line of a block has ended."""
    end = block.find(b"\n") + 1
    while end:
        yield end
        end = block.find(b"\n", end) + 1


def _are_long(names: Sequence[str]) -> bool:
    """A cell of each row tells what another one is: the split, or the name of a value."""
    return any(one.lower() in TAGS or one.lower() == "value" for one in names)


def _is_text(cell: str) -> bool:
    return number(cell) is None and not _is_blank(cell)


def _all_numbers(
    block: bytes, delimiter: str, width: int
) -> list[polars_table.Numbers | list[str]] | None:
    """The columns of lines that are full of numbers; None if they are not."""
    if not block.strip():
        return None
    parted = None if delimiter == " " else delimiter
    try:
        table = np.loadtxt(io.BytesIO(block), delimiter=parted, comments=None, ndmin=2)
    except ValueError:
        return None
    return [(None, column) for column in table.T] if table.shape[1] == width else None


def _are_honest(block: bytes, columns: Sequence[polars_table.Numbers | list[str]]) -> bool:
    """Each infinity is called so in the text: it is none that a number such as 1e999 became."""
    numbers = [column[1] for column in columns if isinstance(column, tuple)]
    found = sum(int(np.isinf(values).sum()) for values in numbers)
    return not found or found == len(re.findall(b"inf", block, re.IGNORECASE))


def _rows_of(column: polars_table.Numbers | list[str]) -> int:
    if isinstance(column, list):
        return len(column)
    rows, values = column
    return values.size if rows is None else int(rows[-1]) + 1 if rows.size else 0


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
