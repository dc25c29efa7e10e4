"""Whatever a training printed: lines such as "step 250: loss 2.4", in any of the usual styles.

Logs hold more than measurements: the program's own source, a configuration, a GPU table. A line
counts if it has a metric in it that we know; if most values of a series stand beside a step, those
that do not are left out.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nndiag.errors import UnreadableLog
from nndiag.readers.columns import run_of
from nndiag.readers.table import Column, Table, TableBuilder
from nndiag.readers.text_lines import TextLines, encoding_of, text_of
from nndiag.records import Run
from nndiag.vocabulary import MAX_LINE, describe, numbers_in

name = "text"

MAX_CHARACTERS = 1 << 20  # of a line; the NULs that a truncated log may begin with count too
MOSTLY = 0.8  # of the values of a series
_METRICS = frozenset(["loss", "error", "accuracy"])
_POSITIONS = frozenset(["step", "epoch"])


def recognises(path: Path, head: bytes) -> str | None:
    """Why this looks like printed metrics; None if it does not."""
    for i, line in enumerate(text_of(head).splitlines()):
        for label, _ in numbers_in(line):
            if describe(label).family == "loss":
                return f"line {i + 1} prints {label!r}"
    # a long preamble may hide it: a log has no other name than these
    if encoding_of(head) and head and path.suffix.lower() in (".log", ".out", ".txt", ".err", ""):
        return "it is a text"
    return None


def read(path: Path, loss: str | None = None) -> Run:
    """The run in a printed log; `loss` names the series to take for the loss.

    Raises:
        UnreadableLog: no line in it prints a loss, or no series is called `loss`.
    """
    lines, builder = TextLines(path, MAX_CHARACTERS), TableBuilder()
    used = total = cut = 0
    placed: list[bool] = []
    for line in lines:
        total += 1
        cut += len(line) > MAX_LINE
        pairs = numbers_in(line)
        if not pairs:
            continue
        families = [describe(label).family for label, _ in pairs]
        is_measurement = not _METRICS.isdisjoint(families) or loss in [label for label, _ in pairs]
        if is_measurement or _tells_networks(pairs):
            used += 1
            builder.add(pairs)
            placed.append(not _POSITIONS.isdisjoint(families))
        elif families[0] in _POSITIONS:  # "Epoch 3/10" on a line of its own
            builder.add([p for p, f in zip(pairs, families, strict=True) if f in _POSITIONS])
            placed.append(False)
    if not total:
        raise UnreadableLog(where=str(path), what="is empty")
    table = _without_strays(builder.table(), np.array(placed, dtype=bool))
    notes = [f"{used} of {total} lines hold measurements"]
    if cut:
        notes.append(f"{cut} lines longer than {MAX_LINE} characters cut")
    return run_of(table, path=str(path), format=name, loss=loss, notes=notes)


def _tells_networks(pairs: list[tuple[str, float]]) -> bool:
    """As in "D_A: 0.257 G_A: 0.556": losses of two networks that are not called losses."""
    firsts = {describe(label).words[:1] for label, _ in pairs}
    return ("d",) in firsts and ("g",) in firsts


def _without_strays(table: Table, placed: np.ndarray) -> Table:
    """Without the values that stand beside no step, in series whose values mostly do."""
    columns, strays = {}, 0
    for label, column in table.columns.items():
        beside = placed[column.rows]
        if describe(label).family in _METRICS and MOSTLY <= beside.mean() < 1:
            strays += int((~beside).sum())
            column = Column(label, column.rows[beside], column.values[beside])
        columns[label] = column
    note = (f"{strays} values without a step left out, as others of their name have one",)
    remarks = (*table.remarks, *(note if strays else ()))
    return Table(table.height, columns, table.unreadable, remarks)
