"""The bytes of a stream back into arrays. Total: any bytes give a `Stream` or `UnreadableLog`.

Rows stand at equal distances and say by their prefix and checksum whether they are whole. So the
way through a sound file is one view on its bytes, and damage costs the rows that it touches.
"""

from __future__ import annotations

import json
from binascii import crc32
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from nndiag.errors import UnreadableLog
from nndiag.journal.format import CHECKSUM, STREAM_SCHEMA, RecordEncoder

Columns = tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Stream:
    """The whole rows of a stream, in the order of the file. Arrays are read-only."""

    owner: str  # of the optimizer, as process.json names it
    columns: Columns  # (metric, where), W of them
    steps: np.ndarray  # (T,) int64
    t: np.ndarray  # (T,) float64, seconds since start
    values: np.ndarray  # (T, W) float64 or float32, as written
    torn_bytes: int = 0  # of an unfinished row at the end
    damaged_records: int = 0  # rows lost before that: as many as had room


def decode_stream(content: bytes, where: str) -> Stream:
    """Every whole row in `content`. `where` names it in the error, raised for a bad header."""
    owner, columns, metadata_end = _metadata(content, where)
    encoder, start = _layout(content, len(columns), metadata_end)
    row = _row_type(encoder)
    rows = np.frombuffer(content, row, count=(len(content) - start) // encoder.size, offset=start)
    torn, lost = len(content) - start - rows.nbytes, 0
    if not _all_whole(rows, content, start, encoder):
        places, lost, torn = _search(content, start, encoder)
        found = b"".join([content[place : place + encoder.size] for place in places])
        rows = np.frombuffer(found, row)
    steps, t = np.ascontiguousarray(rows["step"]), np.ascontiguousarray(rows["t"])
    steps.flags.writeable = t.flags.writeable = False
    return Stream(owner, columns, steps, t, rows["values"], torn, lost)


def _metadata(content: bytes, where: str) -> tuple[str, Columns, int]:
    """Owner and columns, and where the text that tells them ends.

    The text is found by its first words, not through the flatbuffer around it: damage to that
    costs nothing.
    """
    name, _, version = STREAM_SCHEMA.partition("/")
    begin = content.find(f'{{"schema": "{name}/'.encode())
    end = content.find(b"\0", max(begin, 0))
    if begin < 0 or end < 0:
        raise UnreadableLog(where=where, what="not a whole nndiag stream: its header is missing")
    damaged = UnreadableLog(where=where, what="the header of the stream is damaged")
    try:
        told = json.loads(content[begin:end])
    except (ValueError, RecursionError):
        raise damaged from None
    written = str(told.get("schema")).removeprefix(name + "/") if isinstance(told, dict) else ""
    if written.partition(".")[0] != version:
        what = f"stream format {written[:20]} is not known, only {version}"
        raise UnreadableLog(where=where, what=what, do="read it with the nndiag that wrote it")
    owner, columns = told.get("owner"), _columns(told.get("columns"))
    if not isinstance(owner, str) or not columns:
        raise damaged
    return owner, columns, end


def _columns(told: object) -> Columns:
    """The columns as told; none where one of them is no pair of names."""
    pairs: list[tuple[str, str]] = []
    for pair in told if isinstance(told, list) else ():
        match pair:
            case [str(metric), str(where)]:
                pairs.append((metric, where))
            case _:
                return ()
    return tuple(pairs)


def _layout(content: bytes, width: int, start: int) -> tuple[RecordEncoder, int]:
    """Float64 or float32, and where the rows begin: somewhere after `start`.

    They begin where the header says, unless a prefix before that place shows that it is damaged.
    """
    encoders = RecordEncoder(width, "f8"), RecordEncoder(width, "f4")
    told = 8 + int.from_bytes(content[4:8], "little")
    begin = told if start < told <= len(content) else start
    for encoder in encoders:
        place = content.find(encoder.prefix, start, begin + len(encoder.prefix))
        if place >= 0:
            return encoder, place
    # The first row is damaged, or there is none.
    has_float32 = encoders[0].prefix not in content and encoders[1].prefix in content
    return encoders[has_float32], begin


def _row_type(encoder: RecordEncoder) -> np.dtype[np.void]:
    body = len(encoder.prefix)
    fields: dict[str, tuple[object, int]] = {
        "prefix": (("<u8", (body // 8,)), 0),  # by words: compared four times as fast as by bytes
        "step": ("<i8", body),
        "t": ("<f8", body + 8),
        "values": ((f"<{encoder.dtype}", (encoder.width,)), body + 16),
        "checksum": ("<u8", body + encoder.body_size),
    }
    return np.dtype(
        {
            "names": list(fields),
            "formats": [kind for kind, _ in fields.values()],
            "offsets": [offset for _, offset in fields.values()],
            "itemsize": encoder.size,
        }
    )


def _all_whole(rows: np.ndarray, content: bytes, start: int, encoder: RecordEncoder) -> bool:
    """Whether each row stands in its place with the right prefix and checksum."""
    if not (rows["prefix"] == np.frombuffer(encoder.prefix, "<u8")).all():
        return False
    places = range(start, start + rows.nbytes, encoder.size)
    sums = np.fromiter(_checksums(content, places, encoder), np.uint64, len(rows))
    return bool((rows["checksum"] == sums).all())


def _checksums(content: bytes, places: Iterable[int], encoder: RecordEncoder) -> Iterable[int]:
    first, last = len(encoder.prefix), len(encoder.prefix) + encoder.body_size
    return (crc32(content[place + first : place + last]) for place in places)


def _search(content: bytes, start: int, encoder: RecordEncoder) -> tuple[list[int], int, int]:
    """Where the whole rows of a damaged stream are, how many were lost, and bytes torn off."""
    size = encoder.size
    places: list[int] = []
    lost, end = 0, start  # of the newest whole row
    place = start
    while 0 <= place <= len(content) - size:
        if _is_whole(content, place, encoder):
            lost += -(-(place - end) // size)  # rounded up: what was there was a row, or part of it
            places.append(place)
            place = end = place + size
        else:
            place = content.find(encoder.prefix, place + 1)
    lost_at_end, torn = divmod(len(content) - end, size)
    return places, lost + lost_at_end, torn


def _is_whole(content: bytes, place: int, encoder: RecordEncoder) -> bool:
    if not content.startswith(encoder.prefix, place):
        return False
    [told] = CHECKSUM.unpack_from(content, place + encoder.size - CHECKSUM.size)
    [measured] = _checksums(content, [place], encoder)
    return bool(told == measured)
