"""Every run under a path, one after the other; `nndiag.analyze` does the same on all cores."""

from __future__ import annotations

import os
from dataclasses import dataclass

from nndiag.errors import UnreadableLog
from nndiag.readers import discovery
from nndiag.readers.discovery import Skipped
from nndiag.readers.duplicates import repeated, sketch_of
from nndiag.records import Run


@dataclass(frozen=True, slots=True)
class Found:
    """What a path holds."""

    runs: tuple[Run, ...]  # at least one
    skipped: tuple[Skipped, ...] = ()


def find_runs(
    path: str | os.PathLike[str], *, reader: str | None = None, loss: str | None = None
) -> Found:
    """Every run that `path` holds: a log, a run directory, a folder of them, a glob, or "-".

    `reader` forces a format, `loss` names the series to take for the loss.

    Raises:
        UnreadableLog: there is no run in it, or it cannot be read.
        BadUsage: no reader is called `reader`.
    """
    runs: list[Run] = []
    skipped: list[Skipped] = []
    for source in discovery.search(path, reader=reader):
        if isinstance(source, Skipped):
            skipped.append(source)
            continue
        try:
            runs.append(discovery.read(source, loss))
        except UnreadableLog as error:
            if source.is_named and not source.run:
                raise
            skipped.append(Skipped(str(source), error.what))
    if not runs:
        raise discovery.nothing_in(os.fspath(path), skipped)
    others = repeated([sketch_of(run) for run in runs])
    skipped += (
        Skipped(runs[i].path, f"the same training as {runs[kept].path}")
        for i, kept in others.items()
    )
    return Found(tuple(run for i, run in enumerate(runs) if i not in others), tuple(skipped))
