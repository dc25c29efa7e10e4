"""Which column of a W&B history counts optimizer steps.

`_step` counts calls of `wandb.log` unless the caller says otherwise. Frameworks log their own count
beside it (`trainer/global_step`, `train/global_step`, `iter`): that one is taken where it is there
in the loss's rows and never goes back while `_step` goes on. One that does starts again each epoch,
and `_step` is better. Where a run was resumed, both may go back.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from nndiag.errors import UnreadableLog
from nndiag.readers.tables.axis import LARGEST_STEP, MIN_COVERAGE
from nndiag.readers.tables.loss_choice import choose
from nndiag.readers.tables.table import Table
from nndiag.readers.wandb.wandb_history import STEP
from nndiag.vocabulary import step_axis


def with_one_axis(table: Table, loss: str | None, starts: Sequence[int]) -> tuple[Table, list[str]]:
    """The table without the columns that count steps less well than another, and what to say.

    `starts` are the rows where a part of a resumed run begins.
    """
    names = step_axis(table.columns)
    others = [name for name in (names.step, *names.others) if name and name != STEP]
    if not others or STEP not in table.columns:
        return table, []
    try:
        choice = choose(table, loss, "")
    except UnreadableLog:  # it will be raised again, with the path
        return table, []
    parts = [part for chosen in choice.losses for part in chosen.parts]
    rows = np.unique(np.concatenate([table.columns[part].rows for part in parts]))
    best = next((name for name in others if _counts_on(table, name, rows, starts)), STEP)
    left_out = {*others, STEP} - {best}
    kept = {name: column for name, column in table.columns.items() if name not in left_out}
    one_axis = Table(table.height, kept, table.unreadable, table.remarks)
    return one_axis, _notes(table, best, others)


def _notes(table: Table, best: str, others: Sequence[str]) -> list[str]:
    if best == STEP:
        return [f"steps are {STEP!r}: {_list(others)} does not count them all"]
    own, ours = table.columns[STEP], table.columns[best]
    if np.isin(ours.rows, own.rows).all() and np.array_equal(
        own.values[np.isin(own.rows, ours.rows)], ours.values
    ):
        return []
    return [f"steps are {best!r}; W&B's {STEP!r} counts calls of wandb.log"]


def _counts_on(table: Table, name: str, loss_rows: np.ndarray, starts: Sequence[int]) -> bool:
    """Whole numbers in nearly all rows of the loss, that go back only where a part begins."""
    column = table.columns[name]
    if np.isin(loss_rows, column.rows).mean() < MIN_COVERAGE:
        return False
    values = column.values
    if not np.isfinite(values).all() or np.abs(values).max() > LARGEST_STEP:
        return False
    part = np.searchsorted(np.asarray(starts), column.rows, side="right")
    is_back = (np.diff(values) < 0) & (np.diff(part) == 0)
    own = values[np.isin(column.rows, loss_rows)]
    distinct = np.unique(own).size > 0.5 * own.size
    return bool((values == np.round(values)).all() and not is_back.any() and distinct)


def _list(names: Sequence[str]) -> str:
    return ", ".join(map(repr, names[:4])) + (" and others" if len(names) > 4 else "")
