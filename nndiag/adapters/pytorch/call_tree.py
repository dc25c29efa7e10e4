"""The arguments of a model's call, taken apart into tensors and a description of the rest.

The description is JSON, so that the call can be put together again with nothing unpickled:

    {"args": [...], "kwargs": {...}}      each value one of
    {"tensor": "0"}  {"list": [...]}  {"tuple": [...]}  {"dict": [[key, value], ...]}  {"value": 3}

B samples are the first dimension of the first tensor; whatever else begins with B is cut with it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from nndiag.adapters.pytorch.raw_tensors import can_be_written
from nndiag.adapters.pytorch.tensor_stats import is_freed

MAX_DEPTH = 6
MAX_TENSORS = 64
MAX_TEXT = 200


class NotKept(Exception):
    """Why the arguments of a call cannot be written down."""


@dataclass(frozen=True, slots=True)
class Tree:
    """The arguments of one call."""

    tensors: Mapping[str, Tensor]  # by their path: "0", "kwargs.input_ids"
    described: Mapping[str, object]
    samples: int  # B
    rows: int  # of B that are kept
    batched: tuple[str, ...] = ()  # the tensors that begin with B


@dataclass(slots=True)
class _Taker:
    """Takes values apart; copies no tensor yet."""

    tensors: dict[str, Tensor] = field(default_factory=dict)

    def take(self, value: Any, path: str, depth: int = 0) -> dict[str, Any]:
        if depth > MAX_DEPTH:
            raise NotKept(f"the argument {path} is nested too deeply")
        if isinstance(value, Tensor):
            return self._tensor(value, path)
        if value is None or isinstance(value, bool | int | float):
            return {"value": value}
        if isinstance(value, str) and len(value) <= MAX_TEXT:
            return {"value": value}
        if type(value) in (list, tuple):
            inner = [self.take(one, f"{path}.{i}", depth + 1) for i, one in enumerate(value)]
            return {type(value).__name__: inner}
        if isinstance(value, Mapping) and all(isinstance(key, str) for key in value):
            pairs = [[k, self.take(v, f"{path}.{k}", depth + 1)] for k, v in value.items()]
            return {"dict": pairs}
        raise NotKept(f"the argument {path} is a {type(value).__name__}")

    def _tensor(self, tensor: Tensor, path: str) -> dict[str, Any]:
        if not can_be_written(tensor) or is_freed(tensor):
            raise NotKept(f"the argument {path} is no plain array of numbers")
        if path in self.tensors:
            raise NotKept(f"two arguments are called {path}")
        if len(self.tensors) >= MAX_TENSORS:
            raise NotKept(f"it has more than {MAX_TENSORS} tensors")
        self.tensors[path] = tensor
        return {"tensor": path}


def tree_of(
    args: tuple[Any, ...], kwargs: Mapping[str, Any], *, rows: int | None, most_bytes: int
) -> Tree:
    """The arguments with copies of at most `rows` samples of their tensors, `most_bytes` in all.

    Raises `NotKept` where there is something that JSON and tensors cannot hold.
    """
    taker = _Taker()
    described = {
        "args": [taker.take(value, str(i)) for i, value in enumerate(args)],
        "kwargs": {key: taker.take(value, key) for key, value in kwargs.items()},
    }
    samples = next((t.shape[0] for t in taker.tensors.values() if t.ndim), 0)
    if not samples:
        raise NotKept("no argument is a tensor with samples in it")
    kept = samples if rows is None else min(rows, samples)
    size = sum(tensor.numel() * tensor.element_size() for tensor in taker.tensors.values())
    if size * kept > most_bytes * samples:
        kept = int(most_bytes * samples / size)
    if not kept:
        raise NotKept(f"one sample takes {size / samples / 1e9:.1f} GB")
    batched = tuple(p for p, t in taker.tensors.items() if t.ndim and t.shape[0] == samples)
    copies = {
        path: (tensor[:kept] if path in batched else tensor).detach().clone()
        for path, tensor in taker.tensors.items()
    }
    return Tree(copies, described, samples, kept, batched)
