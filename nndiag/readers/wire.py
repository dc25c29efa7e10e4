"""The protobuf wire format, as far as logs need it, read without trusting it.

A message is a row of fields: a varint with the field's number and wire type, then a varint (0),
8 bytes (1), a length and that many bytes (2), or 4 bytes (5). Groups (3, 4) are long out of use and
refused. Nothing is copied and nothing is allocated by a declared length: a field is given as the
place where it stands, after its end was checked against the end of the message.

Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from collections.abc import Iterator

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

# Of one field: its number, its wire type, and [start, end) of its bytes in the buffer. Those of a
# `BYTES` field are without their length; those of a `VARINT` are read with `varint`.
Field = tuple[int, int, int, int]


class Malformed(ValueError):
    """These bytes are no protobuf message."""


def varint(buffer: bytes, at: int, end: int) -> tuple[int, int]:
    """(the unsigned number at `at`, the place after it); above 2^64 the high bits are dropped.

    Raises:
        Malformed: it does not end before `end`, or is longer than 10 bytes.
    """
    value = 0
    for shift in range(0, 70, 7):
        if at >= end:
            raise Malformed("a number is cut off")
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise Malformed("a number of more than 10 bytes")


def signed(value: int) -> int:
    """An int32 or int64 field from its unsigned varint: negative ones are sent as 2^64 + value."""
    return value - (1 << 64) if value >> 63 else value


def fields(buffer: bytes, start: int = 0, end: int | None = None) -> Iterator[Field]:
    """The fields of the message that stands in `buffer[start:end]`, in the order of writing.

    Raises:
        Malformed: while iterating, at the first byte that cannot be.
    """
    at, end = start, len(buffer) if end is None else end
    while at < end:
        key = buffer[at]
        at += 1
        if key >= 0x80:
            key, at = varint(buffer, at - 1, end)
        kind = key & 7
        if kind == BYTES:
            length, at = varint(buffer, at, end)
            after = at + length
        elif kind == VARINT:
            _, after = varint(buffer, at, end)
        elif kind == FIXED64:
            after = at + 8
        elif kind == FIXED32:
            after = at + 4
        else:
            raise Malformed(f"wire type {kind}")
        if after > end or key < 8:
            raise Malformed("a field goes beyond its message" if key >= 8 else "field number 0")
        yield key >> 3, kind, at, after
        at = after
