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
LONGEST = 500  # characters of a text
JSON_BYTES = 8 << 20
LOSS_NUMBERS = ("ignore_index", "label_smoothing", "beta", "delta")
LOSS_TENSORS = ("weight", "pos_weight")

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
    owner: str = ""  # the optimizer that counts the step
    loss: float = float("nan")
    before: float = float("nan")  # the usual loss before a spike
    loss_kind: str = ""
    loss_terms: int = 1  # that the whole loss is made of
    loss_numbers: Mapping[str, float] = field(default_factory=dict)
    loss_tensors: Mapping[str, Tensor] = field(default_factory=dict)
    loss_output: tuple[str | int, ...] | None = None  # what the model returns that it is of
    per_sample: Tensor | None = None  # (B,)
    elements: Tensor | None = None  # (R, ...) what the loss of each sample is the mean of
    targets: Tensor | None = None  # (R * n, ...), n elements of each sample
    no_weights_because: str = ""

    def weights(self) -> dict[str, Tensor] | None:
        """Parameters and buffers by name; None where they were not kept."""
        stored = self._stored_weights()
        return (
            None if stored is None else {name: to_torch(tensor) for name, tensor in stored.items()}
        )

    def shapes(self) -> dict[str, tuple[int, ...]] | None:
        """Those of the parameters and buffers; None where they were not kept."""
        stored = self._stored_weights()
        return None if stored is None else {name: tensor.shape for name, tensor in stored.items()}

    def _stored_weights(self) -> Mapping[str, StoredTensor] | None:
        if self.no_weights_because:
            return None
        return read_tensors(os.path.join(self.path, WEIGHTS_FILE))

    def targets_of(self, row: int) -> Tensor | None:
        """(n, ...) targets of one sample."""
        if self.targets is None or not self.rows or self.targets.shape[0] % self.rows:
            return None
        each = self.targets.shape[0] // self.rows
        return self.targets[row * each : (row + 1) * each]


def read_capture(folder: str) -> Captured:
    """The captured batch in `folder`. Raises `UnreadableLog`."""
    if os.path.islink(folder):
        raise UnreadableLog(where=folder, what="a symbolic link, which is not followed")
    told = read_object(os.path.join(folder, CAPTURE_FILE), CAPTURE_SCHEMA, most=JSON_BYTES)
    stored = read_tensors(os.path.join(folder, BATCH_FILE))
    tensors = {name: to_torch(one) for name, one in stored.items()}
    inputs, of_loss = _under("input/", tensors), _under("loss/", tensors)
    made_of, call = _object(told, "loss_made_of"), _object(told, "call")
    rows, samples = _whole(told, "rows"), _whole(told, "samples")
    batched = frozenset(
        name
        for name in _texts(told, "batched")
        if name in inputs and inputs[name].ndim and inputs[name].shape[0] == rows
    )
    args, kwargs = call.get("args"), call.get("kwargs")
    if not 0 < rows <= samples or not batched:
        raise UnreadableLog(where=folder, what="holds no samples")
    if not isinstance(args, list) or not isinstance(kwargs, dict):
        raise UnreadableLog(where=folder, what="its call is not described")
    for one in (*args, *kwargs.values()):
        put_together(one, inputs)
    per_sample = of_loss.pop("samples", None)
    if per_sample is not None and (
        per_sample.shape != (samples,) or not per_sample.is_floating_point()
    ):
        raise UnreadableLog(where=folder, what="the losses are not those of its samples")
    elements = of_loss.get("elements")
    if elements is not None and (elements.shape[:1] != (rows,) or elements.ndim < 2):
        raise UnreadableLog(where=folder, what="the elements of the losses are of other rows")
    missing = _text(told, "no_weights_because")
    if not missing and not os.path.lexists(os.path.join(folder, WEIGHTS_FILE)):
        missing = "their file is missing"
    return Captured(
        path=folder,
        name=os.path.basename(os.path.normpath(folder)),
        step=_whole(told, "step"),
        why=_text(told, "why"),
        model=_text(told, "model"),
        samples=samples,
        rows=rows,
        inputs=inputs,
        batched=batched,
        args=args,
        kwargs=kwargs,
        owner=_text(told, "owner"),
        loss=_number(told, "loss"),
        before=_number(told, "before"),
        loss_kind=_text(made_of, "kind"),
        loss_terms=_whole(made_of, "terms"),
        loss_numbers={k: _number(made_of, k) for k in LOSS_NUMBERS if k in made_of},
        loss_tensors={k: t for k, t in of_loss.items() if k in LOSS_TENSORS},
        loss_output=_place(made_of.get("output")),
        per_sample=per_sample,
        elements=elements,
        targets=of_loss.get("targets"),
        no_weights_because=missing,
    )


def to_torch(stored: StoredTensor) -> Tensor:
    """A tensor of its own memory, on the CPU."""
    dtype = DTYPES[stored.dtype]
    if not stored.content.nbytes:
        return torch.empty(stored.shape, dtype=dtype, device="cpu")
    if dtype is torch.bool:  # of any byte one of its two values
        return (
            torch.frombuffer(bytearray(stored.content), dtype=torch.uint8)
            .reshape(stored.shape)
            .ne(0)
        )
    return torch.frombuffer(bytearray(stored.content), dtype=dtype).reshape(stored.shape)


def put_together(described: Any, tensors: Mapping[str, Tensor], depth: int = 0) -> Any:
    """The argument that a description stands for. Raises `UnreadableLog` for another form."""
    if isinstance(described, dict) and len(described) == 1 and depth <= MAX_DEPTH:
        [(kind, value)] = described.items()
        if kind == "tensor" and isinstance(value, str) and value in tensors:
            return tensors[value]
        if kind == "value" and (value is None or isinstance(value, bool | int | float | str)):
            return value
        if kind in ("list", "tuple") and isinstance(value, list):
            inner = [put_together(one, tensors, depth + 1) for one in value]
            return tuple(inner) if kind == "tuple" else inner
        if kind == "dict" and isinstance(value, list) and all(map(_is_pair, value)):
            return {key: put_together(one, tensors, depth + 1) for key, one in value}
    raise UnreadableLog(where=CAPTURE_FILE, what="the call is described in an unknown form")


def _is_pair(told: Any) -> bool:
    return isinstance(told, list) and len(told) == 2 and isinstance(told[0], str)


def _under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): t for k, t in tensors.items() if k.startswith(prefix)}


def _object(told: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = told.get(key)
    return value if isinstance(value, dict) else {}


def _texts(told: Mapping[str, Any], key: str) -> list[str]:
    value = told.get(key)
    return [one for one in value if isinstance(one, str)] if isinstance(value, list) else []


def _text(told: Mapping[str, Any], key: str) -> str:
    value = told.get(key)
    return value[:LONGEST] if isinstance(value, str) else ""


def _place(told: Any) -> tuple[str | int, ...] | None:
    """Where in the output the loss hangs."""
    if not isinstance(told, list) or len(told) > MAX_DEPTH:
        return None
    is_place = all(isinstance(one, str) or (type(one) is int and one >= 0) for one in told)
    return tuple(told) if is_place and not any(str(one).startswith("_") for one in told) else None


def _whole(told: Mapping[str, Any], key: str) -> int:
    value = told.get(key)
    return value if type(value) is int and 0 <= value < 2**48 else 0


def _number(told: Mapping[str, Any], key: str) -> float:
    """A number; NaN and infinities come as strings."""
    value = told.get(key)
    try:
        return float(value) if isinstance(value, int | float | str) else float("nan")
    except (OverflowError, ValueError):
        return float("nan")
