"""Which loss the training minimises, and whether it is given what it asks for.

Read from the autograd graph, from the loss a few operations back: modules and functions look alike
there. Nothing that was saved for backward is read but numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from nndiag.adapters.pytorch.autograd_graph import ModuleCall
from nndiag.adapters.pytorch.discovery import Model
from nndiag.adapters.pytorch.optimizer_hooks import StepObserver

MAX_NODES = 200  # of the arithmetic between the loss and what it is made of
MAX_LOSSES = 8  # of one step
FIRST_LOOKS = 16  # measured backward calls that are looked at; then one of LATER
LATER = 16

OPERATIONS = {
    "NllLossBackward0": "nll",
    "NllLoss2DBackward0": "nll",
    "BinaryCrossEntropyBackward0": "binary-cross-entropy",
    "BinaryCrossEntropyWithLogitsBackward0": "binary-cross-entropy-with-logits",
    "MseLossBackward0": "mse",
    "L1LossBackward0": "l1",
    "SmoothL1LossBackward0": "huber",
    "HuberLossBackward0": "huber",
    "KlDivBackward0": "kl-div",
    "CtcLossBackward0": "ctc",
    "CudnnCtcLossBackward0": "ctc",
    "LogSoftmaxBackward0": "log-softmax",
}
PROBABILITIES = {
    "SoftmaxBackward0": "softmax",
    "SigmoidBackward0": "sigmoid",
    "LogSoftmaxBackward0": "log-softmax",
    "LogSigmoidBackward0": "log-sigmoid",
}
SUMS = ("AddBackward0", "SubBackward0", "StackBackward0", "CatBackward0")
# Here the model begins.
LAYERS = frozenset(
    name + "Backward0"
    for name in (
        "Addmm", "Mm", "Bmm", "Baddbmm", "Convolution", "Embedding", "NativeBatchNorm",
        "NativeLayerNorm", "CudnnBatchNorm",
    )
)  # fmt: skip
# What changes no value, or only picks some: a loss sees through them.
VIEWS = frozenset(
    name + "Backward0"
    for name in (
        "View", "UnsafeView", "Reshape", "ReshapeAlias", "Transpose", "T", "Permute", "Squeeze",
        "Unsqueeze", "Select", "Slice", "Index", "Clone", "ToCopy", "Alias", "Expand", "Unbind",
        "Split", "SplitWithSizes", "Stack", "Cat", "IndexSelect", "MaskedSelect", "Movedim",
    )
) | {"SqueezeBackward1", "TransposeBackward1", "SplitBackward1"}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Seen:
    """One loss of a step."""

    operation: str
    classes: int = 0  # 0: unknown
    probabilities: str = ""
    is_mean: bool = False
    whole_loss: bool = False
    module: int = 0  # id of the one that made the probabilities, or feeds what did

    @property
    def numbers(self) -> dict[str, object]:
        return {
            "operation": self.operation,
            "classes": self.classes,
            "probabilities": self.probabilities,
            "is_mean": self.is_mean,
            "whole_loss": self.whole_loss,
        }


class LossFacts:
    """Collects the losses between two steps."""

    def __init__(self, tell: Callable[..., None]) -> None:
        self._tell = tell
        self._seen: list[Seen] = []
        self._looks = 0
        self._places: dict[object, str] = {}  # of those seen: the module, where it was known once

    def clear(self) -> None:
        self._seen = []

    def saw_backward(self, losses: Iterable[Tensor], outputs: Mapping[Any, ModuleCall]) -> None:
        """Look at what is differentiated."""
        self._looks += 1
        if self._looks > FIRST_LOOKS and self._looks % LATER:
            return
        for seen in losses_of([loss.grad_fn for loss in losses], outputs):
            if seen not in self._seen and len(self._seen) < MAX_LOSSES:
                self._seen.append(seen)

    def tell_step(self, observer: StepObserver, models: list[Model]) -> None:
        """Tell the losses of a step."""
        for seen in self._seen:
            names = (model.modules[seen.module] for model in models if seen.module in model.modules)
            variant = tuple(seen.numbers.values())
            where = next(names, "") or self._places.get(variant, "")
            self._places[variant] = where
            self._tell("loss", observer.steps, where, observer.owner, seen.numbers, variant=variant)
        self.clear()


def losses_of(starts: Iterable[Any], outputs: Mapping[Any, ModuleCall]) -> list[Seen]:
    """The losses that these nodes of the graph are made of, the nearest of each branch."""
    found: list[Seen] = []
    stack = [(node, True) for node in starts]
    visited: set[Any] = set()
    while stack and len(visited) < MAX_NODES and len(found) < MAX_LOSSES:
        node, alone = stack.pop()
        if node is None or node in visited:
            continue
        visited.add(node)
        kind = type(node).__name__
        if kind in OPERATIONS:
            found.append(_seen(node, OPERATIONS[kind], alone, outputs))
            continue
        if kind in LAYERS or (node in outputs and outputs[node].module._parameters):
            continue
        following = [child for child, _ in node.next_functions if child is not None]
        alone = alone and len(following) == 1 and kind not in SUMS
        stack.extend((child, alone) for child in reversed(following))
    return found


def _seen(node: Any, operation: str, alone: bool, outputs: Mapping[Any, ModuleCall]) -> Seen:
    """What there is to say of one loss."""
    is_mean = getattr(node, "_saved_reduction", None) == 1
    shape = _shape(node)
    source = _through_views(_first(node))
    kind = type(source).__name__
    probabilities = PROBABILITIES.get(kind, "")
    if operation == "nll":
        shape = _shape(_first(node))
        if kind == "LogSoftmaxBackward0":
            operation = "cross-entropy"
            source = _through_views(_first(source))
            probabilities = PROBABILITIES.get(type(source).__name__, "")
    classes = 0
    if operation in ("nll", "cross-entropy") and shape:
        classes = shape[1] if len(shape) > 1 else shape[0]
    elif operation == "log-softmax" and shape:
        axis = getattr(node, "_saved_dim", -1)
        axis = axis - 2**64 if axis >= 2**63 else axis  # torch shows it without its sign
        classes = shape[axis] if -len(shape) <= axis < len(shape) else 0
    module = _module(source, outputs) if probabilities else 0
    return Seen(operation, classes, probabilities, is_mean, alone, module)


def _first(node: Any) -> Any:
    following = node.next_functions if node is not None else ()
    return following[0][0] if following else None


def _through_views(node: Any) -> Any:
    """The node whose output this is, but for its shape."""
    for _ in range(MAX_NODES):
        if type(node).__name__ not in VIEWS:
            return node
        node = _first(node)
    return node


def _shape(node: Any) -> tuple[int, ...]:
    """The shape of a node's output; empty where torch does not tell."""
    told = getattr(node, "_input_metadata", None)
    if not told:
        return ()
    try:
        return tuple(int(size) for size in told[0].shape)
    except (RuntimeError, TypeError, ValueError):  # a symbolic or a nested shape
        return ()


def _module(node: Any, outputs: Mapping[Any, ModuleCall]) -> int:
    """The module that put this out, else the nearest that feeds it."""
    for _ in range(12):
        if node is None:
            return 0
        if node in outputs:
            return id(outputs[node].module)
        node = _first(node)
    return 0
