"""Tensors as files: written from inside the training, read by anybody. No pickle anywhere.

The format is safetensors (https://huggingface.co/docs/safetensors): eight bytes with the length of
a JSON header, the header (name -> dtype, shape, place of the bytes), then the bytes, little-endian
and row by row. Nothing in it can be executed.

This is the writer: standard library only. The reader is `tensor_reader`.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Callable, Mapping, Sequence
from json import dumps as _dumps
from math import prod
from os import close as _close
from os import open as _open
from os import unlink as _unlink
from os import write as _write
from typing import Final, Protocol

PRIVATE_FILE = 0o600
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
_NEW_FILE |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)

ITEM_BYTES: Final = {
    "F64": 8, "F32": 4, "F16": 2, "BF16": 2,
    "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1,
}  # fmt: skip
HEADER: Final = struct.Struct("<Q")


class Writable(Protocol):
    """A tensor that can be written: its bytes are asked for one tensor at a time."""

    @property
    def name(self) -> str: ...
    @property
    def dtype(self) -> str: ...  # a key of ITEM_BYTES
    @property
    def shape(self) -> Sequence[int]: ...
    @property
    def content(self) -> Callable[[], memoryview]: ...


def size_of(tensor: Writable) -> int:
    """Bytes of its numbers."""
    return ITEM_BYTES[tensor.dtype] * prod(tensor.shape)


def write_tensors(
    path: str, tensors: Sequence[Writable], metadata: Mapping[str, str] | None = None
) -> int:
    """Write a new private file with these tensors; its size in bytes.

    Raises `OSError`; then there is no file. Of a name that comes twice the second is refused.
    """
    header, total = _header(tensors, metadata or {})
    file = _open(path, _NEW_FILE, PRIVATE_FILE)
    try:
        try:
            _write_all(file, header)
            for tensor in tensors:
                _write_all(file, tensor.content())
        finally:
            _close(file)
    except BaseException:
        with contextlib.suppress(OSError):
            _unlink(path)
        raise
    return len(header) + total


def _header(tensors: Sequence[Writable], metadata: Mapping[str, str]) -> tuple[bytes, int]:
    told: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    begin = 0
    for tensor in tensors:
        if tensor.name in told:
            raise ValueError(f"two tensors are called {tensor.name}")
        end = begin + size_of(tensor)
        told[tensor.name] = {
            "dtype": tensor.dtype,
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
        begin = end
    text = _dumps(told, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)  # the numbers begin at a multiple of eight
    return HEADER.pack(len(text)) + text, begin


def _write_all(file: int, content: bytes | memoryview) -> None:
    """All of it, in as many calls as it takes: the kernel takes 2 GiB at most at a time."""
    rest = memoryview(content)
    while rest.nbytes:
        rest = rest[_write(file, rest) :]
