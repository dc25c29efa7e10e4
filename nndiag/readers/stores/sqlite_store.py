"""SQLite files of other programs, read without trust and without a trace.

Nothing is written to the database or beside it, and no lock is taken that a training would wait
for. A file that nobody is writing to is opened as it is ("immutable"). One with a journal or a
write-ahead log beside it, or that has just changed, is copied with them first: SQLite then restores
what a writer had in flight in the copy. What is in the file is hostile: only tables are read, never
views or generated columns, and work and rows are limited.
"""

from __future__ import annotations

import os
import re
import shutil
import sqlite3
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from nndiag.errors import UnreadableLog
from nndiag.readers.lines.text_lines import open_regular

MAGIC = b"SQLite format 3\0"
# What SQLite may leave beside a database; the first two hold data of it.
JOURNALS = ("-wal", "-journal")
QUIET_S = 10.0  # since the last change: a file that changed later may be changing now
MAX_COPY = 4 << 30  # bytes of a database that is copied
COPY_TRIES = 5
OPS_A_CALL = 10_000  # instructions of SQLite's machine between two looks at the budget
# Instructions that a query may take: the first for any, and for each byte of the file. A sound file
# takes less than one a byte; pages that point at one another in a ring would take them without end.
MAX_OPS = 2_000_000
MAX_OPS_A_BYTE = 2
FEW_ROWS, FEW_BYTES = 1000, 1 << 20  # that no file is blamed for
STORED = 0  # a column's `hidden`: others are computed, or of a virtual table
MAX_VALUE = 16 << 20  # bytes of a cell
BYTES_A_ROW = 16  # less than any row of a metric takes: a file that claims more rows is corrupt
SHOWN_RUNS = 8
SHOWN_NAME = 80  # characters of a run's name
NAMES = re.compile(r"[\w .:@=+-]{1,80}")  # runs' names that can be said on a command line

Cell = object
T = TypeVar("T")


class Damaged(Exception):
    """SQLite could not go on reading; the message is its own."""


@dataclass(frozen=True, slots=True)
class Store:
    """An open database."""

    connection: sqlite3.Connection
    size: int  # bytes, journals included

    def columns(self, table: str) -> frozenset[str]:
        """The stored columns of a table; none where it does not exist, or is a view."""
        query = "SELECT sql FROM sqlite_master WHERE type = 'table' AND name = ? AND rootpage > 0"
        if all(_is_virtual(str(sql)) for (sql,) in self.rows(query, (table,))):
            return frozenset()
        listed = self.rows(f'PRAGMA table_xinfo("{table}")')
        return frozenset(str(row[1]) for row in listed if row[6] == STORED)

    def rows(self, query: str, values: Sequence[str | int] = ()) -> Iterator[tuple[Cell, ...]]:
        """The rows of a query.

        Raises:
            Damaged: the file is no sound database; the rows that were given before are good.
        """
        budget = (MAX_OPS + MAX_OPS_A_BYTE * self.size) // OPS_A_CALL

        def spend() -> int:
            nonlocal budget
            budget -= 1
            return int(budget < 0)

        self.connection.set_progress_handler(spend, OPS_A_CALL)
        rows = volume = 0
        try:
            for row in self.connection.execute(query, values):
                rows += 1
                volume += sum(len(cell) for cell in row if isinstance(cell, str | bytes))
                if rows > FEW_ROWS + self.size // BYTES_A_ROW or volume > FEW_BYTES + self.size:
                    raise Damaged("it claims to hold more than its size allows")
                yield row
        except (sqlite3.Error, UnicodeDecodeError) as error:  # its messages quote names as they are
            what = "it takes too long to read" if budget < 0 else str(error)
            raise Damaged(what) from None
        finally:
            self.connection.set_progress_handler(None, 0)


def read_store(path: Path, work: Callable[[Store], T]) -> T:
    """What `work` makes of a database.

    Raises:
        UnreadableLog: it cannot be opened, is no database, or is damaged.
    """
    try:
        before = _state(path)
        if _is_quiet(before):
            with closing(_open_as_it_is(path)) as connection:
                made = work(Store(connection, _size(before)))
            if _state(path) == before:
                return made
        with closing(_open_copy(path)) as connection:
            return work(Store(connection, _size(_newest[0].of[1])))
    except (Damaged, sqlite3.Error, UnicodeDecodeError) as error:
        what = f"cannot be read as an SQLite database: {error}"
        raise UnreadableLog(where=str(path), what=what) from None


def only_one(path: Path, runs: Sequence[str], program: str) -> str:
    """The run of a store that holds one.

    Raises:
        UnreadableLog: it holds none, or several.
    """
    if len(runs) == 1:
        return runs[0]
    if not runs:
        raise UnreadableLog(where=str(path), what=f"no {program} run in it has metrics")
    what = f"holds {len(runs)} runs: {listed(runs)}"
    raise UnreadableLog(where=str(path), what=what, do="name one of them")


