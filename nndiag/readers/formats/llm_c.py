"""llm.c: what it prints, and its `main.log`; modded-nanogpt's speedruns began with the latter.

Printed: "step    1/18865 | loss 11.01 (+nanz)| norm 15.3 (+nanz)| lr 8.57e-07 | 3010.07 ms | ...";
"+nanz" is a z-score that has no history yet and no fault. "val loss 10.9" stands on a line of its
own, before the step that follows it. `main.log` has "s:0 tel:10.9" (validation loss), "s:0 eval:
0.29" (HellaSwag accuracy, no loss) and "s:0 trl:10.9 lr:0.000001 norm:15.3".
"""

from __future__ import annotations

import re
from pathlib import Path

from nndiag.readers.formats.dialect import (
    Pairs,
    present,
    table_of_lines,
    with_columns,
    with_step_time,
)
from nndiag.readers.lines.text_lines import text_of
from nndiag.readers.tables.columns import run_of
from nndiag.records import Run

name = "llm.c"

TIME = "time (ms)"
SKIPPED = "outlier"
_WHOLE = "([0-9]{1,15})"
_VALUE = r"([-+.\w]{1,40})"
_SCORE = r"(?: \([^)]{1,40}\))? ?"
_LINES = (
    (
        re.compile(
            rf"^step +{_WHOLE}/[0-9]{{1,15}} \| (?:train )?loss {_VALUE}{_SCORE}\| norm {_VALUE}"
            rf"{_SCORE}\| lr {_VALUE} \| \(?{_VALUE} ms"
        ),
        ("step", "loss", "norm", "lr", TIME),
    ),
    (re.compile(rf"^val loss {_VALUE}$"), ("val loss",)),
    (re.compile(rf"^skipping update due to (?:loss|grad) z-score of {_VALUE}$"), (SKIPPED,)),
    (
        re.compile(
            rf"^s:{_WHOLE} (?:tel:{_VALUE}|eval:{_VALUE}|trl:{_VALUE}(?: lr:{_VALUE})?"
            rf"(?: norm:{_VALUE})?)"
        ),
        ("step", "tel", "eval accuracy", "trl", "lr", "norm"),
    ),
)
_SIGN = re.compile(
    r"^step +[0-9]{1,12}/[0-9]{1,12} \| (?:train )?loss [-+.\w]{1,24}(?: \([^)]{1,24}z\))? ?\| norm"
    r"|^s:[0-9]{1,12} (?:tel|trl|eval):[-.\w]{1,24}",
    re.MULTILINE,
)


def recognises(path: Path, head: bytes) -> str | None:
    """Why this looks like llm.c's log; None if it does not."""
    found = _SIGN.search(text_of(head))
    return f"prints {found[0][:60]!r}, as llm.c does" if found else None


def read(path: Path, loss: str | None = None) -> Run:
    """The run in llm.c's log; `loss` names the series to take for the loss.

    Raises:
        UnreadableLog: no line of it is llm.c's, or no series is called `loss`.
    """
    table = with_step_time(table_of_lines(path, _pairs, name), TIME, per_second=1000)
    skipped = table.columns.get(SKIPPED)
    notes = []
    if skipped is not None:
        notes.append(f"{len(skipped)} updates skipped as outliers of the loss or the gradient")
        table = with_columns(table, (), [SKIPPED])
    return run_of(table, path=str(path), format=name, loss=loss, notes=notes)


def _pairs(line: str) -> Pairs | None:
    for pattern, names in _LINES:
        found = pattern.match(line)
        if found:
            return present(zip(names, found.groups(), strict=True))
    return None
