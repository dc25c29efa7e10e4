"""All scalars of one TensorBoard event file, in the order of writing, and a tally of the rest.

One writer writes the same few layouts over and over: of two losses, the bytes differ in the time,
the step and the value only. So records of one length are laid under each other, the first one is
taken apart, and the others that fit its mask give their numbers by numpy, column by column. What
fits no mask is taken apart one by one. The checksum of every record that gives a number is checked,
and of every short one; only long records without a number, images and histograms, go unchecked.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nndiag.readers.tables.table import MAX_COLUMNS, MAX_NAME
from nndiag.readers.tensorboard.crc32c import masked_of, masked_of_rows
from nndiag.readers.tensorboard.event_layout import DOUBLE, Kind, Layout, layout_of
from nndiag.readers.tensorboard.tfrecord import PADDING, RecordFile, Records
from nndiag.readers.wire import Malformed, signed, varint

MAX_VALUES = 50_000_000  # of one run: 1.3 GB of numbers; what comes later is left out
LONGEST = 512  # bytes; longer records are taken apart one by one
FEWEST = 16  # records of one length; fewer are taken apart one by one
BLOCK = 16384  # records whose bytes are laid under each other: about 1 MB
MAX_MASKS = 256  # for records of one length
MAX_MISFITS = 8  # masks that fit fewer than `FEWEST` records of a block: the rest one by one

assert LONGEST + 8 <= PADDING


@dataclass(frozen=True, slots=True)
class Scalars:
    """n numbers, in the order of writing."""

    tags: np.ndarray  # (n,) int16, places in a list of names
    steps: np.ndarray  # (n,) int64
    times: np.ndarray  # (n,) float64, seconds since 1970
    values: np.ndarray  # (n,) float64

    def __len__(self) -> int:
        return int(self.tags.size)


@dataclass(slots=True)
class EventFile:
    """What an event file holds; `read` it once."""

    path: Path
    room: int = MAX_VALUES  # for so many numbers
    names: list[str] = field(default_factory=list)  # of the scalars, in the order of appearance
    others: Counter[str] = field(default_factory=Counter)  # what else there is: "image", ...
    texts: set[str] = field(default_factory=set)  # tags of texts
    records: int = 0
    damaged: int = 0  # records with a wrong checksum, or that are no events
    dropped: int = 0  # numbers of too many or too long names, or too many
    _ids: dict[bytes, int] = field(default_factory=dict)
    _plugins: dict[bytes, str] = field(default_factory=dict)
    _masks: dict[int, list[_Mask]] = field(default_factory=dict)  # by the records' length

    def read(self) -> tuple[Scalars, RecordFile]:
        """The scalars, and the file's frames with what was wrong in them.

        Raises:
            UnreadableLog: the file cannot be opened or read.
        """
        frames, parts, count = RecordFile(self.path), [], 0
        for records in frames:
            self.records += records.starts.size
            part = self._scalars_of(records)
            room = self.room - count
            if len(part) > room:
                self.dropped += len(part) - room
                part = _joined([part], np.arange(room))
            count += len(part)
            parts.append(part)
        return _joined(parts), frames

    def _scalars_of(self, records: Records) -> Scalars:
        order = np.argsort(records.lengths, kind="stable")
        lengths = records.lengths[order]
        bounds = np.flatnonzero(np.diff(lengths, prepend=-1, append=-1))
        single: list[int] = []
        checked: list[int] = []  # single ones whose checksums are known to be right
        pieces: list[_Piece] = []
        for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
            length = int(lengths[first])
            if not length:
                continue
            if last - first < FEWEST or length > LONGEST:
                single += order[first:last].tolist()
                continue
            for start in range(first, last, BLOCK):
                block = order[start : min(start + BLOCK, last)]
                pieces += self._by_masks(records, block, length, checked)
        pieces += self._one_by_one(records, sorted(single), is_checked=False)
        pieces += self._one_by_one(records, sorted(checked), is_checked=True)
        if not pieces:
            return _joined([])
        places = np.concatenate([piece.places for piece in pieces])
        return _joined([piece.scalars for piece in pieces], np.argsort(places, kind="stable"))

    def _by_masks(
        self, records: Records, places: np.ndarray, length: int, single: list[int]
    ) -> Iterator[_Piece]:
        """Records of one length; those that fit no mask are appended to `single`."""
        rows = _rows(records, places, length)
        ends = records.starts[places] + length
        stored = np.ndarray((len(records.buffer) - 3,), "<u4", records.buffer, 0, (1,))[ends]
        is_whole = masked_of_rows(rows[:, :length]) == stored
        if not is_whole.all():
            self.damaged += int(is_whole.size - is_whole.sum())
            rows, places = rows[is_whole], places[is_whole]
        masks = self._masks.setdefault(length, [])
        tried = misfits = 0
        while places.size >= FEWEST and misfits < MAX_MISFITS:
            if tried == len(masks):
                mask = self._mask_of(records, int(places[0]), length)
                if mask is None or tried >= MAX_MASKS:
                    break
                masks.append(mask)
            mask = masks[tried]
            fits = mask.fits(rows)
            matched = int(fits.sum())
            if matched < FEWEST and tried == len(masks) - 1:
                misfits += 1
                masks.pop()
            else:
                tried += 1
            if matched:
                yield from mask.pieces(places[fits], rows[fits])
                self.others.update({what: n * matched for what, n in mask.others.items()})
                self.dropped += mask.dropped * matched
                rows, places = rows[~fits], places[~fits]
        single += places.tolist()

    def _mask_of(self, records: Records, place: int, length: int) -> _Mask | None:
        """The mask of a record that has scalars; None if it has none, or numbers in varints."""
        start = int(records.starts[place])
        try:
            layout = layout_of(records.buffer, start, start + length, self._plugins)
        except Malformed:
            return None
        if not layout.scalars or not all(spot.kind.dtype for spot in layout.scalars):
            return None
        ids = [self._id(records.buffer[slice(*spot.tag)]) for spot in layout.scalars]
        return _Mask(layout, ids, start, records.buffer[start : start + length])

    def _one_by_one(
        self, records: Records, places: Sequence[int], *, is_checked: bool
    ) -> Iterator[_Piece]:
        """Records taken apart each for itself."""
        buffer = records.buffer
        at: list[int] = []
        tags: list[int] = []
        steps: list[int] = []
        times: list[float] = []
        values: list[float] = []
        for place in places:
            start = int(records.starts[place])
            end = start + int(records.lengths[place])
            try:
                layout = layout_of(buffer, start, end, self._plugins)
                step = signed(varint(buffer, *layout.step)[0]) if layout.step[1] else 0
                numbers = [spot.kind.of(buffer, *spot.number) for spot in layout.scalars]
            except Malformed:
                self.damaged += 1
                continue
            to_check = not is_checked and (layout.scalars or end - start <= LONGEST)
            if to_check and not _is_whole(buffer, start, end):
                self.damaged += 1
                continue
            self.others.update(layout.others)
            self.texts.update(layout.texts)
            self.dropped += layout.beyond
            time = DOUBLE.of(buffer, layout.time, layout.time + 8) if layout.time >= 0 else 0.0
            for spot, value in zip(layout.scalars, numbers, strict=True):
                tag = self._id(buffer[slice(*spot.tag)])
                if tag < 0:
                    self.dropped += 1
                    continue
                at.append(place)
                tags.append(tag)
                steps.append(step)
                times.append(time)
                values.append(value)
        if at:
            scalars = Scalars(
                np.array(tags, np.int16), np.array(steps, np.int64),
                np.array(times, np.float64), np.array(values, np.float64),
            )  # fmt: skip
            yield _Piece(np.array(at, np.int64), scalars)

    def _id(self, tag: bytes) -> int:
        """The place of a tag in `names`; -1 if there are too many of them, or it is too long."""
        known = self._ids.get(tag)
        if known is not None:
            return known
        name = tag.decode("utf-8", errors="backslashreplace")
        if len(self.names) >= MAX_COLUMNS or len(name) > MAX_NAME or not name:
            return -1
        self._ids[tag] = len(self.names)
        self.names.append(name)
        return self._ids[tag]


@dataclass(frozen=True, slots=True)
class _Piece:
    """Some scalars, and the records of a chunk that they stand in."""

    places: np.ndarray  # (n,) int64
    scalars: Scalars


class _Mask:
    """A record with holes where time, step and values stand."""

    def __init__(self, layout: Layout, ids: Sequence[int], start: int, data: bytes) -> None:
        self.others = layout.others
        self.dropped = layout.beyond + sum(tag < 0 for tag in ids)
        self._time = layout.time - start if layout.time >= 0 else -1
        self._step = (layout.step[0] - start, layout.step[1] - start) if layout.step[1] else (0, 0)
        self._scalars = [
            (tag, spot.number[0] - start, spot.kind)
            for tag, spot in zip(ids, layout.scalars, strict=True)
            if tag >= 0
        ]
        width = _width(len(data))
        fixed = np.zeros(width, np.uint8)
        fixed[: len(data)] = 0xFF
        if self._time >= 0:
            fixed[self._time : self._time + 8] = 0
        fixed[slice(*self._step)] = 0x80  # where its varint goes on
        for spot in layout.scalars:
            fixed[spot.number[0] - start : spot.number[1] - start] = 0
        self._fixed = fixed.view(np.uint64)
        self._data = np.frombuffer(data.ljust(width, b"\0"), np.uint64) & self._fixed

    def fits(self, rows: np.ndarray) -> np.ndarray:
        """(n,) bool: rows that differ from the record in its holes only."""
        words = rows.view(np.uint64)
        differs = np.zeros(len(rows), np.uint64)
        for i, (fixed, data) in enumerate(zip(self._fixed, self._data, strict=True)):
            if fixed:
                differs |= (words[:, i] & fixed) ^ data
        fits: np.ndarray = differs == 0
        return fits

    def pieces(self, places: np.ndarray, rows: np.ndarray) -> Iterator[_Piece]:
        """The numbers in the holes of rows that fit, one piece for each scalar of a record."""
        times = np.zeros(len(rows))
        if self._time >= 0:
            times = _column(rows, self._time, "<f8")
        steps = np.zeros(len(rows), np.uint64)
        for i, at in enumerate(range(*self._step)):
            steps |= (rows[:, at] & np.uint8(0x7F)).astype(np.uint64) << np.uint64(7 * i)
        for tag, at, kind in self._scalars:
            tags = np.full(len(rows), tag, np.int16)
            values = _numbers(rows, at, kind)
            yield _Piece(places, Scalars(tags, steps.view(np.int64), times, values))


def _is_whole(buffer: bytes, start: int, end: int) -> bool:
    return masked_of(buffer[start:end]) == int.from_bytes(buffer[end : end + 4], "little")


def _width(length: int) -> int:
    """Whole words of 8 bytes."""
    return (length + 7) // 8 * 8


def _rows(records: Records, places: np.ndarray, length: int) -> np.ndarray:
    """(n, width) uint8: the records' data, and some bytes of what follows up to a whole word."""
    width = _width(length)
    windows = np.ndarray((len(records.buffer) - width + 1,), f"V{width}", records.buffer, 0, (1,))
    rows: np.ndarray = windows[records.starts[places]].view(np.uint8).reshape(-1, width)
    return rows


