"""What `wandb.log` wrote: history records turned into columns, many at a time.

A record (`wandb_internal.proto`) holds `num` (1) and one of many kinds; `history` (2) is a row:
    item (1), one for each metric: key (1) or nested_key (2, repeated), value_json (16)
    step (2): num (1)
Clients up to 0.16 write `key`, and a dict as JSON; those since then `nested_key`, the keys in any
order. A key that is nested is called "train.loss", as W&B's pages call it. JSON here has the bare
tokens NaN and Infinity. Media are objects with "_type"; they are left out.

Nearly all rows look alike, so a batch of them is decoded in step: the first item of every row, then
the second, with numpy; only rows that are different are taken apart one by one.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from nndiag.readers.tables.rows import as_number
from nndiag.readers.tables.table import MAX_COLUMNS, Column, Table, TableBuilder
from nndiag.readers.wire import BYTES, VARINT, Malformed, fields, signed, varint

STEP = "_step"
INTERNAL = "_wandb"  # W&B's own bookkeeping in a row
MEDIA = "_type"  # the key that tells an object of W&B: a histogram, an image
MAX_NAMES = 4 * MAX_COLUMNS  # keys that are told apart; numbers of later ones are left out
MAX_NESTED = 8  # keys in a nested key, objects in objects
MAX_JSON = 1 << 16  # bytes of a value that is looked into
FEW = 24  # rows; fewer are decoded one by one sooner than in step
BROKEN = (ValueError, RecursionError, OverflowError)  # of json.loads

# a record of a row, as all clients begin it: its number (some, 0.13.5 for one, leave it out), then
# the history, whose tag is [\x12]
_ROW = re.compile(rb"(?:\x08[\x80-\xff]{0,9}[\x00-\x7f])?\x12", re.DOTALL)
_PADDING = bytes(300)  # bytes that may be looked at behind a batch
_ITEM, _HISTORY_STEP = 0x0A, 0x12  # tags in a row
_VALUE = (0x82, 0x01)  # tag of value_json
_NUMERIC = np.zeros(256, dtype=bool)  # what a number begins with; N and I: NaN, Infinity
_NUMERIC[list(b"-0123456789NI")] = True


@dataclass(slots=True)
class Batch:
    """Numbers of some rows, in no order of their own."""

    rows: list[np.ndarray] = field(default_factory=list)
    columns: list[np.ndarray] = field(default_factory=list)
    values: list[np.ndarray] = field(default_factory=list)

    def add(self, rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
        self.rows.append(rows)
        self.columns.append(columns)
        self.values.append(values)

    def sorted(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(rows, columns, values) by column, then row; of two values in one place the last."""
        rows, columns = np.concatenate(self.rows), np.concatenate(self.columns)
        place = columns * (1 + rows.max(initial=0)) + rows
        order = np.argsort(place, kind="stable")
        order = order[np.append(np.diff(place[order]) > 0, True)] if order.size else order
        return rows[order], columns[order], np.concatenate(self.values)[order]


