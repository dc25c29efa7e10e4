"""What a reader is: it recognises one kind of log by its first bytes, and makes a `Run` of it.

A reader never shows a traceback: whatever the bytes are, `read` gives a `Run` or raises one
`UnreadableLog` that says what to do. What it left out goes into `Run.notes`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from nndiag.records import Run

HEAD_BYTES = 64 * 1024  # what `recognises` is shown of a file; enough for a header after a preamble


class Reader(Protocol):
    """One format. `path` is a file, or a folder for formats that are folders."""

    @property
    def name(self) -> str:
        """As `--reader NAME` and `Run.format` have it: "csv"."""

    def recognises(self, path: Path, head: bytes) -> str | None:
        """Why this looks like the format, in words; None if it does not.

        `head` holds the first `HEAD_BYTES` of the file, b"" for a folder.
        """

    def read(self, path: Path, loss: str | None) -> Run:
        """The run in this log; `loss` names the series to take for the loss.

        Raises:
            UnreadableLog: it holds nothing to judge, or no series is called `loss`.
        """


@runtime_checkable
class Store(Reader, Protocol):
    """A format that keeps several runs in one file or folder: a database, `wandb/`."""

    def runs_in(self, path: Path) -> Sequence[str]:
        """The ids of its runs, oldest first.

        Raises:
            UnreadableLog: it cannot be read.
        """

    def read_run(self, path: Path, run: str, loss: str | None) -> Run:
        """One of them; its `Run.path` is "path#run".

        Raises:
            UnreadableLog: as `read`; or there is no such run.
        """


@runtime_checkable
class SharedFolder(Reader, Protocol):
    """A format whose files share their folder with others' logs: the search goes on in it."""

    def merged_folders(self, folder: Path) -> Sequence[Path]:
        """The folders below `folder` that belong to its run: `train/`, `validation/`."""
