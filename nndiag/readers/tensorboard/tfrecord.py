"""TFRecord, the frames of an event file: where the records are, and which bytes belong to none.

    u64 length | u32 masked CRC-32C of the length | data | u32 masked CRC-32C of the data

All little-endian. A writer that was killed leaves half a record; a bad disk leaves wrong lengths.
No length is believed before its checksum is found right, so the records behind a damaged one are
found again. The checksum of the data is left to whoever decodes it: most bytes of a large file are
images and histograms that nobody decodes.

Source: tensorflow/core/lib/io/record_writer.h.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import BinaryIO

import numpy as np

from nndiag.errors import UnreadableLog
from nndiag.readers.lines.text_lines import open_regular
from nndiag.readers.tensorboard.crc32c import masked, masked_of, of_rows

HEADER, FRAME = 12, 16  # bytes before the data, and before and behind it
CHUNK = 16 << 20  # bytes that are read at once
MAX_RECORD = (1 << 24) - 1  # bytes; a longer one, a large image or a graph, is skipped unread
PADDING = 1024  # bytes behind the last record: a window on it may be longer than it is
MAX_GAPS = 10_000  # in one chunk; behind them nothing of it is read
_BLOCK = 1 << 18  # places whose checksums are computed together


@dataclass(frozen=True, slots=True)
class Records:
    """Some records of a file, in its order."""

    buffer: bytes  # they stand in it; `PADDING` bytes without a meaning follow
    starts: np.ndarray  # (n,) int64, of their data in `buffer`
    lengths: np.ndarray  # (n,) int64, of their data, each at most `MAX_RECORD`


class RecordFile:
    """The records of a file, a chunk of it at a time; iterate once.

    Raises, while iterating:
        UnreadableLog: the file cannot be opened or read.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.oversized = 0  # records above `MAX_RECORD`
        self.gaps = 0  # places with bytes that belong to no record
        self.lost_bytes = 0  # in all gaps
        self.torn_bytes = 0  # of the last record, whose end is missing

    def __iter__(self) -> Iterator[Records]:
        rest, is_lost = b"", False
        with open_regular(self.path) as file:
            while more := self._read(file, CHUNK):
                data = rest + more
                chain = _chain(data, is_lost)
                yield from self._records(data, chain)
                rest, is_lost = data[chain.end :], chain.ends_lost
                if chain.oversized:
                    self._skip(file, chain.oversized - len(rest))
                    rest = rest[chain.oversized :]
        chain = _chain(rest, is_lost, is_last=True)
        yield from self._records(rest, chain)
        if is_lost or chain.ends_lost:
            self.lost_bytes += len(rest) - chain.end
        else:
            self.torn_bytes += len(rest) - chain.end

    def _records(self, data: bytes, chain: _Chain) -> Iterator[Records]:
        self.gaps += chain.gaps
        self.lost_bytes += chain.lost_bytes
        if chain.places.size:
            yield Records(data + bytes(PADDING), chain.places + HEADER, chain.lengths)

    def _skip(self, file: BinaryIO, size: int) -> None:
        """Read on past the rest of a record that is not wanted."""
        self.oversized += 1
        while size > 0 and (more := self._read(file, min(size, CHUNK))):
            size -= len(more)
        self.torn_bytes += max(size, 0)

    def _read(self, file: BinaryIO, size: int) -> bytes:
        try:
            return file.read(size)
        except (OSError, EOFError) as error:  # a broken disk, a lost network
            what = f"cannot be read: {getattr(error, 'strerror', None) or error}"
            raise UnreadableLog(where=str(self.path), what=what) from None


def length_at(data: bytes, place: int) -> int | None:
    """The length of the record that begins at `place`; None if none does."""
    header = data[place : place + HEADER]
    if len(header) < HEADER or masked_of(header[:8]) != int.from_bytes(header[8:], "little"):
        return None
    return int.from_bytes(header[:8], "little")


@dataclass(frozen=True, slots=True)
class _Chain:
    """Records one after the other, and what lies between them."""

    places: np.ndarray  # (n,) int64, where they begin
    lengths: np.ndarray  # (n,) int64, of their data
    end: int  # what follows belongs to the next chunk
    ends_lost: bool = False  # the next record is still searched for there
    oversized: int = 0  # bytes of a record at `end` that is too long to read; 0: none
    gaps: int = 0
    lost_bytes: int = 0


def _chain(data: bytes, is_lost: bool, *, is_last: bool = False) -> _Chain:
    """The whole records in `data`, which begins with one unless the last one `is_lost`."""
    places, lengths = _headers(data)
    ends = places + lengths + FRAME
    if is_last or (places.size and ends[-1] <= len(data)):
        count = places.size
    else:
        count = max(places.size - 1, 0)  # of the last one there is more to come
    if is_lost or not _is_chain(places, ends, len(data), is_last=is_last):
        return _Walk(data, places, ends, is_last=is_last).chain(is_lost)
    end = int(ends[count - 1]) if count else 0
    return _Chain(places[:count], lengths[:count], end)


