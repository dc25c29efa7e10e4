"""What the autograd graph shows before backward: every ReLU, however it is spelled.

Hooks on modules cannot see `F.relu(x)` or `x.relu_()`; the graph can. On measured steps each module
notes the graph nodes of its outputs and inputs; from the loss we walk back and give every
activation node a name: the module that it is inside of, else the one that feeds it. Saved tensors
can be read only before backward frees them, and not where reading would recompute a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nndiag.adapters.pytorch.tensor_stats import is_measurable

MAX_NODES = 20_000
KEPT_CALLS = 2  # of one module: a discriminator sees real and generated samples
CHANNELS_FIRST = ("Conv", "BatchNorm", "InstanceNorm", "GroupNorm", "Pool")
RECURRENT = ("RNN", "LSTM", "GRU", "RNNCell", "LSTMCell", "GRUCell")
SATURATING = {"TanhBackward0": "tanh", "SigmoidBackward0": "sigmoid"}


@dataclass(slots=True, eq=False)
class ModuleCall:
    """One call of a leaf module in the forward pass that is being measured."""

    module: nn.Module
    packed: bool  # its saved tensors are under hooks: reading them may run a forward
    outputs: tuple[Any, ...] = ()  # graph nodes
    inputs: tuple[Any, ...] = ()

    @property
    def kind(self) -> str:
        return type(self.module).__name__


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation found in the graph. Shapes: C units; `values` is the output or the input."""

    module: nn.Module  # that it is inside of, or that feeds it
    spelling: str  # the node's name, "ReluBackward0"
    values: Tensor  # its output, or an input of which positive means alive
    unit_axis: int
    saturating: str = ""  # "tanh" or "sigmoid"; "" for ReLU and its kin


class ForwardMap:
    """Which graph nodes the modules of a forward pass took in and gave out.

    A node that is kept keeps what it saved, so only the newest calls of a module are: a script that
    validates without `no_grad` must not run out of memory because of us.
    """

    def __init__(self) -> None:
        self.outputs: dict[Any, ModuleCall] = {}
        self._calls: dict[int, list[ModuleCall]] = {}  # id(module) -> newest calls

    def clear(self) -> None:
        self.outputs.clear()
        self._calls.clear()

    def note(self, call: ModuleCall, inputs: Iterable[Tensor], outputs: Iterable[Tensor]) -> None:
        """Remember one module call; the innermost module of a node is the one noted first."""
        call.inputs = tuple(t.grad_fn for t in inputs if t.grad_fn is not None)
        call.outputs = tuple(t.grad_fn for t in outputs if t.grad_fn is not None)
        for node in call.outputs:
            self.outputs.setdefault(node, call)
        calls = self._calls.setdefault(id(call.module), [])
        calls.append(call)
        if len(calls) > KEPT_CALLS:
            for node in calls.pop(0).outputs:
                self.outputs.pop(node, None)

    def activations(self, loss: Tensor) -> Iterator[Activation]:
        """Every ReLU, tanh and sigmoid on the way from the loss to the parameters."""
        for node, inside in self._walk(loss.grad_fn):
            kind = type(node).__name__
            read = READERS.get(kind)
            if read is None:
                continue
            source = inside or self._feeder(node)
            if source is None or source.packed or source.kind in RECURRENT:
                continue
            values = _read(read, node)
            if values is not None and is_measurable(values) and values.ndim >= 2:
                axis = self._unit_axis(values, source, node)
                yield Activation(source.module, kind, values, axis, SATURATING.get(kind, ""))

    def _walk(self, start: Any) -> Iterator[tuple[Any, ModuleCall | None]]:
        """Nodes from the loss backwards, each with the leaf module that it is inside of."""
        stack: list[tuple[Any, ModuleCall | None]] = [(start, None)]
        seen: set[Any] = set()
        while stack and len(seen) < MAX_NODES:
            node, inside = stack.pop()
            if node is None or node in seen:
                continue
            seen.add(node)
            if inside is not None and node in inside.inputs:
                inside = None
            inside = self.outputs.get(node, inside)
            yield node, inside
            stack.extend((child, inside) for child, _ in node.next_functions)

    def _feeder(self, node: Any, depth: int = 12) -> ModuleCall | None:
        """The module whose output comes into a node: back along the first input."""
        for _ in range(depth):
            following = [n for n, _ in node.next_functions if n is not None]
            if not following:
                return None
            node = following[0]
            if node in self.outputs:
                return self.outputs[node]
        return None

    def _unit_axis(self, values: Tensor, source: ModuleCall, node: Any) -> int:
        """The dimension of units: 1 for convolutions (N, C, ...), the last for (N, ..., C)."""
        kind = source.kind
        if not any(word in kind for word in CHANNELS_FIRST):
            feeder = self._feeder(node)
            kind = feeder.kind if feeder is not None else kind
        first = any(word in kind for word in CHANNELS_FIRST) and "LayerNorm" not in kind
        if values.ndim == 4 and not first:
            first = "Linear" not in kind and "Norm" not in kind
        return 1 if first and values.ndim > 2 else -1


