"""Every reader there is, in the order they are asked: the surest sign first, a text last."""

from __future__ import annotations

from collections.abc import Sequence

from nndiag.errors import BadUsage
from nndiag.readers import csv_table, hf_trainer_state, json_lines, plain_text, run_directory
from nndiag.readers.base import Reader

READERS: tuple[Reader, ...] = (run_directory, hf_trainer_state, json_lines, csv_table, plain_text)


def chosen(name: str | None) -> Sequence[Reader]:
    """All readers, or the one that `--reader` names.

    Raises:
        BadUsage: no reader is called so.
    """
    if name is None:
        return READERS
    named = [reader for reader in READERS if reader.name == name]
    if not named:
        known = ", ".join(reader.name for reader in READERS)
        raise BadUsage(where="--reader", what=f"no reader is called {name!r}", do=f"known: {known}")
    return named
