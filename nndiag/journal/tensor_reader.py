"""Reads tensor files; see `tensors`. Nothing in them is trusted, and nothing is executed."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from nndiag.errors import UnreadableLog
from nndiag.journal.reader import regular_content
from nndiag.journal.tensors import HEADER, ITEM_BYTES

TENSOR_BYTES = 16 << 30  # of one file
HEADER_BYTES = 8 << 20  # 80,000 tensors
MOST_DIMENSIONS = 16
MOST_NUMBERS = 2**47  # of a tensor, one without numbers included

_NUMPY = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U8": "u1",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """One tensor of a file, as bytes."""

    dtype: str  # a key of ITEM_BYTES
    shape: tuple[int, ...]
    content: memoryview  # C order, little-endian

    def array(self) -> np.ndarray:
        """A read-only array of that shape; bfloat16, which numpy lacks, as float32."""
        if self.dtype == "BF16":
            upper = np.frombuffer(self.content, "<u2").astype(np.uint32) << 16
            return upper.view(np.float32).reshape(self.shape)
        if self.dtype == "BOOL":  # of any byte one of its two values
            array: np.ndarray = np.frombuffer(self.content, "u1") != 0
            return array.reshape(self.shape)
        return np.frombuffer(self.content, _NUMPY[self.dtype]).reshape(self.shape)


def read_tensors(
    path: str | os.PathLike[str], most: int = TENSOR_BYTES
) -> Mapping[str, StoredTensor]:
    """Every tensor of the file at `path`, by name; of a file of more than `most` bytes none.

    Raises `UnreadableLog` where it is no regular file, is cut, or says what cannot be.
    """
    where = os.fspath(path)
    content, is_cut = regular_content(path, most)
    if is_cut:
        raise UnreadableLog(where=where, what=f"is larger than {most >> 20} MiB")
    whole = memoryview(content)
    if len(whole) < HEADER.size:
        raise UnreadableLog(where=where, what="is no tensor file: it is too short")
    (length,) = HEADER.unpack(whole[: HEADER.size])
    if length > min(HEADER_BYTES, len(whole) - HEADER.size):
        raise UnreadableLog(where=where, what="is no tensor file, or it was cut")
    try:
        told = json.loads(bytes(whole[HEADER.size : HEADER.size + length]))
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise UnreadableLog(where=where, what="is no tensor file: its header is not JSON")
    numbers = whole[HEADER.size + length :]
    told.pop("__metadata__", None)
    _one_after_the_other(told, len(numbers), where)
    return {name: _tensor(entry, numbers, f"{where}, {name[:80]}") for name, entry in told.items()}


def _one_after_the_other(told: Mapping[str, Any], size: int, where: str) -> None:
    """Refuse tensors that share bytes: a small file would make many large copies."""
    places: list[list[int]] = [
        entry["data_offsets"]
        for entry in told.values()
        if isinstance(entry, dict) and _are_sizes(entry.get("data_offsets"))
    ]
    end = 0
    for begin, next_end in sorted(place for place in places if len(place) == 2):
        if begin != end or next_end < begin:
            raise UnreadableLog(where=where, what="its tensors overlap, or leave gaps")
        end = next_end
    if end != size:
        raise UnreadableLog(where=where, what="it was cut, or holds more than its header names")


def _tensor(entry: Any, numbers: memoryview, where: str) -> StoredTensor:
    """One entry of the header with its bytes, if the two fit together."""
    dtype = entry.get("dtype") if isinstance(entry, dict) else None
    if not isinstance(dtype, str) or dtype not in ITEM_BYTES:
        raise UnreadableLog(where=where, what=f"numbers of a kind we do not know: {dtype!s:.20}")
    shape, place = entry.get("shape"), entry.get("data_offsets")
    if not (_are_sizes(shape) and _are_sizes(place) and len(place) == 2):
        raise UnreadableLog(where=where, what="has no proper shape or place")
    if len(shape) > MOST_DIMENSIONS or prod(n for n in shape if n) > MOST_NUMBERS:
        raise UnreadableLog(where=where, what="has a shape that no tensor has")
    begin, end = place
    size = ITEM_BYTES[dtype] * prod(shape)
    if end - begin != size or end > len(numbers):
        raise UnreadableLog(where=where, what="its bytes are not all there")
    return StoredTensor(dtype, tuple(shape), numbers[begin:end])


def _are_sizes(told: Any) -> bool:
    return isinstance(told, list) and all(type(n) is int and 0 <= n < 2**48 for n in told)
