"""Megatron-LM's and Megatron-DeepSpeed's printed log, and the golden values of Megatron's tests.

Text: " iteration  100/ 500000 | consumed samples: ... | lm loss: 1.0E+01 | ... |", the means of an
interval, and " validation loss at iteration 1000 | lm loss value: 5.1E+00 | lm loss PPL: ... |".
A loss that is not finite is not printed at all: its field is missing, which is evidence. Of
iterations that the loss scaler skipped some releases print a loss of 0, which is none.
JSON: {"lm loss": {"start_step": 1, "step_interval": 5, "values": {"1": 10.4, "2": "nan"}}}, where
"nan" fills the steps that were not logged.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from nndiag.readers.formats.dialect import (
    Pairs,
    fields,
    table_of_lines,
    with_columns,
    with_step_time,
)
from nndiag.readers.formats.json_lines import table_of_file
from nndiag.readers.lines.text_lines import head_of, text_of
from nndiag.readers.tables.columns import run_of
from nndiag.readers.tables.table import Column, Table
from nndiag.records import Run

name = "megatron"

SKIPPED = "number of skipped iterations"
NONFINITE = "number of nan iterations"
_ITERATION = re.compile(r"\biteration +([0-9]{1,15})/ *[0-9]{1,15} \|(.*)")
_VALIDATION = re.compile(
    r"\b(validation|test)(-[\w.-]{1,60})? loss at (?:iteration ([0-9]{1,15})|the end of training)"
    r"([^|]{0,80})\|(.*)"
)
_VALIDATED = re.compile(r"(?:validation|test)\b")
_SIGN = re.compile(r"\biteration +[0-9]{1,15}/ *[0-9]{1,15} \| (?:consumed samples|elapsed time)")
_PREAMBLE = "arguments -----"
_GOLDEN = re.compile(r'"start_step": [0-9]{1,15},\s+"end_step": [0-9]{1,15},\s+"step_interval"')
STEP_TIME = "elapsed time per iteration (s)"
STEP_TIME_MS = "elapsed time per iteration (ms)"


def recognises(path: Path, head: bytes) -> str | None:
    """Why this looks like Megatron's; None if it does not."""
    text = text_of(head)
    if text.lstrip().startswith("{"):
        return "Megatron's golden values" if _GOLDEN.search(text) else None
    if _SIGN.search(text):
        return "lines of Megatron's training log"
    if _PREAMBLE in text and "tensor_model_parallel_size ....." in text:
        return "Megatron's listing of its arguments"
    return None


def read(path: Path, loss: str | None = None) -> Run:
    """The run in Megatron's log; `loss` names the series to take for the loss.

    Raises:
        UnreadableLog: no line of it is Megatron's, or no series is called `loss`.
    """
    where = str(path)
    if _is_json(path):
        table = table_of_file(path)
        return run_of(table, path=where, format=name, loss=loss, nan_may_be_blank=True)
    table, notes = _with_unprinted(table_of_lines(path, _pairs, name))
    table = with_step_time(with_step_time(table, STEP_TIME), STEP_TIME_MS, per_second=1000)
    return run_of(table, path=where, format=name, loss=loss, notes=notes)


def _is_json(path: Path) -> bool:
    return text_of(head_of(path)).lstrip().startswith("{")


def _pairs(line: str) -> Pairs | None:
    if "iteration" not in line and "loss at" not in line:
        return None
    found = _ITERATION.search(line)
    if found:
        return [("iteration", float(found[1])), *fields(found[2], "|", ":")]
    found = _VALIDATION.search(line)
    return _of_validation(found) if found else None


def _with_unprinted(table: Table) -> tuple[Table, list[str]]:
    """The losses with what Megatron does not print of them, and what only its counts tell."""
    if "iteration" not in table.columns:
        return table, []
    steps = table.columns["iteration"].filled(table.height)
    skipped, nonfinite = (_dense(table, one) for one in (SKIPPED, NONFINITE))
    notes = []
    for counts, what in (
        (skipped, "iterations skipped by the loss scaler"),
        (nonfinite, "iterations with a loss that was not finite"),
    ):
        if counts.any():
            first = steps[np.flatnonzero(counts)[0]]
            notes.append(f"{int(counts.sum())} {what}, the first up to iteration {first:.0f}")
    changed, missing, zeros = [], np.zeros(table.height, dtype=bool), 0
    of_training = np.zeros(table.height, dtype=bool)
    if SKIPPED in table.columns:
        of_training[table.columns[SKIPPED].rows] = True
    for column in table.columns.values():
        if not column.name.endswith("loss") or _VALIDATED.match(column.name) or not len(column):
            continue
        values = np.full(table.height, np.nan)
        values[column.rows] = column.values
        is_printed = np.zeros(table.height, dtype=bool)
        is_printed[column.rows] = True
        is_zero = is_printed & (values == 0) & (skipped > 0)
        values[is_zero] = np.nan
        since_first = np.arange(table.height) > column.rows[0]
        lost = of_training & ~is_printed & since_first & ((skipped == 0) | (nonfinite > 0))
        kept = (is_printed & ~is_zero) | lost | (is_zero & (nonfinite > 0))
        zeros, missing = zeros + int(is_zero.sum()), missing | lost
        changed.append(Column(column.name, np.flatnonzero(kept), values[kept]))
    if missing.any():
        first = steps[np.flatnonzero(missing)[0]]
        notes.append(
            f"{int(missing.sum())} times the loss is not printed, which Megatron does when it is "
            f"not finite: read as NaN, first at iteration {first:.0f}"
        )
    if zeros:
        notes.append(f"{zeros} losses of 0 left out: all their iterations were skipped")
    return with_columns(table, changed, (SKIPPED, NONFINITE)), notes


def _dense(table: Table, name: str) -> np.ndarray:
    """(height,) The values of a column of counts, 0 where it has none."""
    counts = np.zeros(table.height)
    column = table.columns.get(name)
    if column is not None:
        is_count = np.isfinite(column.values) & (column.values > 0) & (column.values < 2**53)
        counts[column.rows[is_count]] = column.values[is_count]
    return counts


def _of_validation(found: re.Match[str]) -> Pairs | None:
    kind, of_set, iteration, where, rest = found.groups()
    split = "test" if kind == "test" or "test set" in where or "test data" in where else kind
    row: Pairs = []
    if iteration:
        row.append(("iteration", float(iteration)))
    for key, value in fields(rest, "|", ":"):
        plain = key.removesuffix(" value")
        if plain != key:
            row.append((f"{split}{of_set or ''} {plain}", value))
        elif key.endswith("PPL"):
            row.append((f"{split}{of_set or ''} {key}", value))
    return row or None
