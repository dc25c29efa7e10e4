"""detectron2: `metrics.json` (JSON lines) and the text log that stands beside it.

Both print medians of 20 iterations, so what lasts for fewer than ten cannot be seen in them. The
text has a configuration of hundreds of lines before it, terminal colours, "iter: 19  total_loss:
2.3  ..." with two spaces between the fields, and tables of AP whose NaN only say that a class has
no instance. A training that meets a loss that is not finite stops with an error that names it.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

from nndiag.readers.formats.dialect import (
    Pairs,
    fields,
    first_objects,
    table_of_lines,
    with_step_time,
)
from nndiag.readers.formats.json_lines import table_of_file
from nndiag.readers.lines.text_lines import head_of, text_of
from nndiag.readers.tables.columns import run_of
from nndiag.readers.tables.table import Table
from nndiag.records import Run

name = "detectron2"

MEDIANS = "detectron2 logs medians of 20 iterations: what lasts for fewer than 10 is hidden"
BLIND = ("what lasts for fewer than 10 iterations",)
_ITERATION = re.compile(r"(?:^|  |: +)iter: ([0-9]{1,15})  (.*)")
_FAILED = re.compile(r"Loss became infinite or NaN at iteration=([0-9]{1,12})")
_SIGN = re.compile(
    r"\b(?:d2\.utils\.events|detectron2\.utils\.events)(?:\]| INFO)"
    r"|^\[[0-9/]{5} [0-9:]{8} detectron2\]: "
    r"|\] detectron2 INFO: (?:Rank of current process|Environment info)",
    re.MULTILINE,
)
_OWN_KEYS = ("total_loss", "data_time", "eta_seconds")


def recognises(path: Path, head: bytes) -> str | None:
    """Why this looks like detectron2's log; None if it does not."""
    text = text_of(head)
    if text.lstrip().startswith("{"):
        for record in first_objects(head)[:3]:
            if "iteration" in record and sum(key in record for key in _OWN_KEYS) >= 2:
                return "JSON lines with detectron2's iteration, total_loss and data_time"
        return None
    plain = text if "\x1b" not in text else re.sub("\x1b\\[[0-9;]{0,8}m", "", text)
    return "lines of detectron2's loggers" if _SIGN.search(plain) else None


def read(path: Path, loss: str | None = None) -> Run:
    """The run in detectron2's log; `loss` names the series to take for the loss.

    Raises:
        UnreadableLog: no record of it is detectron2's, or no series is called `loss`.
    """
    is_json = text_of(head_of(path)).lstrip().startswith("{")
    table = table_of_file(path) if is_json else table_of_lines(path, _pairs, name)
    return run_of(
        _with_step_time(table),
        path=str(path),
        format=name,
        loss=loss,
        notes=(MEDIANS,),
        blind=BLIND,
    )


def _pairs(line: str) -> Pairs | None:
    if "iter: " in line:
        found = _ITERATION.search(line)
        if found:
            measured = fields(found[2], "  ", ":")
            if any("loss" in key for key, _ in measured):
                return [("iteration", float(found[1])), *measured]
    elif "Loss became infinite" in line:
        found = _FAILED.search(line)
        if found:
            return [("iteration", float(found[1])), ("total_loss", math.nan)]
    return None


def _with_step_time(table: Table) -> Table:
    """`time` is the seconds of an iteration; newer releases print their mean and `last_time`."""
    return with_step_time(table, "last_time" if "last_time" in table.columns else "time")
