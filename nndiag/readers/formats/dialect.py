"""What the readers of one framework's log share: its own lines out of a text, a changed column."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path

from nndiag.errors import UnreadableLog
from nndiag.readers.lines.line_shapes import LineShapes
from nndiag.readers.lines.text_lines import TextLines, text_of
from nndiag.readers.tables.row_batches import RowBatches
from nndiag.readers.tables.table import MOST_OF_LINES, Column, Table, TableBuilder, number
from nndiag.vocabulary import without_colours

MAX_LINE = 1 << 16  # characters of a line that are kept; an iteration prints some hundred
LOOKED_AT = 20  # lines at the beginning of a file that are asked whether they are JSON

Pairs = list[tuple[str, float]]


def table_of_lines(
    path: Path, pairs_of: Callable[[str], Pairs | None], kind: str, *, is_pure: bool = True
) -> Table:
    """A row for each line that `pairs_of` makes something of; None passes a line over.

    `is_pure`: what it makes of a line depends on that line alone, and values are numbers as they
    are printed. Lines that differ in their digits alone are then read by a pattern learnt from it.

    Raises:
        UnreadableLog: it cannot be read, or no line is a line of a `kind` log.
    """

    def parse(line: str) -> list[tuple[str, float]]:
        return pairs_of(without_colours(line) if "\x1b" in line else line) or []

    lines, builder = TextLines(path, MAX_LINE), TableBuilder(MOST_OF_LINES)
    batches, shapes = RowBatches(builder), LineShapes(parse, lambda names: range(len(names)))
    total = used = 0
    for block in lines.blocks():
        text, at = block.decode("utf-8", errors="replace"), 0
        while at < len(text):
            known = shapes.lines_at(text, at) if is_pure else None
            if known is not None:
                shape, rows, at = known
                total += len(rows)
                if shape is not None:
                    batches.add_to(shape, rows)
                    used += len(rows)
                continue
            end = text.find("\n", at)
            line = text[at:] if end < 0 else text[at:end]
            at += len(line) + 1
            total += 1
            pairs = parse(line)
            if pairs:
                batches.add(pairs)
                used += 1
            if is_pure:
                shapes.learn_from(line)
        batches.flush()
    if not used:
        what = f"has no line of a {kind} log" if total else "is empty"
        raise UnreadableLog(where=str(path), what=what, do="name another format: --reader text")
    remarks = [f"{used} of {total} lines hold measurements"]
    if lines.cut:
        remarks.append(f"{lines.cut} lines longer than {MAX_LINE} characters cut")
    if lines.damage:
        remarks.append(lines.damage)
    return builder.table(*remarks)


def fields(text: str, between: str, joint: str) -> Pairs:
    """(name, value) of each "name: value" with a number in it; `between` parts them."""
    pairs: Pairs = []
    for field in text.split(between):
        name, found, value = field.partition(joint)
        if found and (measured := number(value)) is not None:
            pairs.append((name.strip(), measured))
    return pairs


def present(pairs: Iterable[tuple[str, str | None]]) -> Pairs:
    """(name, value) of the texts that are numbers."""
    return [(one, v) for one, text in pairs if text and (v := number(text)) is not None]


def first_objects(head: bytes) -> list[dict[str, object]]:
    """The JSON objects on the first lines of a file."""
    objects = []
    for line in text_of(head).splitlines()[:LOOKED_AT]:
        if line.startswith("{"):
            try:
                record = json.loads(line)
            except (ValueError, RecursionError):
                continue
            objects.append(record)
    return objects


def with_columns(table: Table, changed: Iterable[Column], without: Iterable[str] = ()) -> Table:
    """The table with some columns added or replaced, and others left out."""
    columns = {**table.columns, **{column.name: column for column in changed}}
    for name in without:
        columns.pop(name, None)
    return Table(table.height, columns, table.unreadable, table.remarks)


def with_step_time(table: Table, name: str, per_second: float = 1.0) -> Table:
    """The table with `step_time_s` in place of a time of which `per_second` make a second."""
    time = table.columns.get(name)
    if time is None:
        return table
    return with_columns(table, [Column("step_time_s", time.rows, time.values / per_second)], [name])
