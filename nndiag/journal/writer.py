"""Writes the run directory, from inside the training process: standard library only.

Each record is one `os.write` on a descriptor opened with O_APPEND, so that it has reached the
kernel when `append` returns: a SIGKILL afterwards loses nothing. There is no buffer, no lock, no
thread, and no fsync, which could hold the training up for seconds.

A script may close descriptors that it did not open, and its next file then gets our number. So
before each use a descriptor is asked whether it still leads to our file.

Whatever goes wrong is an `OSError`, for the caller's guard. A record that was not written whole is
taken back, so that the next one finds its place.

The functions of `os` are bound when this module is imported: scripts that patch them later meet
their own patches, not ours.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import time
from collections.abc import Mapping, Sequence
from os import close as _close
from os import fstat as _fstat
from os import ftruncate as _ftruncate
from os import mkdir as _mkdir
from os import open as _open
from os import replace as _replace
from os import unlink as _unlink
from os import write as _write
from typing import cast

from nndiag.journal.format import (
    EVENT_LINE_BYTES,
    Dtype,
    RecordEncoder,
    plain,
    schema_message,
    stream_metadata,
)

PRIVATE_FILE = 0o600
PRIVATE_DIRECTORY = 0o700

# Flags that Windows lacks are 0 there.
_NEW_FILE = (
    os.O_WRONLY
    | os.O_CREAT
    | os.O_EXCL  # never into a file that is there: one writer for each file
    | os.O_APPEND
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)  # the script's subprocesses do not inherit it
    | getattr(os, "O_BINARY", 0)
)
_fchmod = getattr(os, "fchmod", None)
_chmod = os.chmod
_getpid = os.getpid
_monotonic_ns = time.monotonic_ns
_dumps = json.dumps


class StreamWriter:
    """One stream of float columns. It creates the file and writes its header.

    `columns` are pairs (metric, where); `dtype` is "f8" or "f4".
    """

    def __init__(
        self, path: str, *, owner: str, columns: Sequence[tuple[str, str]], dtype: str = "f8"
    ) -> None:
        if dtype not in ("f4", "f8"):
            raise ValueError(f"dtype {dtype!r}")
        kind = cast(Dtype, dtype)
        self._encoder = RecordEncoder(len(columns), kind)
        self._file = _AppendOnlyFile(path)
        try:
            header = schema_message(len(columns), stream_metadata(owner, columns), kind)
            self._file.append(header)
        except BaseException:
            self._file.close()
            raise

    def append(self, step: int, t: float, values: Sequence[float]) -> None:
        """Write one row, in one write. `t` is in seconds since the start."""
        self._file.append(self._encoder.encode(step, t, values))

    def close(self) -> None:
        self._file.close()


class EventWriter:
    """A new file of JSON objects, one a line."""

    def __init__(self, path: str) -> None:
        self._file = _AppendOnlyFile(path)

    def append(self, event: Mapping[str, object]) -> None:
        """Write one line. NaN and infinities become strings; what is too long leaves a note."""
        line = _line(event)
        if len(line) > EVENT_LINE_BYTES:
            kind = str(event.get("event", ""))[:100]
            text = f"an event was left out: {kind}, {len(line)} bytes"
            line = _line({"event": "note", "text": text})
        self._file.append(line)

    def close(self) -> None:
        self._file.close()


def write_json(path: str, obj: object) -> None:
    """Replace the file at `path` in one step: a reader sees the old object or the new one."""
    encoded = _dumps(plain(obj), indent=1).encode("ascii") + b"\n"
    # Unique without `random`, whose state belongs to the script.
    temporary = f"{path}.{_getpid()}.{_monotonic_ns()}.tmp"
    file = _AppendOnlyFile(temporary)
    try:
        try:
            file.append(encoded)
        finally:
            file.close()
        _replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):  # the error that led here says more
            _unlink(temporary)
        raise


def write_text(path: str, text: str) -> None:
    """A new private file that holds `text`."""
    file = _AppendOnlyFile(path)
    try:
        if text:
            file.append(text.encode("utf-8", errors="replace"))
    finally:
        file.close()


def make_directory(path: str) -> None:
    """Make `path` and its missing parents, each with mode 0700. One that exists stays as it is."""
    path = os.path.abspath(path)
    parent = os.path.dirname(path)
    if parent != path and not os.path.isdir(parent):
        make_directory(parent)
    try:
        make_new_directory(path)
    except FileExistsError:
        if not os.path.isdir(path):
            raise


def make_real_directory(path: str) -> None:
    """The same of a directory that is replaced into: a link to one, put there, is an `OSError`."""
    make_directory(path)
    if os.path.islink(path):
        raise OSError(errno.ELOOP, "a symbolic link, which is not followed", path)


def make_new_directory(path: str) -> None:
    """Make `path` with mode 0700. Raises `FileExistsError`: of two that try, one succeeds."""
    _mkdir(path, PRIVATE_DIRECTORY)
    _chmod(path, PRIVATE_DIRECTORY)  # a umask may have taken our own rights away


def _line(event: Mapping[str, object]) -> bytes:
    return _dumps(plain(event), separators=(",", ":")).encode("ascii") + b"\n"


class _AppendOnlyFile:
    """A new private file that holds whole records only."""

    def __init__(self, path: str) -> None:
        self._fd = _open(path, _NEW_FILE, PRIVATE_FILE)
        self._size = 0
        try:
            status = _fstat(self._fd)
            self._inode, self._device = status.st_ino, status.st_dev
            if _fchmod is not None:
                _fchmod(self._fd, PRIVATE_FILE)  # whatever the umask
        except BaseException:
            _close(self._fd)
            raise

    def append(self, record: bytes) -> None:
        if self._fd < 0:
            raise OSError(errno.EBADF, "the journal is closed")
        if not self._is_ours():
            self._fd = -1  # not closed: it is the script's
            raise OSError(errno.EBADF, "the script has closed the journal's descriptor")
        written = 0
        try:
            written = self._write(record)
            if written < len(record):  # short: disk nearly full, quota, a signal. Once more.
                written += self._write(record[written:])
            if written < len(record):
                raise OSError(errno.ENOSPC, "short write")
            self._size += written  # inside: a Ctrl-C before it takes the record back
        except BaseException:
            self._take_back()
            raise

    def _write(self, rest: bytes) -> int:
        try:
            return _write(self._fd, rest)
        except InterruptedError:
            return _write(self._fd, rest)

    def _take_back(self) -> None:
        with contextlib.suppress(OSError):  # then the reader finds the next record by its prefix
            _ftruncate(self._fd, self._size)

    def _is_ours(self) -> bool:
        try:
            status = _fstat(self._fd)
        except OSError:
            return False
        return status.st_ino == self._inode and status.st_dev == self._device

    def close(self) -> None:
        is_ours = self._fd >= 0 and self._is_ours()
        fd, self._fd = self._fd, -1
        if is_ours:
            _close(fd)
