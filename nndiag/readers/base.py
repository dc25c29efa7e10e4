"""What a reader is: it recognises one kind of log by its first bytes, and makes a `Run` of it.

A reader never shows a traceback: whatever the bytes are, `read` gives a `Run` or raises one
`UnreadableLog` that says what to do. What it left out goes into `Run.notes`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

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
