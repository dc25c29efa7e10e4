"""Lines of any file that may be a text, without trusting it: bounded, decoded, never blocking."""

from __future__ import annotations

import codecs
import io
import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from nndiag.errors import UnreadableLog
from nndiag.readers.base import HEAD_BYTES

COMPRESSED_SUFFIXES = frozenset([".gz", ".bz2", ".xz", ".zst"])
MAX_CONTROL_FRACTION = 0.05  # of the first bytes; compressed data has 0.1, coloured text 0.01
MAX_NUL_FRACTION = 0.5  # of the first bytes; file systems leave NULs at the end after a power loss
_TEXT_CONTROLS = frozenset(b"\t\n\r\x0b\x0c\x08\x1b\x07")
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def open_regular(path: Path) -> BinaryIO:
    """Open a regular file for reading; a FIFO or a device is refused and never waited for.

    Raises:
        UnreadableLog: it does not exist, may not be read, or is no regular file.
    """
    try:
        # O_NONBLOCK: without it, opening a FIFO that nobody writes to waits for ever
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        raise UnreadableLog(where=str(path), what=_reason(error)) from None
    kind = os.fstat(fd).st_mode
    if not stat.S_ISREG(kind):
        os.close(fd)
        what = "is a folder" if stat.S_ISDIR(kind) else "is not a regular file"
        raise UnreadableLog(where=str(path), what=what, do="pipe it in: nndiag analyze -")
    return os.fdopen(fd, "rb")


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if isinstance(error, PermissionError):
        return "may not be read: permission denied"
    return f"cannot be opened: {getattr(error, 'strerror', None) or error}"


def head_of(path: Path) -> bytes:
    """The first `HEAD_BYTES` of a file."""
    with open_regular(path) as file:
        return _read(path, file, HEAD_BYTES)


def whole_of(path: Path, limit: int) -> str:
    """All of a file as text.

    Raises:
        UnreadableLog: it is longer than `limit` bytes, or binary.
    """
    with open_regular(path) as file:
        data = _read(path, file, limit + 1)
    if len(data) > limit:
        do = "write one JSON object a line instead"
        raise UnreadableLog(where=str(path), what=f"is above {limit // 2**20} MiB", do=do)
    return data.decode(_known_encoding(path, data[:HEAD_BYTES]), errors="replace")


def _read(path: Path, file: BinaryIO, size: int) -> bytes:
    try:
        return file.read(size)
    except OSError as error:  # a broken disk, a file on a lost network
        raise UnreadableLog(where=str(path), what=_reason(error)) from None


def encoding_of(head: bytes) -> str | None:
    """How a file that begins so is encoded; None if it is no text."""
    for mark, encoding in _BOMS:
        if head.startswith(mark):
            return encoding
    pairs = len(head) // 2
    if pairs >= 2:  # UTF-16 without its mark: every second byte of plain English is 0
        for encoding, zeros, letters in (
            ("utf-16-le", head[1::2], head[0::2]), ("utf-16-be", head[0::2], head[1::2]),
        ):  # fmt: skip
            if zeros.count(0) > 0.9 * pairs and letters.count(0) < 0.1 * pairs:
                return encoding
    nuls = head.count(0)
    if nuls > MAX_NUL_FRACTION * len(head):
        return None
    controls = sum(head.count(code) for code in range(1, 32) if code not in _TEXT_CONTROLS)
    return "utf-8" if controls <= MAX_CONTROL_FRACTION * len(head) else None


def text_of(head: bytes) -> str:
    """The first bytes of a file as text; "" if they are none."""
    encoding = encoding_of(head)
    return head.decode(encoding, errors="replace").replace("\0", "") if encoding else ""


def _known_encoding(path: Path, head: bytes) -> str:
    encoding = encoding_of(head)
    if encoding is None:
        raise UnreadableLog(where=str(path), what="is a binary file of no format that we know")
    return encoding


class TextLines:
    """The lines of a file, without their ends; iterate once.

    A carriage return ends a line too: what a progress bar drew over is data. `limit` is in
    characters; of a longer line only the beginning is given, and it is counted in `cut`.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self.limit = limit
        self.cut = 0  # lines that were longer than the limit
        self.ends_torn = False  # the last line has no end: its writer was killed, or is at it

    def __iter__(self) -> Iterator[str]:
        with open_regular(self.path) as binary:
            head = _read(self.path, binary, HEAD_BYTES)
            encoding = _known_encoding(self.path, head)
            binary.seek(0)
            text = io.TextIOWrapper(binary, encoding, errors="replace", newline=None)
            try:
                yield from self._lines(text)
            except OSError as error:
                raise UnreadableLog(where=str(self.path), what=_reason(error)) from None

    def _lines(self, text: io.TextIOWrapper) -> Iterator[str]:
        limit = self.limit
        while line := text.readline(limit):
            is_whole = line.endswith("\n")
            if not is_whole and len(line) >= limit:
                rest = line
                while rest and not rest.endswith("\n"):
                    rest = text.readline(limit)
                self.cut += 1
                is_whole = bool(rest)
            self.ends_torn = not is_whole
            line = line.rstrip("\n")
            yield line.replace("\0", "") if "\0" in line else line


def uncompressed_name(path: Path) -> str:
    """The name of a log without the suffix of its compression: "metrics.csv" of metrics.csv.gz."""
    return path.stem if path.suffix.lower() in COMPRESSED_SUFFIXES else path.name
