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
HEADER_BYTES = 32 << 20
MOST_DIMENSIONS = 16

_NUMPY = {
    "F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1",
    "U8": "u1", "BOOL": "?",
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
        return np.frombuffer(self.content, _NUMPY[self.dtype]).reshape(self.shape)


def read_tensors(path: str | os.PathLike[str]) -> Mapping[str, StoredTensor]:
    """Every tensor of the file at `path`, by name.

    Raises `UnreadableLog` where it is no regular file, is cut, or says what cannot be.
    """
    where = os.fspath(path)
    content, is_cut = regular_content(path, TENSOR_BYTES)
    if is_cut:
        raise UnreadableLog(where=where, what=f"is larger than {TENSOR_BYTES >> 30} GiB")
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
    return {
        name: _tensor(entry, numbers, f"{where}, {name[:80]}")
        for name, entry in told.items()
        if name != "__metadata__"
    }


def _tensor(entry: Any, numbers: memoryview, where: str) -> StoredTensor:
    """One entry of the header with its bytes, if the two fit together."""
    dtype = entry.get("dtype") if isinstance(entry, dict) else None
    if dtype not in ITEM_BYTES:
        raise UnreadableLog(where=where, what=f"numbers of a kind we do not know: {dtype!s:.20}")
    shape, place = entry.get("shape"), entry.get("data_offsets")
    if not (_are_sizes(shape) and _are_sizes(place) and len(place) == 2):
        raise UnreadableLog(where=where, what="has no proper shape or place")
    begin, end = place
    size = ITEM_BYTES[dtype] * prod(shape)
    if len(shape) > MOST_DIMENSIONS or end - begin != size or end > len(numbers):
        raise UnreadableLog(where=where, what="its bytes are not all there")
    return StoredTensor(dtype, tuple(shape), numbers[begin:end])


def _are_sizes(told: Any) -> bool:
    return isinstance(told, list) and all(type(n) is int and 0 <= n < 2**48 for n in told)