def _column(rows: np.ndarray, at: int, dtype: str) -> np.ndarray:
    """(n,) float64: the numbers that begin at byte `at` of each row."""
    numbers = np.ndarray((len(rows),), dtype, rows, at, (rows.shape[1],))
    with np.errstate(invalid="ignore"):  # some of the NaNs in float32 are "signalling"
        return numbers.astype(np.float64)


def _numbers(rows: np.ndarray, at: int, kind: Kind) -> np.ndarray:
    if kind.is_bfloat16:
        upper = np.ndarray((len(rows),), "<u2", rows, at, (rows.shape[1],)).astype(np.uint32) << 16
        with np.errstate(invalid="ignore"):
            return upper.view(np.float32).astype(np.float64)
    return _column(rows, at, kind.dtype)


def _joined(parts: Sequence[Scalars], order: np.ndarray | slice = slice(None)) -> Scalars:
    """The scalars of all parts, `order` of them."""
    if not parts:
        nothing = np.empty(0)
        return Scalars(nothing.astype(np.int16), nothing.astype(np.int64), nothing, nothing)
    return Scalars(
        np.concatenate([part.tags for part in parts])[order],
        np.concatenate([part.steps for part in parts])[order],
        np.concatenate([part.times for part in parts])[order],
        np.concatenate([part.values for part in parts])[order],
    )
