"""As much of FlatBuffers as the metadata of an Arrow stream needs, in the standard library.

A buffer is built front to back: whatever a node points to is appended after it, since offsets to
children only point forward. Layout: https://flatbuffers.dev/internals.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import NamedTuple


class Scalar(NamedTuple):
    code: str  # of struct: "B", "h", "i", "q"
    number: int


class Pairs(NamedTuple):
    """A vector of structs, each of two int64."""

    rows: Sequence[tuple[int, int]]


class Table:
    """A table by its slots, in the order of the schema; None leaves a slot out."""

    def __init__(self, *slots: Scalar | Node | None) -> None:
        self.slots = slots


Node = Table | Pairs | bytes | Sequence[Table]  # bytes is a string, a sequence a vector


def build(root: Table) -> bytes:
    """The buffer that holds `root`, padded to a multiple of 8 bytes."""
    out = bytearray(4)
    _point(out, 0, root)
    return bytes(out) + bytes(-len(out) % 8)


def _point(out: bytearray, at: int, node: Node) -> None:
    """Append `node`, and let the offset at `at` lead to it."""
    struct.pack_into("<I", out, at, _append(out, node) - at)


def _append(out: bytearray, node: Node) -> int:
    """Append `node` and all below it; where it begins."""
    if isinstance(node, Table):
        return _append_table(out, node)
    if isinstance(node, Pairs):
        out += bytes(-(len(out) + 4) % 8)  # the elements are aligned to 8, not their count
        numbers = [number for row in node.rows for number in row]
        out += struct.pack(f"<I{len(numbers)}q", len(node.rows), *numbers)
        return len(out) - 4 - 8 * len(numbers)
    out += bytes(-len(out) % 4)
    start = len(out)
    if isinstance(node, bytes):
        out += struct.pack("<I", len(node)) + node + b"\0"
        return start
    out += struct.pack("<I", len(node)) + bytes(4 * len(node))
    for index, child in enumerate(node):
        _point(out, start + 4 + 4 * index, child)
    return start


def _append_table(out: bytearray, table: Table) -> int:
    sizes = [_size(slot) for slot in table.slots]
    vtable_size = 4 + 2 * len(sizes)
    # Largest slots first, from a place that is a multiple of 8: then each is aligned to its size.
    out += bytes(-(len(out) + vtable_size + 4) % 8)
    places, end = [0] * len(sizes), 4
    for index in sorted(range(len(sizes)), key=lambda index: -sizes[index]):
        if sizes[index]:
            places[index] = end
            end += sizes[index]
    out += struct.pack(f"<HH{len(places)}H", vtable_size, end, *places)
    start = len(out)
    out += struct.pack("<i", vtable_size) + bytes(end - 4)
    for place, slot in zip(places, table.slots, strict=True):
        if isinstance(slot, Scalar):
            struct.pack_into("<" + slot.code, out, start + place, slot.number)
        elif slot is not None:
            _point(out, start + place, slot)
    return start


def _size(slot: Scalar | Node | None) -> int:
    if slot is None:
        return 0
    return struct.calcsize("<" + slot.code) if isinstance(slot, Scalar) else 4
