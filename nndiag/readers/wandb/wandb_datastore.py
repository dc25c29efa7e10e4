"""The container of a `.wandb` file: a log as LevelDB has it, whatever is in the records.

A header of 7 bytes (":W&B", 0xBEE1, version 0), then blocks of 32 KiB, the first of which includes
the header. A block holds chunks: CRC-32 (the one of zlib; LevelDB's own is CRC-32C) over the kind
and the data, length (uint16), kind (uint8), data; all little-endian. A record is one chunk (FULL),
or FIRST, any number of MIDDLE, LAST, one after the other. Fewer than 7 bytes at the end of a block
are zero.

A killed run leaves a torn last record. Where a checksum is wrong, the length beside it may be
wrong too: we go on behind the chunk if an intact one follows there, else with the next block.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from struct import Struct
from zlib import crc32

from nndiag.errors import UnreadableLog
from nndiag.readers.lines.text_lines import open_regular

HEADER = b":W&B\xe1\xbe"  # the version follows
VERSION = 0
BLOCK = 32 * 1024  # bytes
BATCH = 128 * BLOCK  # bytes that are read at once
MAX_RECORD = 16 << 20  # bytes; a longer record is an artifact or a table and no history

_CHUNK = Struct("<IHB")
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


def is_datastore(head: bytes) -> bool:
    """The first bytes of a `.wandb` file."""
    return head.startswith(HEADER)


class Datastore:
    """The records of a `.wandb` file, in the order of writing; iterate once, then see `damage`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._parts: list[bytes] = []  # of a record whose end is still to come
        self._size = 0  # bytes of it; above MAX_RECORD it is only counted
        self._after_damage = False  # what belongs to a record that is lost already is not counted
        self._damaged = self._too_long = self._lost_bytes = self._zeros = 0
        self._is_torn = False

    def batches(self) -> Iterator[list[bytes]]:
        """Whole records, some MiB of them at a time.

        Raises:
            UnreadableLog: it is empty, of another format, or cannot be read.
        """
        with open_regular(self.path) as file:
            start = len(HEADER) + 1
            while True:
                try:
                    data = file.read(BATCH)
                except OSError as error:  # a broken disk, a file on a lost network
                    what = f"cannot be read: {error.strerror or error}"
                    raise UnreadableLog(where=str(self.path), what=what) from None
                if start:
                    self._check_header(data)
                records: list[bytes] = []
                for block in range(0, len(data), BLOCK):
                    end = min(block + BLOCK, len(data))
                    self._scan(data, block + start, end, end - block < BLOCK, records)
                    start = 0
                if records:
                    yield records
                if len(data) < BATCH:
                    break
        if self._size:
            self._is_torn = True

    def damage(self) -> list[str]:
        """What could not be read, in sentences."""
        said = []
        if self._is_torn:
            said.append("the file ends in a torn record, as if the run was killed: left out")
        if self._damaged:
            count = "1 record is" if self._damaged == 1 else f"{self._damaged} records are"
            text = f"{count} damaged (wrong checksum or order): left out"
            if self._lost_bytes:
                text += f", with {self._lost_bytes} bytes up to the next block"
            said.append(text)
        if self._zeros:
            said.append(f"{self._zeros} bytes of zeros in it, as after a power loss: left out")
        if self._too_long:
            said.append(f"{self._too_long} records above {MAX_RECORD >> 20} MiB left out")
        return said

    def _check_header(self, data: bytes) -> None:
        size = len(HEADER)
        if not data:
            do = "the run was killed before W&B wrote anything"
            raise UnreadableLog(where=str(self.path), what="is empty", do=do)
        if not data.startswith(HEADER[: len(data)]):
            what = "is no .wandb file: it does not begin with ':W&B'"
            raise UnreadableLog(where=str(self.path), what=what)
        if len(data) <= size:
            raise UnreadableLog(where=str(self.path), what="holds only a part of its header")
        if data[size] != VERSION:
            what = f"is a .wandb file of version {data[size]}; known is version {VERSION}"
            raise UnreadableLog(where=str(self.path), what=what)

    def _scan(self, data: bytes, at: int, end: int, is_last: bool, records: list[bytes]) -> None:
        """The chunks in `data[at:end]`, the rest of a block."""
        unpack, head = _CHUNK.unpack_from, _CHUNK.size
        while at + head <= end:
            checksum, length, kind = unpack(data, at)
            after = at + head + length
            if after <= end and crc32(data[at + 6 : after]) == checksum:
                if kind == _FULL and not self._size:
                    records.append(data[at + head : after])
                    self._after_damage = False
                else:
                    self._add(kind, data[at + head : after], records)
                at = after
            elif not (checksum or length or kind) and not any(data[at:end]):
                self._zeros += end - at
                return
            elif is_last and after > end:
                self._is_torn, self._size = True, 0
                return
            else:
                self._lose()
                if not _is_intact(data, after, end):
                    self._lost_bytes += end - at
                    return
                at = after
        if is_last and any(data[at:end]):
            self._is_torn = True

    def _add(self, kind: int, data: bytes, records: list[bytes]) -> None:
        """One intact chunk of a record that has several, or that breaks off another one."""
        if kind in (_MIDDLE, _LAST):
            if not self._size:
                if not self._after_damage:
                    self._lose()
                return
        elif self._size:
            self._lose()  # the record before has no end
        if kind == _FULL:
            records.append(data)
        elif kind == _FIRST:
            self._parts, self._size = [data], 1 + len(data)  # a first chunk may be empty
        elif kind in (_MIDDLE, _LAST):
            self._size += len(data)
            if self._size <= MAX_RECORD:
                self._parts.append(data)
            else:
                self._parts = []
        else:
            self._lose()
            return
        self._after_damage = False
        if kind == _LAST:
            if self._size <= MAX_RECORD:
                records.append(b"".join(self._parts))
            else:
                self._too_long += 1
            self._parts, self._size = [], 0

    def _lose(self) -> None:
        """The record that is being put together, or a chunk that is no part of one."""
        self._damaged += 1
        self._parts, self._size = [], 0
        self._after_damage = True


def _is_intact(data: bytes, at: int, end: int) -> bool:
    """An intact chunk stands at `at`, or nothing but the padding of the block does."""
    if at + _CHUNK.size > end:
        return at <= end and not any(data[at:end])
    checksum, length, kind = _CHUNK.unpack_from(data, at)
    after = at + _CHUNK.size + length
    is_known = _FULL <= kind <= _LAST and after <= end
    return bool(is_known and crc32(data[at + 6 : after]) == checksum)
