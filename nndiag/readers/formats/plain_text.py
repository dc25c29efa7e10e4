"""Whatever a training printed: lines such as "step 250: loss 2.4", in any of the usual styles.

Logs hold more than measurements: the program's own source, a configuration, a GPU table. A line
counts if it has a metric in it that we know; if most values of a series stand beside a step, those
that do not are left out.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from nndiag.errors import UnreadableLog
from nndiag.readers.lines.line_shapes import LineShapes
from nndiag.readers.lines.text_lines import TextLines, encoding_of, suffix_of, text_of
from nndiag.readers.tables.columns import run_of
from nndiag.readers.tables.row_batches import RowBatches
from nndiag.readers.tables.table import MOST_OF_LINES, Column, Table, TableBuilder
from nndiag.records import Run
from nndiag.vocabulary import MAX_LINE, describe, numbers_in

name = "text"

MAX_CHARACTERS = 1 << 20  # of a line; the NULs that a truncated log may begin with count too
MOSTLY = 0.8  # of the values of a series
FEW = 5  # values of a series
_METRICS = frozenset(["loss", "error", "accuracy"])
_POSITIONS = frozenset(["step", "epoch"])


def recognises(path: Path, head: bytes) -> str | None:
    """Why this looks like printed metrics; None if it does not."""
    for i, line in enumerate(text_of(head).splitlines()):
        for label, _ in numbers_in(line):
            if describe(label).family == "loss":
                return f"line {i + 1} prints {label!r}"
    # a long preamble may hide it: a log has no other name than these
    if encoding_of(head) and head and suffix_of(path) in (".log", ".out", ".txt", ".err", ""):
        return "it is a text"
    return None


def read(path: Path, loss: str | None = None) -> Run:
    """The run in a printed log; `loss` names the series to take for the loss.

    Raises:
        UnreadableLog: no line in it prints a loss, or no series is called `loss`.
    """
    lines, builder = TextLines(path, MAX_CHARACTERS), TableBuilder(MOST_OF_LINES)
    batches = RowBatches(builder)
    shapes = LineShapes(numbers_in, lambda names: _wanted(names, loss))
    total = used = cut = 0
    for block in lines.blocks():
        text, at = block.decode("utf-8", errors="replace"), 0
        while at < len(text):
            known = shapes.lines_at(text, at)
            if known is not None:
                shape, rows, at = known
                total += len(rows)
                if shape is not None:
                    batches.add_to(shape, rows)
                continue
            end = text.find("\n", at)
            line = text[at:] if end < 0 else text[at:end]
            at += len(line) + 1
            total += 1
            cut += len(line) > MAX_LINE
            pairs = numbers_in(line)
            if pairs:
                kept = _wanted([label for label, _ in pairs], loss)
                if kept:
                    batches.add([pairs[i] for i in kept])
                    used += _holds_measurements([pairs[i][0] for i in kept])
            shapes.learn_from(line)
        used += sum(len(s.rows) for s in batches.shapes if _holds_measurements(s.names))
        batches.flush()
    if not total:
        raise UnreadableLog(where=str(path), what="is empty")
    notes = [f"{used} of {total} lines hold measurements"]
    if cut:
        notes.append(f"{cut} lines longer than {MAX_LINE} characters cut")
    if lines.damage:
        notes.append(lines.damage)
    table = _without_strays(builder.table(), loss)
    return run_of(table, path=str(path), format=name, loss=loss, notes=notes)


def _wanted(names: Sequence[str], loss: str | None) -> Sequence[int]:
    """Which of the numbers of a line are measurements, or say where in the run those are."""
    families = [describe(label).family for label in names]
    is_measurement = not _METRICS.isdisjoint(families) or loss in names
    if is_measurement or _tells_networks(names):
        return range(len(names))
    if families and families[0] in _POSITIONS:  # "Epoch 3/10" on a line of its own
        return [i for i, family in enumerate(families) if family in _POSITIONS]
    return ()


def _holds_measurements(names: Sequence[str]) -> bool:
    return any(describe(label).family not in _POSITIONS for label in names)


def _tells_networks(names: Sequence[str]) -> bool:
    """As in "D_A: 0.257 G_A: 0.556": losses of two networks that are not called losses."""
    firsts = {describe(label).words[:1] for label in names}
    return ("d",) in firsts and ("g",) in firsts


def _without_strays(table: Table, loss: str | None) -> Table:
    """Without the values that stand beside no step, in series whose values mostly do.

    Where there are such series, a loss of up to `FEW` values, all beside none, goes too unless it
    names its split: it is of the program's own text, "total_loss = 0".
    """
    placed = np.zeros(table.height, dtype=bool)
    for label, column in table.columns.items():
        if describe(label).family in _POSITIONS:
            placed[column.rows] = True
    if placed.all():
        return table
    metrics = {
        label: placed[column.rows]
        for label, column in table.columns.items()
        if describe(label).family in _METRICS
    }
    most = max((beside.size for beside in metrics.values() if beside.mean() >= MOSTLY), default=0)
    columns, strays = {}, 0
    for label, column in table.columns.items():
        beside = metrics.get(label)
        is_few = beside is not None and beside.size <= min(FEW, most / 2) and not beside.any()
        if is_few and not describe(label).split and label != loss:
            strays += column.rows.size
            continue
        if beside is not None and MOSTLY <= beside.mean() < 1:
            strays += int((~beside).sum())
            column = Column(label, column.rows[beside], column.values[beside])
        columns[label] = column
    note = (f"{strays} values without a step left out, as others have one",)
    remarks = (*table.remarks, *(note if strays else ()))
    return Table(table.height, columns, table.unreadable, remarks)