class Keys(dict[bytes, int]):
    """The column of a key, by the bytes of its fields, the same in every row; -1: not wanted."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.left_out = 0
        self._columns: dict[str, int] = {}

    def __missing__(self, encoded: bytes) -> int:
        name = _name_of(encoded)
        is_wanted = name != "" and not _is_internal(name)
        column = self.column(name) if is_wanted else -1
        if len(self) < MAX_NAMES and (column >= 0 or not is_wanted):
            self[encoded] = column
        return column

    def column(self, name: str) -> int:
        known = self._columns.get(name)
        if known is not None:
            return known
        if len(self.names) >= MAX_NAMES:
            self.left_out += 1
            return -1
        self.names.append(name)
        self._columns[name] = len(self.names) - 1
        return len(self.names) - 1


class History:
    """Collects the rows of a `.wandb` file, or of the several that a resumed run has."""

    def __init__(self) -> None:
        self.malformed = 0  # records that are no rows though they say so
        self._builder = TableBuilder()
        self._keys = Keys()
        self._step = self._keys.column(STEP)

    @property
    def height(self) -> int:
        """Rows so far."""
        return self._builder.height

    def take(self, records: Sequence[bytes]) -> list[bytes]:
        """Adds the rows among these records; gives back the other records."""
        rows, starts, others = [], [], []
        is_row = _ROW.match
        for record in records:
            match = is_row(record)
            if match:
                rows.append(record)
                starts.append(match.end())
            else:
                others.append(record)
        if rows:
            self._add(rows, starts)
        return others

    def table(self, *remarks: str) -> Table:
        """All rows as columns, without those that describe media."""
        said = list(remarks)
        if self.malformed:
            said.append(f"{self.malformed} records left out that are malformed")
        if self._keys.left_out:
            said.append(f"{self._keys.left_out} values left out: more than {MAX_NAMES} names")
        table = self._builder.table(*said)
        return _without_media(table)

    def _add(self, records: list[bytes], starts: list[int]) -> None:
        batch = Batch()
        odd: Sequence[int] = range(len(records))
        if len(records) >= FEW:
            odd = self._in_step(records, starts, batch)
        self._one_by_one(records, odd, batch)
        if batch.rows:
            rows, columns, values = batch.sorted()
            bounds = np.flatnonzero(np.diff(columns, prepend=-1, append=-1))
            for start, end in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
                name = self._keys.names[columns[start]]
                self._builder.add_block(name, rows[start:end], values[start:end])
        self._builder.advance(len(records))

    def _in_step(self, records: list[bytes], starts: list[int], batch: Batch) -> list[int]:
        """Decodes the usual rows; which ones are not usual."""
        raw = b"".join([*records, _PADDING])
        data = np.frombuffer(raw, dtype=np.uint8)
        ends = np.cumsum([len(record) for record in records])
        at = ends - [len(record) for record in records] + starts
        length, at = _varints(data, at)
        usual = at + length == ends  # nothing behind the row, and its length is no lie
        row = np.flatnonzero(usual)
        at, ends = at[row], ends[row]
        found: list[tuple[np.ndarray, ...]] = []
        while row.size >= FEW:
            tag = data[at]
            size, body = _varints(data, at + 1)
            after = body + size
            key_end, value, is_value = _key_and_value(data, body, after)
            is_item = tag == _ITEM
            good = (after <= ends) & (size >= 0) & ((is_item & is_value) | (tag == _HISTORY_STEP))
            usual[row[~good]] = False
            kept = good & is_item
            found.append((row[kept], body[kept], key_end[kept], value[kept], after[kept]))
            going_on = good & (after < ends)
            row, at, ends = row[going_on], after[going_on], ends[going_on]
        usual[row] = False  # the last few are longer than the others
        if found:
            items = tuple(np.concatenate(part) for part in zip(*found, strict=True))
            still_usual = usual[items[0]]
            usual[self._numbers(raw, data, [part[still_usual] for part in items], batch)] = False
        return np.flatnonzero(~usual).tolist()

    def _numbers(
        self, raw: bytes, data: np.ndarray, items: list[np.ndarray], batch: Batch
    ) -> np.ndarray:
        """Values of items (row, key start, key end, value start, value end); rows without a step.

        Those rows give nothing to the batch.
        """
        row, key_start, key_end, start, end = items
        keys = self._keys
        column = np.array(
            [keys[raw[a:b]] for a, b in zip(key_start.tolist(), key_end.tolist(), strict=True)],
            dtype=np.int64,
        )
        has_step = np.zeros(row.max(initial=0) + 1, dtype=bool)
        has_step[row[column == self._step]] = True
        stepless = np.unique(row[~has_step[row]])
        wanted = has_step[row] & (column >= 0)
        numeric = wanted & _NUMERIC[data[start]] & (end > start)
        texts = _slices(raw, start[numeric], end[numeric])
        values = _floats(texts)
        if values is not None:
            batch.add(row[numeric], column[numeric], values)
            wanted &= ~numeric
        self._others(raw, [part[wanted] for part in (row, column, start, end)], batch)
        return stepless

    def _others(self, raw: bytes, items: list[np.ndarray], batch: Batch) -> None:
        """Values that are no plain numbers."""
        found: list[tuple[int, int, float]] = []
        for row, column, start, end in zip(*(part.tolist() for part in items), strict=True):
            name = self._keys.names[column]
            for own, number in self._of_json(name, raw[start:end]):
                found.append((row, own, number))
        _add_found(found, batch)

    def _one_by_one(self, records: list[bytes], rows: Sequence[int], batch: Batch) -> None:
        found: list[tuple[int, int, float]] = []
        for row in rows:
            try:
                numbers = dict(self._of_record(records[row]))
            except Malformed:
                self.malformed += 1
                continue
            found += [(row, column, value) for column, value in numbers.items()]
        _add_found(found, batch)

    def _of_record(self, record: bytes) -> Iterator[tuple[int, float]]:
        """(column, number) of a row, whatever its layout; the last of one column counts."""
        for number, kind, start, end in fields(record):
            if number != 2 or kind != BYTES:
                continue
            # twice, and not a list: a record of 16 MiB may hold millions of empty items
            for part, part_kind, at, after in fields(record, start, end):
                if part == 2 and part_kind == BYTES:  # first: an item called _step counts more
                    yield self._step, float(_step_of(record, at, after))
            for part, part_kind, at, after in fields(record, start, end):
                if part == 1 and part_kind == BYTES:
                    yield from self._of_item(record, at, after)

    def _of_item(self, record: bytes, start: int, end: int) -> Iterator[tuple[int, float]]:
        value, labels = b"", []
        for number, kind, at, after in fields(record, start, end):
            if kind == BYTES and number in (1, 2):
                labels.append(record[at:after])
            elif kind == BYTES and number == 16:
                value = record[at:after]
        name = _joined(labels)
        if name:
            yield from self._of_json(name, value)

    def _of_json(self, name: str, text: bytes) -> Iterator[tuple[int, float]]:
        """The numbers in one value."""
        if _is_internal(name) or text[:1] in (b"t", b"f", b"n"):  # true, false, null
            return
        if len(text) > MAX_JSON or (text[:1] == b"{" and b'"_type"' in text):
            self._builder.note_text(name if len(text) > MAX_JSON else f"{name}.{MEDIA}")
            return
        try:
            value = json.loads(text)
        except BROKEN:
            value = ""
        for own, number in _flat(name, value, MAX_NESTED):
            # "1e999" is valid JSON, and Python makes infinity of it: no number that anyone logged
            if number is None or (abs(number) == np.inf and b"Inf" not in text):
                self._builder.note_text(own)
            else:
                column = self._keys.column(own)
                if column >= 0:
                    yield column, number


def _varints(data: np.ndarray, at: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(lengths below 2^21 that stand at `at`, the places behind them); a longer one is -1."""
    at = np.minimum(at, data.size - 4)
    first, second, third = (data[at + i].astype(np.int64) for i in range(3))
    is_one, is_two = first < 128, second < 128
    value = np.where(is_one, first, (first & 127) | (second & 127) << 7)
    longer = ~(is_one | is_two)
    value = np.where(longer, value | third << 14, value)
    value[longer & (third >= 128)] = -1
    return value, at + np.where(is_one, 1, np.where(is_two, 2, 3))


