"""Reads a captured batch: the call, the losses, the parameters as they were."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nndiag.errors import UnreadableLog
from nndiag.journal.format import BATCH_FILE, CAPTURE_FILE, CAPTURE_SCHEMA, WEIGHTS_FILE
from nndiag.journal.reader import read_object
from nndiag.journal.tensor_reader import StoredTensor, read_tensors

MAX_DEPTH = 12

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Captured:
    """A batch as the training saw it. B samples, of which the first R are here."""

    path: str
    name: str  # "step-612", "end"
    step: int
    why: str  # "spike", "nonfinite", "end"
    model: str  # class name
    samples: int  # B
    rows: int  # R
    inputs: Mapping[str, Tensor]  # (R, ...) those that are `batched`
    batched: frozenset[str]
    args: list[Any]  # descriptions, see adapters/pytorch/call_tree.py
    kwargs: Mapping[str, Any]
    loss: float = float("nan")
    before: float = float("nan")  # the usual loss before a spike
    loss_kind: str = ""
    loss_numbers: Mapping[str, float] = field(default_factory=dict)
    loss_tensors: Mapping[str, Tensor] = field(default_factory=dict)
    per_sample: Tensor | None = None  # (B,)
    targets: Tensor | None = None  # (R * n, ...), n elements of each sample
    no_weights_because: str = ""

    def weights(self) -> dict[str, Tensor] | None:
        """Parameters and buffers by name; None where they were not kept."""
        if self.no_weights_because:
            return None
        stored = read_tensors(os.path.join(self.path, WEIGHTS_FILE))
        return {name: to_torch(tensor) for name, tensor in stored.items()}

    def targets_of(self, row: int) -> Tensor | None:
        """(n, ...) targets of one sample."""
        if self.targets is None or not self.rows or self.targets.shape[0] % self.rows:
            return None
        each = self.targets.shape[0] // self.rows
        return self.targets[row * each : (row + 1) * each]


def read_capture(folder: str) -> Captured:
    """The captured batch in `folder`. Raises `UnreadableLog`."""
    told = read_object(os.path.join(folder, CAPTURE_FILE), CAPTURE_SCHEMA)
    tensors = {
        name: to_torch(stored)
        for name, stored in read_tensors(os.path.join(folder, BATCH_FILE)).items()
    }
    inputs = _under("input/", tensors)
    of_loss = _under("loss/", tensors)
    made_of = told.get("loss_made_of")
    made_of = made_of if isinstance(made_of, dict) else {}
    call = told.get("call")
    call = call if isinstance(call, dict) else {}
    rows = _whole(told, "rows")
    batched = frozenset(
        name
        for name in told.get("batched") or ()
        if name in inputs and inputs[name].ndim and inputs[name].shape[0] == rows
    )
    if not rows or not batched:
        raise UnreadableLog(where=folder, what="holds no samples")
    missing = str(told.get("no_weights_because") or "")
    if not missing and not os.path.lexists(os.path.join(folder, WEIGHTS_FILE)):
        missing = "their file is missing"
    return Captured(
        path=folder,
        name=os.path.basename(os.path.normpath(folder)),
        step=_whole(told, "step"),
        why=str(told.get("why") or ""),
        model=str(told.get("model") or "")[:200],
        samples=_whole(told, "samples"),
        rows=rows,
        inputs=inputs,
        batched=batched,
        args=list(call.get("args") or ()),
        kwargs=dict(call.get("kwargs") or {}),
        loss=_number(told, "loss"),
        before=_number(told, "before"),
        loss_kind=str(made_of.get("kind") or ""),
        loss_numbers={k: float(v) for k, v in made_of.items() if isinstance(v, int | float)},
        loss_tensors={k: t for k, t in of_loss.items() if k not in ("samples", "targets")},
        per_sample=of_loss.get("samples"),
        targets=of_loss.get("targets"),
        no_weights_because=missing,
    )


def to_torch(stored: StoredTensor) -> Tensor:
    """A tensor of its own memory."""
    flat = torch.empty(0, dtype=DTYPES[stored.dtype])
    if stored.content.nbytes:
        flat = torch.frombuffer(bytearray(stored.content), dtype=DTYPES[stored.dtype])
    return flat.reshape(stored.shape)


def put_together(described: Any, tensors: Mapping[str, Tensor], depth: int = 0) -> Any:
    """The argument that a description stands for. Raises `UnreadableLog` for another form."""
    if isinstance(described, dict) and len(described) == 1 and depth <= MAX_DEPTH:
        [(kind, value)] = described.items()
        if kind == "tensor" and value in tensors:
            return tensors[value]
        if kind == "value" and (value is None or isinstance(value, bool | int | float | str)):
            return value
        if kind in ("list", "tuple") and isinstance(value, list):
            inner = [put_together(one, tensors, depth + 1) for one in value]
            return tuple(inner) if kind == "tuple" else inner
        if kind == "dict" and isinstance(value, list):
            return {str(k): put_together(one, tensors, depth + 1) for k, one in value}
    raise UnreadableLog(where=CAPTURE_FILE, what="the call is described in an unknown form")


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def _whole(told: Mapping[str, Any], key: str) -> int:
    value = told.get(key)
    return value if isinstance(value, int) and 0 <= value < 2**48 else 0


def _number(told: Mapping[str, Any], key: str) -> float:
    try:
        return float(told.get(key, "nan"))
    except (TypeError, ValueError):
        return float("nan")
