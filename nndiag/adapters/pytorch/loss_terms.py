"""Which terms of a loss hang on one call of a model, and by which operations.

The graph is followed from the loss down to what the call gave out, and never into the model. The
nodes of a call are known by their sequence numbers, which grow with the forward pass: a number
keeps no graph, no tensor and no batch alive.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch import Tensor

from nndiag.adapters.pytorch.loss_facts import VIEWS
from nndiag.adapters.pytorch.tensor_stats import is_measurable

MAX_NODES = 2000  # between the loss and the call: another model may stand there
MAX_OUTPUTS = 16
MAX_DEPTH = 4
HELD_BYTES = 4 << 20  # of an output, until the backward call that it is for

# Graph node -> what docs/attribution.md calls the loss.
KINDS = {
    "NllLossBackward0": "nll",
    "NllLoss2DBackward0": "nll",
    "MseLossBackward0": "mse",
    "SmoothL1LossBackward0": "smooth-l1",
    "HuberLossBackward0": "huber",
    "BinaryCrossEntropyBackward0": "binary-cross-entropy",
    "BinaryCrossEntropyWithLogitsBackward0": "binary-cross-entropy-with-logits",
    "AbsBackward0": "absolute-difference",  # F.l1_loss, and losses written by hand
    "PowBackward0": "squared-difference",
}
BY_HAND = ("absolute-difference", "squared-difference")
DIFFERENCES = ("SubBackward0", "RsubBackward1")
# What leaves the elements what and where they are.
IN_PLACE = VIEWS - {
    f"{name}Backward0"
    for name in (
        "T", "Transpose", "Permute", "Index", "IndexSelect", "MaskedSelect", "Stack", "Cat",
        "Select", "Slice", "Unbind", "Split", "SplitWithSizes", "Expand", "Movedim",
    )
} - {"TransposeBackward1", "SplitBackward1"}  # fmt: skip
ALONG = ("SliceBackward0", "SelectBackward0")  # as long as it is not along the samples


@dataclass(frozen=True, slots=True)
class Output:
    """A tensor that a call of the model gave out."""

    path: tuple[str | int, ...]  # in what the model returns: (), ("logits",), (1,)
    number: int  # of its graph node
    shape: tuple[int, ...]
    version: int
    tensor: weakref.ref[Tensor]
    alias: Tensor | None = None  # of its memory, without its graph: no variable may hold it

    def value(self) -> Tensor | None:
        """The tensor, if it still is there as it was."""
        tensor = self.tensor() if self.alias is None else self.alias
        return tensor if tensor is not None and tensor._version == self.version else None


@dataclass(frozen=True, slots=True)
class Term:
    """A loss of a known kind, on the way from the whole loss to an output of the call."""

    node: Any
    kind: str
    above: tuple[Any, ...]  # nodes from the whole loss to this one
    below: tuple[Any, ...]  # and on to the output
    output: Output

    @property
    def is_target(self) -> bool:
        """Whether the output is what the loss takes for its target."""
        operands = [operand for operand, _ in self.node.next_functions]
        first = self.below[0] if self.below else None
        if first is not None:
            return first is not operands[0]
        return _number(operands[0]) != self.output.number

    @property
    def keeps_order(self) -> bool:
        """Whether its elements are those of the output in their order, sample after sample."""
        return all(_keeps_order(node) for node in self.below)

    @property
    def sees_output(self) -> bool:
        """Whether it is given the output itself, and nothing that was worked out from it."""
        between = self.below[1:] if self.kind in BY_HAND else self.below
        allowed = ("LogSoftmaxBackward0",) if self.kind == "nll" else ()
        return all(
            _keeps_order(node) and (_is_view(node) or type(node).__name__ in allowed)
            for node in between
        )


@dataclass(frozen=True, slots=True)
class Terms:
    """All that a loss is made of, as far as it hangs on a call."""

    known: tuple[Term, ...] = ()
    others: int = 0  # that hang on it and are of no known kind
    elsewhere: int = 0  # of a known kind, on another call

    @property
    def any(self) -> bool:
        """Whether the loss hangs on the call at all."""
        return bool(self.known or self.others)


def outputs_of(returned: Any) -> tuple[Output, ...]:
    """The tensors in what a call returned that a loss can hang on.

    Of small ones the memory is held: in `l1_loss(model(x), y)` nobody else does until backward.
    """
    return tuple(
        Output(path, number, tuple(t.shape), t._version, weakref.ref(t), _alias(t))
        for path, t in _tensors(returned, ())
        if t.ndim and t.grad_fn is not None and (number := _number(t.grad_fn)) is not None
    )[:MAX_OUTPUTS]


def _alias(tensor: Tensor) -> Tensor | None:
    """It has the version of the tensor itself: what is done to that in place shows."""
    if not is_measurable(tensor) or tensor.untyped_storage().nbytes() > HELD_BYTES:
        return None
    return tensor.detach()


def terms_of(losses: Iterable[Tensor], outputs: Sequence[Output]) -> Terms:
    """The terms that hang on these outputs. No more than the names of graph nodes is read."""
    by_number = {output.number: output for output in outputs}
    if not by_number:
        return Terms()
    floor = min(by_number)
    known: list[Term] = []
    others = elsewhere = 0
    seen: set[Any] = set()
    stack: list[tuple[Any, tuple[Any, ...]]] = [(loss.grad_fn, ()) for loss in losses]
    while stack and len(seen) < MAX_NODES:
        node, above = stack.pop()
        number = _number(node)
        if node in seen or number is None or number < floor:
            continue
        seen.add(node)
        kind = KINDS.get(type(node).__name__)
        if kind is not None and (kind not in BY_HAND or _is_of_difference(node)):
            found = _way_down(node, by_number, floor)
            if found is None:
                elsewhere += 1
            else:
                below, output = found
                known.append(Term(node, kind, above, below, output))
        elif number in by_number:
            others += 1
        else:
            children = [child for child, _ in node.next_functions]
            stack.extend((child, (*above, node)) for child in reversed(children))
    if stack and len(seen) >= MAX_NODES:
        others += 1  # not seen to the end: it may well hang on the call
    return Terms(tuple(known), others, elsewhere)


def _way_down(
    start: Any, outputs: Mapping[int, Output], floor: int
) -> tuple[tuple[Any, ...], Output] | None:
    """The shortest way from a loss to an output: the nodes between the two; None: there is none."""
    seen: set[Any] = set()
    ways: deque[tuple[Any, ...]] = deque([(start,)])
    while ways and len(seen) < MAX_NODES:
        way = ways.popleft()
        for child, _ in way[-1].next_functions:
            number = _number(child)
            if number is None or number < floor or child in seen:
                continue
            seen.add(child)
            if number in outputs:
                return way[1:], outputs[number]
            ways.append((*way, child))
    return None


def _number(node: Any) -> int | None:
    """The place of a node in the forward pass; None for what is no operation."""
    if node is None or hasattr(node, "variable"):  # a parameter
        return None
    return int(node._sequence_nr())


def _is_of_difference(node: Any) -> bool:
    return type(node.next_functions[0][0]).__name__ in DIFFERENCES


def _keeps_order(node: Any) -> bool:
    kind = type(node).__name__
    if kind in ("TransposeBackward0", "TransposeBackward1"):
        return min(_whole(node._saved_dim0), _whole(node._saved_dim1)) >= 1
    if kind == "PermuteBackward0":
        return _whole(node._saved_dims[0]) == 0
    if kind in ALONG:
        return _whole(node._saved_dim) >= 1
    return kind in IN_PLACE or kind in DIFFERENCES or kind == "LogSoftmaxBackward0"


def _is_view(node: Any) -> bool:
    return type(node).__name__ in VIEWS


def _whole(told: int) -> int:
    """A dimension as it was meant: torch shows a negative one without its sign."""
    return told - 2**64 if told >= 2**63 else told


def _tensors(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[Any, Tensor]]:
    """Tensors by their place. What `attribution.objective.tensor_at` finds again."""
    if isinstance(value, Tensor):
        yield path, value
        return
    if len(path) > MAX_DEPTH:
        return
    inner: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, Mapping):
        inner = value.items()
    elif isinstance(value, list | tuple):
        inner = enumerate(value)
    elif dataclasses.is_dataclass(value):
        inner = (
            (field.name, getattr(value, field.name, None)) for field in dataclasses.fields(value)
        )
    elif isinstance(getattr(value, "logits", None), Tensor):
        inner = (("logits", value.logits),)
    for key, one in islice(inner, MAX_OUTPUTS):
        if isinstance(key, str | int):
            yield from _tensors(one, (*path, key))
