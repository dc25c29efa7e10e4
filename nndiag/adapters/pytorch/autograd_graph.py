"""What the autograd graph shows before backward: every ReLU, however it is spelled.

Hooks on modules cannot see `F.relu(x)` or `x.relu_()`; the graph can. On measured steps each module
notes the graph nodes of its outputs and inputs; from the loss we walk back and give every
activation node a name: the module that it is inside of, else the one that feeds it. Saved tensors
can be read only before backward frees them, and not where reading would recompute a checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nndiag.adapters.pytorch.ranks import kind_of
from nndiag.adapters.pytorch.tensor_stats import is_freed, is_measurable

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
        return kind_of(self.module)


@dataclass(frozen=True, slots=True)
class Activation:
    """An activation found in the graph. Shapes: C units; `values` is the output or the input."""

    module: nn.Module  # that it is inside of, or that feeds it
    spelling: str  # the node's name, "ReluBackward0"
    values: Tensor  # its output, or an input of which positive means alive
    unit_axis: int
    saturating: str = ""  # "tanh" or "sigmoid"; "" for ReLU and its kin
    is_output: bool = False  # of `module`, as it is


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

    def activations(self, losses: Iterable[Tensor]) -> Iterator[Activation]:
        """Every ReLU, tanh and sigmoid on the way from the losses to the parameters."""
        for node, inside in self._walk([loss.grad_fn for loss in losses]):
            kind = type(node).__name__
            name, is_one = READERS.get(kind, ("", _always))
            if not name or not is_one(node):
                continue
            source = inside or self._feeder(node)
            if source is None or source.packed or source.kind in RECURRENT:
                continue
            values = saved(node, name)
            if is_measurable(values) and values.ndim >= 2:
                axis = self._unit_axis(values, source, node)
                is_output = name == "result" and inside is not None and node in inside.outputs
                limits = SATURATING.get(kind, "")
                yield Activation(source.module, kind, values, axis, limits, is_output)

    def _walk(self, starts: Iterable[Any]) -> Iterator[tuple[Any, ModuleCall | None]]:
        """Nodes from the losses backwards, each with the leaf module that it is inside of."""
        stack: list[tuple[Any, ModuleCall | None]] = [(start, None) for start in starts]
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


def saved(node: Any, name: str) -> Any:
    """What a node saved under `name`; None where reading would run code, or it is gone.

    Hooks on saved tensors recompute a checkpoint, or fetch from a disk. A tensor that was changed
    in place or freed since cannot be read.
    """
    raw = getattr(node, f"_raw_saved_{name}", None)
    several = raw if isinstance(raw, tuple | list) else [raw]
    if any(getattr(one, "unpack_hook", None) is not None for one in several):
        return None
    try:
        saved = getattr(node, f"_saved_{name}", None)
        if isinstance(saved, Tensor) and saved.layout is torch.strided and is_freed(saved):
            return None
        return saved
    except RuntimeError:
        return None


def _clamps_at_zero(node: Any) -> bool:
    low = saved(node, "min")
    low = saved(node, "min_val") if low is None else low
    return low is not None and float(low) == 0


def _always(node: Any) -> bool:
    return True


# Node -> what it saved that tells which units are alive, and whether it is a ReLU at all.
READERS: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "ReluBackward0": ("result", _always),
    "ThresholdBackward0": ("self", lambda node: saved(node, "threshold") == 0),
    "HardtanhBackward0": ("self", _clamps_at_zero),  # ReLU6
    "ClampBackward1": ("self", _clamps_at_zero),
    "ClampMinBackward0": ("self", _clamps_at_zero),
    "TanhBackward0": ("result", _always),
    "SigmoidBackward0": ("result", _always),
}


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a graph first holds a value that is not finite."""

    kind: str  # "input", "activation", "parameter" or "loss"
    where: int | None  # id of a parameter that belongs to the operation, or feeds it
    detail: str  # name of the graph node


# Where a saved tensor came from: its place among the node's inputs.
INPUTS = {"self": 0, "input": 0, "other": 1, "mat1": 1, "mat2": 2}
RESULTS = ("result", "output", "out")
# What makes an infinity of finite numbers without saving it: the operand to look at, and the bad.
SINGULAR: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "LogBackward0": ("self", lambda x: x <= 0),
    "Log2Backward0": ("self", lambda x: x <= 0),
    "Log10Backward0": ("self", lambda x: x <= 0),
    "Log1PBackward0": ("self", lambda x: x <= -1),
    "DivBackward0": ("other", lambda x: x == 0),
}


def first_nonfinite(losses: Iterable[Tensor]) -> Origin:
    """The first operation, in forward order, that saved a NaN or an infinity for backward.

    Sequence numbers of graph nodes follow the forward pass. Where all that was saved is finite,
    the loss itself made it: a log or a division after the last layer.
    """
    nodes = sorted(_reachable([loss.grad_fn for loss in losses]), key=lambda n: n._sequence_nr())
    nearest: dict[Any, int] = {}  # node -> id of the parameter last met on the way to it
    for node in nodes:
        own = [v for n, _ in node.next_functions if (v := getattr(n, "variable", None)) is not None]
        own = [variable for variable in own if isinstance(variable, nn.Parameter)]
        behind = [nearest[n] for n, _ in node.next_functions if n in nearest]
        if own or behind:
            nearest[node] = id(own[-1]) if own else behind[-1]
        for variable in own:
            if not _finite(variable):
                return Origin("parameter", id(variable), type(node).__name__)
        for name in _saved_names(node):
            if not _all_finite(saved(node, name)):
                return _origin(node, name, nearest)
    for node in reversed(nodes):
        name, is_bad = SINGULAR.get(type(node).__name__, ("", torch.isnan))
        values = saved(node, name) if name else None
        if isinstance(values, Tensor) and bool(is_bad(values).any()):
            return Origin("loss", None, type(node).__name__)
    return Origin("loss", None, type(nodes[-1]).__name__ if nodes else "")


def _origin(node: Any, name: str, nearest: Mapping[Any, int]) -> Origin:
    """Who made the bad tensor that `node` saved under `name`."""
    if name.startswith(RESULTS):
        return Origin("activation", nearest.get(node), type(node).__name__)
    place = INPUTS.get(name)
    maker = node.next_functions[place][0] if place is not None else None
    if maker is None or hasattr(maker, "variable"):  # no operation with a gradient: data
        return Origin("input", nearest.get(node), type(node).__name__)
    return Origin("activation", nearest.get(maker), type(maker).__name__)


def _saved_names(node: Any) -> list[str]:
    """What a node saved for backward, but for masks: an infinity is at home there."""
    names = [name.removeprefix("_saved_") for name in dir(node) if name.startswith("_saved_")]
    return [name for name in names if "mask" not in name and name != "attn_bias"]


def _reachable(starts: Iterable[Any]) -> list[Any]:
    """The operations behind the losses, without the leaves that hold parameters."""
    found: list[Any] = []
    stack, seen = [*starts], {None}
    while stack and len(found) < MAX_NODES:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if not hasattr(node, "variable"):
            found.append(node)
        stack.extend(child for child, _ in node.next_functions)
    return found


def _all_finite(value: object) -> bool:
    values = value if isinstance(value, tuple | list) else (value,)
    return all(_finite(v) for v in values if isinstance(v, Tensor))


def _finite(tensor: Tensor) -> bool:
    return not is_measurable(tensor) or bool(torch.isfinite(tensor).all())
