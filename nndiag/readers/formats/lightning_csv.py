"""Lightning's `metrics.csv`, as its CSVLogger writes it.

Columns in alphabetical order with `step` among them; a row for each call of `log`, so training and
validation never share one, and the mean of an epoch stands in a row of its own with the number of
the step before. `step` counts the steps of all optimizers together. A value "on_step" is that of
one batch in `log_every_n_steps`. The logger begins each start anew in another `version_N`.
"""

from __future__ import annotations

from pathlib import Path

from nndiag.readers.formats.csv_table import table_of
from nndiag.readers.lines.text_lines import text_of
from nndiag.readers.tables.columns import run_of
from nndiag.records import Run

name = "lightning"

FILE = "metrics.csv"


def recognises(path: Path, head: bytes) -> str | None:
    """Why this looks like Lightning's metrics; None if it does not."""
    lines = text_of(head).splitlines()[:50]
    if path.name != FILE or len(lines) < 2 or '"' in lines[0]:
        return None
    names = lines[0].split(",")
    if not {"epoch", "step"} <= set(names) or names != sorted(names) or len(names) < 3:
        return None
    in_turns = any("" in line.split(",") for line in lines[1:-1] or lines[1:])
    if not (path.parent.name.startswith("version_") or in_turns or b"\r\n" in head[:4096]):
        return None
    return "metrics.csv with epoch and step among columns in alphabetical order"


def read(path: Path, loss: str | None = None) -> Run:
    """The run in a metrics.csv; `loss` names the column to take for the loss.

    Raises:
        UnreadableLog: it holds no rows, no loss, or no column called `loss`.
    """
    return run_of(table_of(path), path=str(path), format=name, loss=loss)
