"""`watch --wandb`, at its two ends: whether it can be done, and what was done."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nndiag.cli import exporting
from nndiag.cli.exporting import counted
from nndiag.errors import MissingLibrary, NndiagError

if TYPE_CHECKING:
    from nndiag.records import Diagnosis

MARKS = "wandb-*.json"  # what the training process leaves: see watcher/wandb_mirror.py
INSTALL = "pip install 'nndiag[wandb]'"


def check(program: str) -> str:
    """What to say before the start, if anything; `program` is what the command starts.

    A script under our own Python cannot have a W&B run where wandb is missing, nor can we make one:
    raises `MissingLibrary`. One that runs elsewhere may have its own.
    """
    found = find_spec("wandb")
    if found is not None and found.origin:  # the folder ./wandb of earlier runs has none
        return ""
    if program == sys.executable:
        raise MissingLibrary(command="nndiag watch --wandb", library="wandb", extra="wandb")
    return (
        "wandb is missing beside nndiag, so only a W&B run of the script's own will be written to; "
        f"for others: {INSTALL}"
    )


def lines(run: Path, shown: str, diagnoses: Sequence[Diagnosis]) -> Iterator[str]:
    """What became of it. Where the script had no W&B run of its own, one is written now."""
    marks = [mark for mark in map(_read, sorted(run.glob(MARKS))) if _took_part(mark)]
    if marks:
        yield _of_the_scripts(marks, shown)
        return
    if len(diagnoses) != 1:
        return
    yield "W&B: the script had no run of its own: writing one"
    from nndiag.exports.tables import tables_of

    try:
        yield from exporting.told(exporting.into_wandb(tables_of(diagnoses[0]), run.name))
    except NndiagError as error:
        yield f"W&B: nothing was written: {error.what}"
        yield f"to try again: nndiag export {shown} --to wandb"


def _of_the_scripts(marks: Sequence[dict[str, Any]], shown: str) -> str:
    """One line for all runs that the script had."""
    ids = ", ".join(str(mark.get("id")) for mark in marks[:4]) + (", ..." if len(marks) > 4 else "")
    rows = counted(sum(mark.get("rows", 0) for mark in marks), "row")
    findings = counted(sum(mark.get("findings", 0) for mark in marks), "finding")
    alerts = counted(sum(mark.get("alerts", 0) for mark in marks), "alert")
    untold = sum("verdict" not in mark for mark in marks)
    rows += " or more" if untold else ""
    text = f"W&B: {rows}, {findings} and {alerts} in the script's own run {ids}"
    if reasons := [mark["failed"] for mark in marks if mark.get("failed")]:
        text += f"; ended by {reasons[0]}"
    elif untold:
        text += f"; {untold} of them without findings: killed, or one of many short ones"
    return f"{text}; every step and layer: nndiag export {shown} --to wandb"


def _took_part(mark: dict[str, Any]) -> bool:
    """Whether something was trained while that run was open."""
    return bool(mark.get("rows") or mark.get("failed") or "verdict" in mark)


def _read(path: Path) -> dict[str, Any]:
    try:
        mark = json.loads(path.read_text(encoding="utf-8", errors="replace"))
    except (OSError, ValueError):
        return {}
    return mark if isinstance(mark, dict) else {}
