"""nanoGPT's output, and that of the many programs that grew out of it.

"iter 100: loss 5.1, time 135.20ms, mfu 28.10%" is one batch; "step 250: train loss 4.9, val loss
5.0" are means over `eval_iters` batches, measured before the iteration of that number. Two words
for one count: the general reader would set an evaluation beside the iteration printed before it.
"""

from __future__ import annotations

import re
from pathlib import Path

from nndiag.readers.formats.dialect import Pairs, present, table_of_lines, with_step_time
from nndiag.readers.lines.text_lines import text_of
from nndiag.readers.tables.columns import run_of
from nndiag.records import Run

name = "nanogpt"

TIME = "time (ms)"

_ITERATION = re.compile(r"^iter ([0-9]{1,15}): loss ([-+.\w]{1,40})(?:, time ([-+.\w]{1,40}?)ms)?")
_EVALUATION = re.compile(
    r"^step ([0-9]{1,15}): train loss ([-+.\w]{1,40}), val loss ([-+.\w]{1,40})"
)
_SIGN = re.compile(
    r"^iter [0-9]{1,12}: loss [-.\w]{1,24}, time [.0-9]{1,24}ms"
    r"|^step [0-9]{1,12}: train loss [-.\w]{1,24}, val loss [-.\w]{1,24}$",
    re.MULTILINE,
)


def recognises(path: Path, head: bytes) -> str | None:
    """Why this looks like nanoGPT's output; None if it does not."""
    found = _SIGN.search(text_of(head))
    return f"prints {found[0][:60]!r}, as nanoGPT does" if found else None


def read(path: Path, loss: str | None = None) -> Run:
    """The run in nanoGPT's output; `loss` names the series to take for the loss.

    Raises:
        UnreadableLog: no line of it is nanoGPT's, or no series is called `loss`.
    """
    table = with_step_time(table_of_lines(path, _pairs, name), TIME, per_second=1000)
    notes = []
    if "loss" in table.columns and "train loss" in table.columns:
        notes.append("'loss' is one batch; 'train loss' and 'val loss' are means of many")
    return run_of(table, path=str(path), format=name, loss=loss, notes=notes)


def _pairs(line: str) -> Pairs | None:
    found = _ITERATION.match(line)
    if found:
        return present(zip(("step", "loss", TIME), found.groups(), strict=True))
    found = _EVALUATION.match(line)
    if found:
        return present(zip(("step", "train loss", "val loss"), found.groups(), strict=True))
    return None
