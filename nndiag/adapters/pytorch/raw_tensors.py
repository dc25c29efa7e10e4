"""Tensors of torch as named bytes, without numpy: the training's environment may have none."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from nndiag.adapters.base import NamedTensor

DTYPES = {
    torch.float64: "F64", torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16",
    torch.int64: "I64", torch.int32: "I32", torch.int16: "I16", torch.int8: "I8",
    torch.uint8: "U8", torch.bool: "BOOL",
}  # fmt: skip


def can_be_written(tensor: Tensor) -> bool:
    """Whether it is a plain array of numbers of a kind that a tensor file has."""
    is_plain = type(tensor).__torch_dispatch__ is Tensor.__torch_dispatch__  # no wrapper of others
    return (
        is_plain
        and not tensor.is_nested
        and not tensor.is_meta
        and not tensor.is_quantized
        and tensor.layout is torch.strided
        and tensor.dtype in DTYPES
    )


def named(name: str, tensor: Tensor) -> NamedTensor:
    """The tensor under a name. It is read when it is written, so it must not change before."""
    tensor = tensor.detach()

    def content() -> memoryview:
        plain = tensor.to("cpu").resolve_conj().resolve_neg().contiguous()
        return _bytes_of(plain)

    return NamedTensor(name, DTYPES[tensor.dtype], tuple(tensor.shape), content)


def _bytes_of(tensor: Tensor) -> memoryview:
    """The memory of a contiguous CPU tensor; the view keeps the tensor alive."""
    size = tensor.numel() * tensor.element_size()
    if not size:
        return memoryview(b"")
    array = (ctypes.c_ubyte * size).from_address(tensor.data_ptr())
    array.owner = tensor  # type: ignore[attr-defined]  # a ctypes array takes attributes
    return memoryview(array).cast("B")
