"""LLaMA-Factory's `trainer_log.jsonl`: one object a line, by a callback of Hugging Face's Trainer.

A line has `current_steps` and `total_steps`, times as text ("9 days, 21:39:23"), and what the
Trainer logged last; evaluations and the end of the training have lines without a loss. The losses
went through the Trainer's filter. A training that was resumed appends to the file.
"""

from __future__ import annotations

from pathlib import Path

from nndiag.readers.formats.dialect import first_objects
from nndiag.readers.formats.hf_trainer_state import FILTERED
from nndiag.readers.formats.json_lines import table_of_file
from nndiag.readers.tables.columns import run_of
from nndiag.records import Run

name = "llama-factory"

_TIMES = frozenset(["elapsed_time", "remaining_time"])


def recognises(path: Path, head: bytes) -> str | None:
    """Why this looks like LLaMA-Factory's log; None if it does not."""
    for record in first_objects(head)[:3]:
        if {"current_steps", "total_steps", "percentage"} <= record.keys():
            return "JSON lines with current_steps, total_steps and percentage"
    return None


def read(path: Path, loss: str | None = None) -> Run:
    """The run in a trainer_log.jsonl; `loss` names the series to take for the loss.

    Raises:
        UnreadableLog: it holds no records, no loss, or no series called `loss`.
    """
    table = table_of_file(path)
    table = type(table)(
        table.height,
        table.columns,
        tuple(one for one in table.unreadable if one not in _TIMES),
        table.remarks,
    )
    return run_of(
        table,
        path=str(path),
        format=name,
        loss=loss,
        notes=(FILTERED,),
        blind=("loss non-finite",),
    )