def _read(read: Callable[[Any], Tensor | None], node: Any) -> Tensor | None:
    """A saved tensor, or None where it was changed in place or freed since."""
    try:
        return read(node)
    except RuntimeError:
        return None


def _clamp_at_zero(node: Any) -> Tensor | None:
    """`clamp(min=0)` and ReLU6; None for any other clamp."""
    low = getattr(node, "_saved_min", getattr(node, "_saved_min_val", None))
    return node._saved_self if low is not None and float(low) == 0 else None


READERS: dict[str, Callable[[Any], Tensor | None]] = {
    "ReluBackward0": lambda node: node._saved_result,
    "ThresholdBackward0": lambda node: node._saved_self if node._saved_threshold == 0 else None,
    "HardtanhBackward0": _clamp_at_zero,
    "ClampBackward1": _clamp_at_zero,
    "ClampMinBackward0": _clamp_at_zero,
    "TanhBackward0": lambda node: node._saved_result,
    "SigmoidBackward0": lambda node: node._saved_result,
}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a graph first holds a value that is not finite."""

    kind: str  # "input", "activation", "parameter" or "loss"
    where: int | None  # id of a parameter that belongs to the operation, or feeds it
    detail: str  # name of the graph node


def first_nonfinite(loss: Tensor) -> Origin:
    """The first operation, in forward order, that saved a NaN or an infinity for backward.

    Sequence numbers of graph nodes follow the forward pass. Where all that was saved is finite,
    the loss itself made it: a log or a division after the last layer.
    """
    nodes = sorted(_reachable(loss.grad_fn), key=lambda n: n._sequence_nr())
    nearest: dict[Any, int] = {}  # node -> id of the parameter last met on the way to it
    for node in nodes:
        own = [
            n.variable for n, _ in node.next_functions if n is not None and hasattr(n, "variable")
        ]
        behind = [nearest[n] for n, _ in node.next_functions if n in nearest]
        if own or behind:
            nearest[node] = id(own[-1]) if own else behind[-1]
        for variable in own:
            if not _finite(variable):
                return Origin("parameter", id(variable), type(node).__name__)
        for attribute in dir(node):
            if attribute.startswith("_saved_") and not _saved_is_finite(node, attribute):
                kind = "activation" if behind or attribute == "_saved_result" else "input"
                where = behind[-1] if behind else nearest.get(node)
                return Origin(kind, where, type(node).__name__)
    last = nodes[-1] if nodes else None
    return Origin("loss", None, type(last).__name__ if last is not None else "")


def _reachable(start: Any) -> list[Any]:
    """The operations behind a loss, without the leaves that hold parameters."""
    found: list[Any] = []
    stack, seen = [start], {None}
    while stack and len(found) < MAX_NODES:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if not hasattr(node, "variable"):
            found.append(node)
        stack.extend(child for child, _ in node.next_functions)
    return found


def _saved_is_finite(node: Any, attribute: str) -> bool:
    value: object = _read(lambda n: getattr(n, attribute), node)
    values = value if isinstance(value, tuple) else (value,)
    return all(_finite(v) for v in values if isinstance(v, Tensor))


def _finite(tensor: Tensor) -> bool:
    return not is_measurable(tensor) or bool(torch.isfinite(tensor).all())
