"""Keras' History saved as JSON: {"loss": [0.9, 0.5], "val_loss": [0.8, 0.6]}, a value an epoch."""

from __future__ import annotations

import re
from pathlib import Path

from nndiag.readers.formats.json_lines import table_of_file
from nndiag.readers.lines.text_lines import text_of
from nndiag.readers.tables.columns import run_of
from nndiag.records import Run

name = "keras-history"

SETTINGS = frozenset(["lr", "learning_rate"])
_LIST = re.compile(r'"([^"\\]{1,80})"\s{0,40}:\s{0,40}\[')
_KEY = re.compile(r'"([^"\\]{1,80})"\s{0,40}:')


def recognises(path: Path, head: bytes) -> str | None:
    """Why this looks like a History; None if it does not."""
    text = text_of(head)
    if not text.lstrip().startswith("{"):
        return None
    names = _LIST.findall(text)
    if len(names) != len(_KEY.findall(text)) or "loss" not in names:
        return None
    plain = {one.removeprefix("val_") for one in names}
    held_out = {one.removeprefix("val_") for one in names if one.startswith("val_")}
    is_cut = len(text) > 60_000
    if "val_loss" not in names and not (is_cut or SETTINGS & plain):
        return None
    if not is_cut and not held_out <= set(names):
        return None
    return "an object of lists, loss and val_loss, as in Keras' History"


def read(path: Path, loss: str | None = None) -> Run:
    """The run in a History; `loss` names the series to take for the loss.

    Raises:
        UnreadableLog: it is no JSON, has no lists of numbers, or no series called `loss`.
    """
    note = "one point per epoch, counted from 0"
    table = table_of_file(path)
    return run_of(table, path=str(path), format=name, loss=loss, notes=(note,))
