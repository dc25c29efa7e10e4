"""Lines of any file that may be a text, without trusting it: bounded, decoded, never blocking."""

from __future__ import annotations

import codecs
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath
from typing import BinaryIO

from nndiag.errors import UnreadableLog
from nndiag.readers.base import HEAD_BYTES
from nndiag.readers.lines import compression

BLOCK_BYTES = 1 << 20  # that are read at once
COMPRESSED_SUFFIXES = frozenset([".gz", ".bz2", ".xz", ".zst"])
# A file longer than this is refused if it is so many times longer than the room that it takes; file
# systems that compress save less.
HOLLOW_FROM, HOLLOW_TIMES = 1 << 30, 1000
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

    Of a file compressed with gzip, bzip2, xz or zstd it gives what is inside. That can only be read
    forward: it cannot seek and has no `fileno`; `compression.damage_of` says what is missing.

    Raises:
        UnreadableLog: it does not exist, may not be read, or is no regular file. While a compressed
            one is read: it holds more than we care to read, or is damaged.
    """
    try:
        # O_NONBLOCK: without it, opening a FIFO that nobody writes to waits for ever
        fd = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0))
    except (OSError, ValueError) as error:  # ValueError: NUL in the name
        raise UnreadableLog(where=str(path), what=_reason(error)) from None
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        os.close(fd)
        what = "is a folder" if stat.S_ISDIR(status.st_mode) else "is not a regular file"
        raise UnreadableLog(where=str(path), what=what, do="pipe it in: nndiag analyze -")
    if is_hollow(status):
        os.close(fd)
        what = f"is {status.st_size / 2**30:.0f} GiB long with next to nothing written in it"
        raise UnreadableLog(where=str(path), what=what, do="copy out of it what was written")
    file = os.fdopen(fd, "rb")
    try:
        kind = compression.kind_of(file.peek(compression.MAGIC_BYTES))
    except OSError as error:  # a broken disk, a file on a lost network
        file.close()
        raise UnreadableLog(where=str(path), what=_reason(error)) from None
    return compression.decompressed(path, file, kind) if kind else file


def is_hollow(status: os.stat_result) -> bool:
    """Whether a file claims to be long and takes no room: to read it gives zeros for hours."""
    taken = getattr(status, "st_blocks", status.st_size) * 512  # bytes, wherever they are counted
    return status.st_size > HOLLOW_FROM and taken * HOLLOW_TIMES < status.st_size


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
    """The lines of a file, without their ends; iterate once, over lines or over `blocks`.

    A carriage return ends a line too: what a progress bar drew over is data. `limit` is in bytes
    of UTF-8; of a longer line only the beginning is given, and it is counted in `cut`.
    """

    def __init__(self, path: Path, limit: int) -> None:
        self.path = path
        self.limit = limit
        self.cut = 0  # lines that were longer than the limit
        self.ends_torn = False  # the last line has no end: its writer was killed, or is at it
        self.damage = ""  # why the file may hold more than could be read, as a sentence

    def __iter__(self) -> Iterator[str]:
        for block in self.blocks():
            yield from lines_of(block)

    def blocks(self, size: int = BLOCK_BYTES) -> Iterator[bytes]:
        """All of the text as UTF-8, about `size` bytes of whole lines at a time.

        Each line ends with "\\n" whatever ended it in the file, only the last one may have no end.
        Zero bytes are left out: a power loss leaves them.
        """
        with open_regular(self.path) as binary:
            head = _read(self.path, binary, HEAD_BYTES)
            encoding = _known_encoding(self.path, head)
            chunks = self._chunks(binary, head, max(size, HEAD_BYTES))
            if encoding not in ("utf-8", "utf-8-sig"):
                chunks = _as_utf8(chunks, encoding)
            elif head.startswith(codecs.BOM_UTF8):
                chunks = _without_mark(chunks)
            yield from self._whole_lines(_with_plain_ends(chunks))
            self.damage = compression.damage_of(binary)

    def _chunks(self, binary: BinaryIO, head: bytes, size: int) -> Iterator[bytes]:
        chunk = head + _read(self.path, binary, size - len(head))
        while chunk:
            yield chunk
            chunk = _read(self.path, binary, size)

    def _whole_lines(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        rest, is_skipping = b"", False
        for chunk in chunks:
            if is_skipping:
                end = chunk.find(b"\n")
                if end < 0:
                    continue
                chunk, is_skipping = chunk[end:], False
            data = rest + chunk if rest else chunk
            end = data.rfind(b"\n") + 1
            block, rest = data[:end], data[end:]
            if len(rest) > self.limit:
                rest, is_skipping = rest[: self.limit], True
                self.cut += 1
            if block:
                yield self._without_long_lines(block)
        if rest:
            self.ends_torn = True
            yield rest

    def _without_long_lines(self, block: bytes) -> bytes:
        limit, at, kept_to = self.limit, 0, 0
        pieces = []
        while len(block) - at > limit:
            end = block.rfind(b"\n", at, at + limit + 1)
            if end < 0:  # the line at `at` is too long
                pieces.append(block[kept_to : at + limit])
                kept_to = end = block.find(b"\n", at + limit)
                self.cut += 1
            at = end + 1
        return b"".join([*pieces, block[kept_to:]]) if pieces else block


def lines_of(block: bytes) -> list[str]:
    """The lines of a block of `TextLines`."""
    lines = block.decode("utf-8", errors="replace").split("\n")
    if not lines[-1]:
        lines.pop()
    return lines


def _with_plain_ends(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """UTF-8 with "\\n" for every end of a line, and without zero bytes."""
    held = b""  # a carriage return at the end of a chunk: a line feed may follow it
    for chunk in chunks:
        chunk = held + chunk if held else chunk
        held = b""
        if b"\0" in chunk:
            chunk = chunk.replace(b"\0", b"")
        if b"\r" in chunk:
            if chunk.endswith(b"\r"):
                chunk, held = chunk[:-1], b"\r"
            chunk = chunk.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        yield chunk
    if held:
        yield b"\n"


def _as_utf8(chunks: Iterable[bytes], encoding: str) -> Iterator[bytes]:
    decoder = codecs.getincrementaldecoder(encoding)(errors="replace")
    for chunk in chunks:
        yield decoder.decode(chunk).encode("utf-8", errors="replace")
    yield decoder.decode(b"", final=True).encode("utf-8", errors="replace")


def _without_mark(chunks: Iterator[bytes]) -> Iterator[bytes]:
    yield next(chunks)[len(codecs.BOM_UTF8) :]
    yield from chunks


def uncompressed_name(path: Path) -> str:
    """The name of a log without the suffix of its compression: "metrics.csv" of metrics.csv.gz."""
    return path.stem if path.suffix.lower() in COMPRESSED_SUFFIXES else path.name


def suffix_of(path: Path) -> str:
    """The suffix that tells the format, in small letters: ".csv" of metrics.CSV.gz."""
    return PurePath(uncompressed_name(path)).suffix.lower()
