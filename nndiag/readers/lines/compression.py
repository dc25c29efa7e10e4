"""Compressed files, read as if they were not: gzip, bzip2, xz, zstd, known by their first bytes.

Only forward, in bounded memory, and only so far: a few kilobytes can hold terabytes of zeros. What
a killed writer left is read as far as it goes, and `damage_of` says that there should be more; what
is damaged is not read, since it may be wrong long before that shows.
"""

from __future__ import annotations

import bz2
import io
import lzma
import sys
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Protocol

from nndiag.errors import UnreadableLog
from nndiag.readers.lines import zstd

CHUNK = 1 << 18  # compressed bytes that are read at once
MOST = 16 << 30  # bytes that a file may hold when decompressed
MOST_TIMES = 1000  # its size on disk, above `UNSUSPICIOUS`: no log repeats itself so often
UNSUSPICIOUS = 1 << 30  # bytes
XZ_MEMORY = 256 << 20  # bytes; the file says how large a dictionary it wants, `xz -9` takes 65 MiB
_MAGICS = {
    "gzip": b"\x1f\x8b\x08",
    "bzip2": b"BZh",
    "xz": b"\xfd7zXZ\x00",
    "zstd": b"\x28\xb5\x2f\xfd",
}
MAGIC_BYTES = 6


class _Decompressor(Protocol):
    """As in bz2, lzma and compression.zstd."""

    @property
    def eof(self) -> bool: ...

    @property
    def needs_input(self) -> bool: ...

    @property
    def unused_data(self) -> bytes: ...

    def decompress(self, data: bytes, max_length: int) -> bytes: ...


class _Source(Protocol):
    def read(self, size: int) -> bytes: ...


def kind_of(magic: bytes) -> str | None:
    """How a file that begins so is compressed; None if it is not."""
    return next((kind for kind, start in _MAGICS.items() if magic.startswith(start)), None)


def decompressed(path: Path, file: BinaryIO, kind: str) -> BinaryIO:
    """What `file` holds, to be read forward; it cannot seek, and has no `fileno`.

    Raises:
        UnreadableLog: its kind needs a library that is not installed. While it is read: it holds
            more than we care to read, or is damaged.
    """
    return io.BufferedReader(_Decompressed(path, file, kind), CHUNK)


def damage_of(file: BinaryIO) -> str:
    """Why a file read to its end may hold more than it gave, as a sentence; "" if it does not."""
    raw = getattr(file, "raw", None)
    return raw.damage if isinstance(raw, _Decompressed) else ""


class _Decompressed(io.RawIOBase):
    """A stream of decompressed bytes that counts what it gives."""

    def __init__(self, path: Path, file: BinaryIO, kind: str) -> None:
        self.damage = ""
        self._path, self._file, self._kind = path, file, kind
        self._given = 0
        self._source: _Source = _source(path, file, kind)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if self.damage:
            return 0
        try:
            data = self._source.read(len(buffer))
        except EOFError:
            if not self._given:
                what = f"its {self._kind} data are cut off before the first byte"
                raise UnreadableLog(where=str(self._path), what=what) from None
            self.damage = f"the {self._kind} data are cut off: read as far as they go"
            return 0
        except (OSError, zlib.error, lzma.LZMAError, zstd.Damaged) as error:
            # No part of it can be trusted: gzip notices at the end that the middle was nonsense
            raise UnreadableLog(
                where=str(self._path),
                what=f"its {self._kind} data are damaged ({str(error)[:80]})",
                do="decompress it, and name the file that comes out",
            ) from None
        self._given += len(data)
        self._check()
        buffer[: len(data)] = data
        return len(data)

    def _check(self) -> None:
        allowed = min(MOST, max(UNSUSPICIOUS, MOST_TIMES * self._file.tell()))
        if self._given > allowed:
            raise UnreadableLog(
                where=str(self._path),
                what=f"expands to more than {allowed / 2**30:.3g} GiB",
                do="if it really is a log: decompress it, and name the file that comes out",
            )

    def close(self) -> None:
        self._file.close()
        super().close()


def _source(path: Path, file: BinaryIO, kind: str) -> _Source:
    if kind == "gzip":
        return _Members(file, _Inflate, _MAGICS[kind])
    if kind == "bzip2":
        return _Members(file, bz2.BZ2Decompressor, _MAGICS[kind])
    if kind == "xz":
        return _Members(file, lambda: lzma.LZMADecompressor(memlimit=XZ_MEMORY), _MAGICS[kind])
    try:
        if sys.version_info >= (3, 14):
            return _Members(file, zstd.Decompressor, _MAGICS[kind])
        return zstd.Stream(file)
    except ImportError:
        raise UnreadableLog(
            where=str(path),
            what="is compressed with zstd, which needs a library that is not installed",
            do="pip install zstandard, or decompress it: unzstd",
        ) from None


class _Members:
    """One compressed stream after the other: a log that was appended to has several."""

    def __init__(self, file: BinaryIO, make: Callable[[], _Decompressor], magic: bytes) -> None:
        self._file, self._make, self._magic = file, make, magic
        self._member, self._fed = make(), b""

    def read(self, size: int) -> bytes:
        """Some bytes, at most `size`; b"" at the end.

        Raises:
            EOFError: the last stream has no end.
        """
        while True:
            if self._member.eof and not self._next():
                return b""
            if not self._fed and self._member.needs_input:
                self._fed = self._file.read(CHUNK)
                is_last = not self._fed
            else:
                is_last = False
            data = self._member.decompress(self._fed, size)
            self._fed = b""
            if data:
                return data
            if is_last and not self._member.eof:
                raise EOFError

    def _next(self) -> bool:
        """Begin with the next stream; what follows and is none is left alone."""
        start = self._member.unused_data or self._file.read(CHUNK)
        while 0 < len(start) < len(self._magic) and (more := self._file.read(CHUNK)):
            start += more
        if not start.startswith(self._magic):
            return False
        self._member, self._fed = self._make(), start
        return True


class _Inflate:
    """gzip with the manners of bz2."""

    def __init__(self) -> None:
        self._stream = zlib.decompressobj(wbits=31)  # 31: with the header of gzip

    @property
    def eof(self) -> bool:
        return self._stream.eof

    @property
    def needs_input(self) -> bool:
        return not self._stream.unconsumed_tail

    @property
    def unused_data(self) -> bytes:
        return self._stream.unused_data

    def decompress(self, data: bytes, max_length: int) -> bytes:
        return self._stream.decompress(self._stream.unconsumed_tail + data, max_length)
