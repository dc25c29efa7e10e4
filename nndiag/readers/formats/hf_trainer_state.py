"""Hugging Face `trainer_state.json`, which the Trainer puts into every checkpoint.

Of several evaluation sets each has its own loss, `eval_<set>_loss`, in rows of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from nndiag.errors import UnreadableLog
from nndiag.readers.formats.json_lines import document_of, table_of
from nndiag.readers.lines.text_lines import text_of
from nndiag.readers.tables.columns import run_of
from nndiag.records import Run
from nndiag.vocabulary import describe

name = "hf-trainer-state"

# transformers.TrainingArguments.logging_nan_inf_filter is on by default: a training loss that is
# not finite is replaced by the running mean, an evaluation loss is dropped.
FILTERED = (
    "the Trainer hides NaN and infinite losses from this log (logging_nan_inf_filter): "
    "whether there were any cannot be told"
)
WHOLE = "eval_loss"  # where there is one evaluation set
SETTINGS = ("train_batch_size", "num_train_epochs", "max_steps", "logging_steps", "eval_steps")
SUMMARY = ("train_runtime", "total_flos")  # fields of the row that closes a training


def recognises(path: Path, head: bytes) -> str | None:
    """Why this looks like a trainer state; None if it does not."""
    text = text_of(head).lstrip()
    if text.startswith("{") and '"log_history"' in text:
        return "a JSON object with log_history"
    if path.name == "trainer_state.json" and text.startswith("{"):
        return "it is called trainer_state.json"  # log_history may stand behind a long parameter
    return None


def read(path: Path, loss: str | None = None) -> Run:
    """The run in a trainer state; `loss` names the series to take for the loss.

    Raises:
        UnreadableLog: it has no history, no loss in it, or no series called `loss`.
    """
    document = document_of(path)
    history = document.get("log_history") if isinstance(document, dict) else None
    if not isinstance(history, list) or not history:
        what = "its log_history is empty" if history == [] else "has no log_history"
        do = "the Trainer writes it every logging_steps; read a later checkpoint"
        raise UnreadableLog(where=str(path), what=what, do=do)
    rows = [row for row in history if not (isinstance(row, dict) and _is_summary(row))]
    left_out = len(history) - len(rows)
    remarks = [f"{left_out} summary rows left out"] if left_out and rows else []
    table = table_of(rows or history, *remarks)
    sets = [own for own in table.columns if _is_of_a_set(own)]
    first = f"of {len(sets)} evaluation sets the first one is taken for the validation"
    run = run_of(
        table,
        path=str(path),
        format=name,
        loss=loss,
        notes=(FILTERED, *([first] if len(sets) > 1 and WHOLE not in table.columns else [])),
        blind=("loss non-finite",),
        held_out=sets[0] if sets else "",
    )
    return replace(run, environment=tuple(_settings(document)))


def _settings(document: Any) -> Iterator[tuple[str, str]]:
    """The settings of the training that the state repeats."""
    for key in SETTINGS:
        value = document.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            yield key, f"{value:g}"


def _is_of_a_set(column: str) -> bool:
    """ "eval_math_loss", the loss on one of several evaluation sets, and not on a training set."""
    is_so = column != WHOLE and column.startswith("eval_") and column.endswith("_loss")
    return is_so and describe(column).split in ("val", "test")


def _is_summary(row: dict[str, object]) -> bool:
    return "loss" not in row and any(field in row for field in SUMMARY)
