"""Errors that a user can do something about: where, what, and what to do.

Whatever goes wrong with a path, an option or a log ends as one `NndiagError`; the command line
prints it and exits with `exit_status`. It never shows a traceback for it.
"""

from __future__ import annotations


class NndiagError(Exception):
    """Something the user can mend. `where` is a path, an option or a command."""

    exit_status = 2

    def __init__(self, *, where: str, what: str, do: str = "") -> None:
        super().__init__(f"{where}: {what}")
        self.where = where
        self.what = what
        self.do = do


class UnreadableLog(NndiagError):
    """A log that holds nothing we can judge, or cannot be read at all."""


class BadUsage(NndiagError):
    """An option, a name or a setting that does not exist or does not fit."""


class CannotStart(NndiagError):
    """The command to watch could not be started."""


class MissingLibrary(NndiagError):
    """A command needs a library that is not installed."""

    def __init__(self, *, command: str, library: str, extra: str) -> None:
        super().__init__(
            where=command,
            what=f"needs {library}, which is not installed",
            do=f"pip install 'nndiag[{extra}]'",
        )