def _key_and_value(
    data: np.ndarray, at: np.ndarray, after: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(end of the key, start of the value, are they as usual) of items that end at `after`."""
    key_end = np.minimum(at, data.size - len(_PADDING))
    for _ in range(MAX_NESTED):
        tag, length = data[key_end], data[key_end + 1]
        is_key = ((tag == 0x0A) | (tag == 0x12)) & (length < 128)
        if not is_key.any():
            break
        key_end = np.where(is_key, np.minimum(key_end + 2 + length, after), key_end)
        key_end = np.minimum(key_end, data.size - len(_PADDING))
    size, value = _varints(data, key_end + 2)
    is_value = (data[key_end] == _VALUE[0]) & (data[key_end + 1] == _VALUE[1])
    return key_end, value, is_value & (size >= 0) & (value + size == after) & (key_end > at)


def _slices(raw: bytes, starts: np.ndarray, ends: np.ndarray) -> list[bytes]:
    return [raw[a:b] for a, b in zip(starts.tolist(), ends.tolist(), strict=True)]


def _floats(texts: list[bytes]) -> np.ndarray | None:
    """Numbers from JSON; None where one of them is something else. Each begins as a number does."""
    joined = b",".join(texts)
    try:
        values = np.array(json.loads(b"[%b]" % joined), dtype=np.float64)
    except BROKEN:
        return None
    if values.shape != (len(texts),) or joined.count(b",") != max(len(texts) - 1, 0):
        return None
    for i in np.flatnonzero(np.isinf(values)).tolist():
        if b"Inf" not in texts[i]:
            return None
    return values


def _add_found(found: list[tuple[int, int, float]], batch: Batch) -> None:
    if found:
        rows, columns, values = zip(*found, strict=True)
        batch.add(
            np.array(rows, dtype=np.int64),
            np.array(columns, dtype=np.int64),
            np.array(values, dtype=np.float64),
        )


def _flat(name: str, value: object, depth: int) -> Iterator[tuple[str, float | None]]:
    """(name, number) of all that a value holds; (name, None) for a text."""
    if isinstance(value, Mapping):
        if depth:
            for key, inner in value.items():
                yield from _flat(f"{name}.{key}", inner, depth - 1)
    elif isinstance(value, list):
        if len(value) == 1:  # "loss": [0.5]
            yield name, as_number(value[0])
    elif value is not None and not isinstance(value, bool):
        yield name, as_number(value)


def _step_of(record: bytes, start: int, end: int) -> int:
    for number, kind, at, _ in fields(record, start, end):
        if number == 1 and kind == VARINT:
            return signed(varint(record, at, end)[0])
    return 0


def _name_of(encoded: bytes) -> str:
    return _joined([encoded[start:end] for _, _, start, end in fields(encoded)])


def _joined(labels: Sequence[bytes]) -> str:
    return ".".join(label.decode(errors="replace") for label in labels)


def _is_internal(name: str) -> bool:
    return name == INTERNAL or name.startswith(f"{INTERNAL}.")


def _without_media(table: Table) -> Table:
    """Without the parts of images, histograms and tables: "img.width" beside "img._type"."""
    marks = [name for name in (*table.unreadable, *table.columns) if name.endswith(f".{MEDIA}")]
    objects = tuple(mark[: -len(MEDIA)] for mark in marks)

    def is_kept(name: str) -> bool:
        return not name.startswith(objects) and not _is_internal(name)

    columns: dict[str, Column] = {n: c for n, c in table.columns.items() if is_kept(n)}
    unreadable = tuple(filter(is_kept, table.unreadable))
    remarks = table.remarks
    if objects:
        names = ", ".join(repr(name.rstrip(".")) for name in objects[:4])
        more = f" and {len(objects) - 4} more" if len(objects) > 4 else ""
        remarks = (*remarks, f"left out, no numbers but objects of W&B: {names}{more}")
    return Table(table.height, columns, unreadable, remarks)