def listed(runs: Sequence[str]) -> str:
    shown = ", ".join(run[:SHOWN_NAME] for run in runs[:SHOWN_RUNS])
    return shown + (", ..." if len(runs) > SHOWN_RUNS else "")


def labels_of(runs: Sequence[tuple[str, str]]) -> list[str]:
    """What to call runs, given as (id, name): the name where it tells which one is meant."""
    taken = Counter(word for run_id, name in runs for word in {run_id, name})
    return [name if taken[name] == 1 and NAMES.fullmatch(name) else run_id for run_id, name in runs]


def _is_virtual(sql: str) -> bool:
    return sql.lower().split(None, 2)[:2] == ["create", "virtual"]


def is_store(head: bytes) -> bool:
    return head.startswith(MAGIC)


_State = tuple[tuple[int, int, int], ...]  # (inode, size, time of change in ns) of it and journals


def _state(path: Path) -> _State:
    try:
        open_regular(path).close()
        found = [os.stat(path)]
    except OSError as error:
        what = f"cannot be opened: {error.strerror or error}"
        raise UnreadableLog(where=str(path), what=what) from None
    state = [(found[0].st_ino, found[0].st_size, found[0].st_mtime_ns)]
    for end in JOURNALS:
        try:
            about = os.stat(f"{path}{end}")
        except OSError:
            state.append((0, 0, 0))
        else:
            state.append((about.st_ino, about.st_size, about.st_mtime_ns))
    return tuple(state)


def _size(state: _State) -> int:
    return sum(size for _, size, _ in state)


def _is_quiet(state: _State) -> bool:
    (_, _, changed), *journals = state
    no_journal = all(size == 0 for _, size, _ in journals)
    return no_journal and abs(time.time() - changed / 1e9) > QUIET_S


def _open_as_it_is(path: Path) -> sqlite3.Connection:
    return _careful(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro&immutable=1", uri=True))


def _careful(connection: sqlite3.Connection) -> sqlite3.Connection:
    connection.text_factory = _text
    for setting in (
        "trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0", "temp_store = MEMORY",
        "query_only = ON",
    ):  # fmt: skip
        connection.execute(f"PRAGMA {setting}")
    if hasattr(connection, "setlimit"):  # Python 3.11
        connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, MAX_VALUE)
    return connection


def _text(data: bytes) -> str:
    return data.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class _Copy:
    """The newest copy: several runs of one store are read one after the other."""

    of: tuple[str, _State]
    folder: tempfile.TemporaryDirectory[str]


_newest: list[_Copy] = []


def _open_copy(path: Path) -> sqlite3.Connection:
    """A connection to a copy in which SQLite has restored what a writer had in flight."""
    state = _state(path)
    of = (os.path.realpath(path), state)
    if not _newest or _newest[0].of != of:
        while _newest:
            _newest.pop().folder.cleanup()
        _newest.append(_Copy(*_copied(path)))
    return _careful(sqlite3.connect(os.path.join(_newest[0].folder.name, "copy")))


def _copied(path: Path) -> tuple[tuple[str, _State], tempfile.TemporaryDirectory[str]]:
    folder = tempfile.TemporaryDirectory(prefix="nndiag-", ignore_cleanup_errors=True)
    try:
        state = _copied_to(path, folder.name)
    except UnreadableLog:
        folder.cleanup()
        raise
    return (os.path.realpath(path), state), folder


def _copied_to(path: Path, folder: str) -> _State:
    target = os.path.join(folder, "copy")
    for attempt in range(COPY_TRIES):
        state = _state(path)
        _refuse_large(path, _size(state), folder)
        # The log after the database: frames of it that are newer than the database do no harm
        for end in ("", *reversed(JOURNALS)):
            _copy(Path(f"{path}{end}"), Path(f"{target}{end}"), must=not end)
        if _state(path)[0] == state[0] and _state(path)[2] == state[2]:
            return state
        time.sleep(0.05 * 2**attempt)
    what = "is being written to all the time: no moment to copy it"
    raise UnreadableLog(where=str(path), what=what, do="try again, or copy it yourself")


def _refuse_large(path: Path, size: int, folder: str) -> None:
    if size > MAX_COPY or size > shutil.disk_usage(folder).free // 2:
        what = f"is being written to, and too large to copy ({size / 2**30:.1f} GiB)"
        raise UnreadableLog(where=str(path), what=what, do="wait until its writer has ended")


def _copy(source: Path, target: Path, *, must: bool) -> None:
    try:
        with open_regular(source) as read, open(target, "wb") as written:
            shutil.copyfileobj(read, written, 1 << 20)
    except UnreadableLog:
        if must:
            raise
        target.unlink(missing_ok=True)
    except OSError as error:
        what = f"cannot be copied: {error.strerror or error}"
        raise UnreadableLog(where=str(source), what=what) from None
