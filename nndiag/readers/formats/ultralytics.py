"""Ultralytics' YOLO: `results.csv`, and what it prints.

Names and cells are padded with spaces. The terms of the loss have a column each, which differ with
the task and the release (obj_loss or dfl_loss; seg_loss, pose_loss), and there is no total. They
are written as weighted for training, so that their sum is the loss that was minimised. The same
for validation; where it was switched off, its columns are 0 throughout. Classification has one
`train/loss`. `lr/pg0` to `lr/pg2` are the rates of biases and weights: one of them warms up from
above. `time` counts on from the start. Printed is a progress bar under a line of names.
"""

from __future__ import annotations

import re
from pathlib import Path

from nndiag.readers.formats.csv_table import table_of
from nndiag.readers.formats.dialect import Pairs, present, table_of_lines, with_columns
from nndiag.readers.lines.text_lines import head_of, text_of
from nndiag.readers.tables.columns import run_of
from nndiag.readers.tables.table import Table
from nndiag.records import Run
from nndiag.vocabulary import describe, without_colours

name = "ultralytics"

_TERM = re.compile(r"train/(?:[a-z0-9_]{1,20}_)?loss")
_RATE = re.compile(r"(?:lr/pg|x/lr)[0-9]")
_NAMES = re.compile(r"^ {0,40}Epoch {1,40}(?:GPU_mem|gpu_mem) {1,40}([^ ].{0,2000})$")
_ROW = re.compile(
    r"^ {0,40}([0-9]{1,7})/([0-9]{1,7}) {1,40}([0-9.]{1,12}G?) {1,40}([^ :][^:]{0,1000})"
    r": {1,40}([0-9]{1,3})%"
)


def recognises(path: Path, head: bytes) -> str | None:
    """Why this looks like ultralytics'; None if it does not."""
    lines = text_of(head).splitlines()
    if not lines:
        return None
    names = [cell.strip() for cell in lines[0].split(",")]
    if names[0] == "epoch" and any(map(_TERM.fullmatch, names)) and any(map(_RATE.match, names)):
        return "the columns of ultralytics' results.csv"
    if any(_names_in(without_colours(line)) for line in lines if "Epoch" in line):
        return "ultralytics' table of epochs"
    return None


def read(path: Path, loss: str | None = None) -> Run:
    """The run in ultralytics' log; `loss` names the column to take for the loss.

    Raises:
        UnreadableLog: it is none of theirs, or no column is called `loss`.
    """
    if text_of(head_of(path)).lstrip().startswith("epoch"):
        table, notes = _without_empty_validation(table_of(path))
    else:
        table, notes = table_of_lines(path, _Printed().pairs, name, is_pure=False), []
        notes.append("printed losses are means of their epoch so far: the last of each counts")
    return run_of(table, path=str(path), format=name, loss=loss, notes=notes)


def _without_empty_validation(table: Table) -> tuple[Table, list[str]]:
    """Without the losses of a validation that was switched off."""
    held_out = [
        column
        for one, column in table.columns.items()
        if describe(one).split == "val" and describe(one).family == "loss"
    ]
    if len(table.columns) and held_out and all((c.values == 0).all() for c in held_out):
        note = "the validation losses are 0 throughout: taken for a validation switched off"
        return with_columns(table, (), [column.name for column in held_out]), [note]
    return table, []


class _Printed:
    """Rows of a progress bar, under the newest line of names."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def pairs(self, line: str) -> Pairs | None:
        names = _names_in(line)
        if names:
            self.names = names
            return None
        found = _ROW.match(line) if self.names else None
        if not found or found[5] != "100":
            return None
        cells = found[4].split()
        if len(cells) != len(self.names):
            return None
        measured = zip(self.names, cells, strict=True)
        losses = present((f"train/{_whole(one)}", cell) for one, cell in measured if _is_loss(one))
        return [("epoch", float(found[1])), *losses]


def _names_in(line: str) -> list[str]:
    """The names over the bars of an epoch; none in another line."""
    found = _NAMES.match(line)
    names = found[1].split() if found else []
    return names if any(map(_is_loss, names)) else []


def _is_loss(name: str) -> bool:
    return name in ("box", "obj", "cls", "dfl", "seg", "loss") or name.endswith("_loss")


def _whole(name: str) -> str:
    return name if name.endswith("loss") else f"{name}_loss"
