"""OpenMMLab: `*.log.json` and text logs of mmcv, `scalars.json` and text logs of mmengine.

mmcv's JSON lines begin with an object of env_info; `iter` starts again with each epoch; a record
of validation has mode "val", and its `iter` is the length of an epoch or of the validation set.
mmengine's records have a global `step`, but those of a validation have the epoch in its place.
Text: "Epoch [1][50/7330]  lr: 1.9e-03, eta: ..., loss: 1.7" and "Epoch(train)  [1][ 50/7330]  lr:
1.9e-03  eta: ...  loss: 1.7"; "Iter" instead of "Epoch" where a run counts iterations alone. The
losses are means over the iterations since the record before (mmengine: the last ten).
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from nndiag.readers.formats.dialect import (
    Pairs,
    first_objects,
    present,
    table_of_lines,
    with_columns,
    with_step_time,
)
from nndiag.readers.formats.json_lines import table_of_file
from nndiag.readers.lines.text_lines import head_of, text_of
from nndiag.readers.tables.columns import run_of
from nndiag.readers.tables.table import Column, Table
from nndiag.records import Run
from nndiag.vocabulary import describe

name = "mmengine"

STEP = "global_step"  # as we call it: the log has only epoch and iter
SCALARS = "scalars.json"
WITHIN, LENGTH = "iteration of the epoch", "iterations of an epoch"
_LINE = re.compile(
    r"\b(Epoch|Iter)(?:\((train|val|test)\))? *\[ *([0-9]{1,15})(?:/[0-9]{1,15})?\]"
    r"(?:\[ *([0-9]{1,15})(?:/([0-9]{1,15}))?\])?[ \t](.*)"
)
_FIELD = re.compile(r"(?<![\w./@-])([A-Za-z_][\w./@ -]{0,60}): ([-+.\w]{1,40})(?=[,\s]|$)")
_SIGN = re.compile(
    r" - mmengine - INFO - "
    r"| - (?:mm[a-z0-9]{2,16}|root) - INFO - (?:Epoch|Iter)(?:\(val\))? ?\["
    r"|\] *(?:mm[a-z0-9]{2,16}) - INFO - (?:Epoch|Iter) \[",
)
_ENVIRONMENT = re.compile(r'^\s*\{"env_info": "|^\s*\{"exp_name": "[^"]{0,200}", "(?:mmcv|hook)')
_CLOCKS = frozenset(["eta"])


def recognises(path: Path, head: bytes) -> str | None:
    """Why this looks like a log of OpenMMLab's; None if it does not."""
    text = text_of(head)
    if not text.lstrip().startswith("{"):
        return "lines of OpenMMLab's loggers" if _SIGN.search(text) else None
    if _ENVIRONMENT.match(text):
        return "JSON lines after mmcv's env_info"
    for record in first_objects(head)[:3]:
        if record.get("mode") in ("train", "val") and {"epoch", "iter"} <= record.keys():
            return "JSON lines with mmcv's mode, epoch and iter"
        if {"step", "data_time", "time"} <= record.keys() and (
            "iter" in record or path.name == SCALARS
        ):
            return "JSON lines with mmengine's step and data_time"
    return None


def read(path: Path, loss: str | None = None) -> Run:
    """The run in a log of OpenMMLab's; `loss` names the series to take for the loss.

    Raises:
        UnreadableLog: no record of it is mmengine's, or no series is called `loss`.
    """
    is_json = text_of(head_of(path)).lstrip().startswith("{")
    table = table_of_file(path) if is_json else table_of_lines(path, _pairs, name)
    table, notes = _resumed_in_an_epoch(_over_epochs(table))
    table = with_step_time(table, "time")
    return run_of(table, path=str(path), format=name, loss=loss, notes=notes)


def _pairs(line: str) -> Pairs | None:
    if "Epoch" not in line and "Iter" not in line:
        return None
    found = _LINE.search(line)
    if not found:
        return None
    unit, mode, first, second, length, rest = found.groups()
    values = present(
        (key.strip(), text) for key, text in _FIELD.findall(rest) if key.strip() not in _CLOCKS
    )
    if mode in ("val", "test"):
        return [(_held_out(key, mode), value) for key, value in values] or None
    if not any("loss" in key for key, _ in values):
        return None
    if unit == "Iter":
        return [("iter", float(first)), *values]
    if not second or not length:
        return None
    return [("epoch", float(first)), (WITHIN, float(second)), (LENGTH, float(length)), *values]


def _over_epochs(table: Table) -> Table:
    """Steps of a text log, which prints how long an epoch is."""
    within, length = table.columns.get(WITHIN), table.columns.get(LENGTH)
    if within is None or length is None:
        return table
    before = table.columns["epoch"].filled(table.height)[within.rows] - 1
    step = Column(STEP, within.rows, before * length.values + within.values)
    return with_columns(table, [step], [WITHIN, LENGTH])


def _held_out(key: str, mode: str) -> str:
    meaning = describe(key)
    named = meaning.family in ("loss", "accuracy", "error") and not meaning.split
    return f"{mode}/{key}" if named or key in ("time", "data_time") else key


def _resumed_in_an_epoch(table: Table) -> tuple[Table, list[str]]:
    """Steps of a JSON log of one late epoch, which no second epoch tells to count from 0.

    Iterations that ran on over epochs would be at least as many as the epochs before hold.
    """
    epochs, iterations = table.columns.get("epoch"), table.columns.get("iter")
    losses = [c for n, c in table.columns.items() if describe(n).metric == "loss"]
    if epochs is None or iterations is None or "step" in table.columns or not losses:
        return table, []
    of_loss = np.isin(iterations.rows, losses[0].rows)
    epoch, own = epochs.filled(table.height)[losses[0].rows], iterations.values[of_loss]
    if not own.size or not np.isfinite(own).all() or (epoch != epoch[0]).any():
        return table, []
    before = epoch[0] - 1
    if not 0 < before < 1e6 or own.max() > 2**40 or own.min() > before * (own.max() - own.min()):
        return table, []
    values = before * own.max() + iterations.values
    note = f"steps: 'iter' of epoch {epoch[0]:g} counted on from {before:g} epochs as long"
    return with_columns(table, [Column(STEP, iterations.rows, values)]), [note]