def _is_chain(places: np.ndarray, ends: np.ndarray, size: int, *, is_last: bool) -> bool:
    """Nothing lies between, before or behind the records but the beginning of one more."""
    if not places.size:
        return size < HEADER
    if places[0] or (places[1:] != ends[:-1]).any():
        return False
    return bool(ends[-1] > size - HEADER) and not (is_last and ends[-1] > size)


class _Walk:
    """From record to record, where not each begins at the end of the one before."""

    def __init__(self, data: bytes, places: np.ndarray, ends: np.ndarray, *, is_last: bool) -> None:
        if is_last:  # there is no more to come: a record without its end is none
            whole = ends <= len(data)
            places, ends = places[whole], ends[whole]
        self.data = data
        self.is_last = is_last
        self.places, self.ends = places, ends
        following = np.searchsorted(places, ends)
        is_next = np.append(places, -1)[following] == ends
        self.following = np.where(is_next, following, -1)  # the record at the end of each, or -1
        self.kept: list[int] = []  # of the places
        self.gaps = self.lost_bytes = self.oversized = 0

    def chain(self, is_lost: bool) -> _Chain:
        at = 0
        i = 0 if not is_lost and self.places.size and self.places[0] == 0 else -1
        while True:
            if i < 0:
                if not is_lost and self._is_cut(at):
                    break
                start, i = self._behind_gap(at)
                self.gaps += not is_lost
                is_lost = i < 0
                if i < 0:
                    break
                at = int(self.places[i])
                self.lost_bytes += at - start
            if self.ends[i] > len(self.data):
                break
            self.kept.append(i)
            at = int(self.ends[i])
            i = int(self.following[i])
        if is_lost and not self.is_last:  # the next header may be cut in two by the chunk's end
            start, at = at, max(at, len(self.data) - HEADER + 1)
            self.lost_bytes += at - start
        kept = np.array(self.kept, dtype=np.int64)
        places = self.places[kept]
        lengths = self.ends[kept] - places - FRAME
        return _Chain(places, lengths, at, is_lost, self.oversized, self.gaps, self.lost_bytes)

    def _is_cut(self, at: int) -> bool:
        """What stands at `at` is a record, but not all of it is here."""
        if at + HEADER > len(self.data):
            return True
        length = length_at(self.data, at)
        if length is None:
            return False
        if self.is_last:
            return not self.places.size or at >= self.places[-1]
        self.oversized = length + FRAME  # or it would be among the places
        return True

    def _behind_gap(self, at: int) -> tuple[int, int]:
        """(where the gap at `at` begins, the first record behind it or -1).

        A record that stands within the last one shows that this one has lost some bytes.
        """
        i = int(np.searchsorted(self.places, at))
        if self.kept and self.kept[-1] + 1 < i:
            last = self.kept.pop()
            at, i = int(self.places[last]), last + 1
        if self.gaps >= MAX_GAPS:
            i = self.places.size  # no writer makes such a file
        return at, i if i < self.places.size else -1


def _headers(data: bytes) -> tuple[np.ndarray, np.ndarray]:
    """((n,), (n,)) int64: every place where a record of at most `MAX_RECORD` begins, its length."""
    size = len(data) - HEADER + 1
    if size <= 0:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    # the upper five bytes of such a length are 0
    zero = np.frombuffer(data, np.uint8) == 0
    pairs = zero[3 : size + 6] & zero[4 : size + 7]
    likely = pairs[:size] & pairs[2 : size + 2] & zero[7 : size + 7]
    # no length has the checksum 0, and files end in zeros after a power loss
    likely &= ~(
        zero[8 : size + 8] & zero[9 : size + 9] & zero[10 : size + 10] & zero[11 : size + 11]
    )
    candidates = np.flatnonzero(likely)
    lengths = np.ndarray((size,), "<u4", data, 0, (1,))
    stored = np.ndarray((size,), "<u4", data, 8, (1,))
    found = []
    for start in range(0, candidates.size, _BLOCK):
        block = candidates[start : start + _BLOCK]
        found.append(block[_checksum_of_length(lengths[block]) == stored[block]])
    places = np.concatenate(found) if found else candidates
    return places, lengths[places].astype(np.int64)


@cache
def _effects() -> tuple[np.ndarray, np.ndarray]:
    """((65536,), (256,)) uint32: the checksum of a length by its lower 16 bits; by the next 8.

    The checksum is linear: that of both is their XOR.
    """
    rows = np.zeros((65536, 8), np.uint8)
    rows[:, :2] = np.arange(65536, dtype="<u2")[:, None].view(np.uint8)
    low = of_rows(rows)
    rows = np.zeros((256, 8), np.uint8)
    rows[:, 2] = np.arange(256)
    high = of_rows(rows)
    return low, high ^ high[0]


def _checksum_of_length(lengths: np.ndarray) -> np.ndarray:
    """(n,) uint32: the masked checksums of (n,) uint32 lengths below 2^24, as 8 bytes."""
    low, high = _effects()
    return masked(low.take(lengths & 0xFFFF) ^ high.take(lengths >> 16))
