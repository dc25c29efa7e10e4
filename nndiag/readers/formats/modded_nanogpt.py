"""The speedruns of modded-nanogpt, and programs made from them.

The log begins with the program itself, whose text holds what a parser looks for ("step:{step}"),
then a table of GPUs. "step:125/5100 train_loss:4.1 train_time:12345ms step_avg:98.76ms"; "nanms"
in `step_avg` only says that no step has been timed yet. Several seeds may stand one after the
other. A last val_loss under another name (after quantization, say) is of another model.
"""

from __future__ import annotations

import re
from pathlib import Path

from nndiag.readers.formats.dialect import Pairs, present, table_of_lines, with_step_time
from nndiag.readers.lines.text_lines import TextLines, text_of
from nndiag.readers.tables.columns import run_of
from nndiag.records import Run

name = "modded-nanogpt"

TIME = "step_avg (ms)"
MAX_LINE = 1 << 16  # characters
LISTING_START = 4096  # characters at the beginning of a log, where the program reads itself

_LINE = re.compile(r"^step:([0-9]{1,15})/[0-9]{1,15} ((?:train|val)_loss):([-+.\w]{1,40})(.*)")
_STEP_TIME = re.compile(r" step_avg:([-+.0-9eE]{1,40})ms")
_SIGN = re.compile(
    r"^step:[0-9]{1,12}/[0-9]{1,12} (?:train|val)_loss:[-.\w]{1,24}"
    r"|step:\{step[+1 ]*\}/\{[\w. ]{1,60}\} (?:train|val)_loss:\{",
    re.MULTILINE,
)
# The program reads itself to begin its log with its text, which may be longer than the head.
_LISTING = re.compile(r"\bopen\(sys\.argv\[0\]")


def recognises(path: Path, head: bytes) -> str | None:
    """Why this looks like a speedrun's log; None if it does not."""
    if path.suffix.lower() == ".py":
        return None  # the program alone
    text = text_of(head)
    if _SIGN.search(text) or (_LISTING.search(text[:LISTING_START]) and _has_line(path)):
        return "lines of modded-nanogpt's log"
    return None


def read(path: Path, loss: str | None = None) -> Run:
    """The run in a speedrun's log; `loss` names the series to take for the loss.

    Raises:
        UnreadableLog: no line of it is a speedrun's, or no series is called `loss`.
    """
    table = with_step_time(table_of_lines(path, _pairs, name), TIME, per_second=1000)
    return run_of(table, path=str(path), format=name, loss=loss)


def _has_line(path: Path) -> bool:
    return any(_LINE.match(line) for line in TextLines(path, MAX_LINE))


def _pairs(line: str) -> Pairs | None:
    found = _LINE.match(line)
    if not found:
        return None
    step, loss, value, rest = found.groups()
    time = _STEP_TIME.search(rest)
    return present((("step", step), (loss, value), (TIME, time[1] if time else None)))
