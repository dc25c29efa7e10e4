"""Keras' CSVLogger: a row an epoch, under "epoch" and the names of the logs in alphabetical order.

What was not measured is NA; a metric with several outputs is "[a, b]", which is no number; the
separator is the user's. `append=True` goes on without a header, and each call of `fit` counts its
epochs from 0 again, whether it trains on or begins anew: the loss tells which. A program that
calls `fit` once for each epoch has 0 in every row.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from nndiag.readers.formats.csv_table import table_of
from nndiag.readers.formats.dialect import with_columns
from nndiag.readers.lines.text_lines import text_of
from nndiag.readers.tables.axis import LARGEST_STEP
from nndiag.readers.tables.columns import run_of
from nndiag.readers.tables.table import Column, Table
from nndiag.records import Run

name = "keras"

EPOCH, LOSS = "epoch", "loss"
STEP = "global_step"  # epochs, as we count them on
SEPARATORS = (",", ";", "\t", "|", " ")


def recognises(path: Path, head: bytes) -> str | None:
    """Why this looks like CSVLogger's; None if it does not."""
    lines = [line for line in text_of(head).splitlines()[:5] if line.strip()]
    if len(lines) < 2 or not lines[0].startswith(EPOCH):
        return None
    separator = lines[0][len(EPOCH) : len(EPOCH) + 1]
    if separator not in SEPARATORS:
        return None
    first, *names = lines[0].split(separator)
    own = [one for one in names if not one.startswith("val_")]
    held_out = [one for one in names if one.startswith("val_")]
    if first != EPOCH or LOSS not in names or not held_out:
        return None
    # The validation is appended where the first epoch has none, else all are sorted together
    is_ordered = names in (sorted(names), [*sorted(own), *sorted(held_out)])
    is_paired = {one.removeprefix("val_") for one in held_out} <= set(own)
    if not (is_ordered and is_paired and lines[1].split(separator)[0].isdecimal()):
        return None
    return "epoch, then the names of Keras' logs in alphabetical order"


def read(path: Path, loss: str | None = None) -> Run:
    """The run in a CSVLogger's file; `loss` names the column to take for the loss.

    Raises:
        UnreadableLog: it holds no rows, no loss, or no column called `loss`.
    """
    table, notes = _counted_on(table_of(path), loss or LOSS)
    return run_of(table, path=str(path), format=name, loss=loss, notes=notes)


def _counted_on(table: Table, by: str) -> tuple[Table, list[str]]:
    """Epochs counted on over calls of `fit` that went on training.

    A call goes on where its first loss is nearer to the last one before than to the first one of
    all, that of an untrained model (our own choice).
    """
    epochs, losses = table.columns.get(EPOCH), table.columns.get(by)
    if epochs is None or losses is None or len(epochs) < 2:
        return table, []
    back = np.flatnonzero(np.diff(epochs.values) <= 0) + 1
    if not back.size or not (np.abs(epochs.values) < LARGEST_STEP).all():  # NaN is not, either
        return table, []
    loss = losses.filled(table.height)[epochs.rows]
    steps, offset, calls = epochs.values.copy(), 0.0, 1
    for start in back.tolist():
        nearer = abs(loss[start] - loss[start - 1]) < abs(loss[start] - loss[0])
        goes_on = nearer or (start == 1 and loss[1] <= loss[0])
        if goes_on and epochs.values[start] <= epochs.values[0]:
            offset = steps[start - 1] + 1 - epochs.values[start]
            calls += 1
        else:
            offset = 0.0  # anew, or resumed at an earlier epoch: the axis knows these
        steps[start:] = epochs.values[start:] + offset
    said = [f"steps: {EPOCH!r} counted on over {calls} calls of fit that trained on"]
    return with_columns(table, [Column(STEP, epochs.rows, steps)]), said if calls > 1 else []
