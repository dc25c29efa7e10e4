"""Steps that call no hook: of a compiled optimizer, of updates by hand, or none at all.

They are told one backward call later, from parameters that have changed since. What has changed is
known from the version that torch counts up at each change in place, and on the CPU from a few
values, since `p.data` counts apart.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nndiag.adapters.base import NO_GRADIENT
from nndiag.adapters.pytorch.optimizer_hooks import Measured, StepObserver, learning_rates
from nndiag.adapters.pytorch.tensor_stats import Scalar, is_measurable, sample_of

MAX_QUIET = 64  # optimizers that were made and have not stepped yet
MAX_COMPARED = 32  # parameters whose values are compared
VALUES = 16  # of each
# Gradient accumulation over more micro-batches than this is unheard of; our own choice.
PATIENCE = 256  # backward calls without a step, until each of them counts as one
# Backward calls for which one that wraps another optimizer (SAM, Lookahead) is not looked at.
WRAPPED = 4


class Leaves:
    """What the graphs of a script without an optimizer end in, in the form of an optimizer."""

    def __init__(self) -> None:
        self._held: dict[int, weakref.ref[Tensor]] = {}

    def add(self, parameters: Iterable[Tensor]) -> None:
        for parameter in parameters:
            ref = self._held.get(id(parameter))
            if ref is None or ref() is not parameter:
                self._held[id(parameter)] = weakref.ref(parameter)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        alive = (ref() for ref in self._held.values())
        return [{"params": [p for p in alive if p is not None]}]


class ByHand(Leaves):
    """Parameters that the script changes by itself."""


class NoStep(Leaves):
    """Parameters that nothing changes, though gradients are computed for them."""


def nothing_measured() -> Measured:
    return Measured(grad_norm=NO_GRADIENT, clipped=False)


@dataclass(slots=True, eq=False)
class Quiet:
    """An optimizer that no hook has told of, and how its parameters were at the last backward."""

    optimizer: weakref.ref[Any]
    steps: int = 0  # told from changed parameters
    rates: list[Scalar] = field(default_factory=list)
    measured: Measured = field(default_factory=nothing_measured)  # when backward was done
    observer: StepObserver | None = None  # from the first step on
    suspected: int = 0  # backward calls before a change that may have been its first step
    marks_since_shared: int = WRAPPED + 1  # since a hook told of another one's step on these
    _parameters: frozenset[int] = frozenset()
    _versions: int | None = None  # None: not looked at since a step that was seen
    _values: list[Tensor] = field(default_factory=list)

    @property
    def is_assumed(self) -> bool:
        return isinstance(self.optimizer(), NoStep)

    @property
    def is_wrapper(self) -> bool:
        """Another optimizer steps on its parameters; it moves them to and fro (SAM)."""
        return self.marks_since_shared <= WRAPPED

    def mark(self) -> None:
        """Remember how the parameters are now."""
        self.marks_since_shared += 1
        optimizer = self.optimizer()
        if optimizer is None:
            return
        parameters = _parameters(optimizer)
        self._parameters = frozenset(map(id, parameters))
        self._versions = _versions(parameters)
        self._values = [values.clone() for values in _values(parameters)]
        self.rates = learning_rates(optimizer)

    def has_moved(self) -> bool:
        if self._versions is None:
            return False
        parameters = _parameters(self.optimizer())
        if frozenset(map(id, parameters)) != self._parameters:
            return False
        now = _values(parameters)
        if [v.shape for v in now] != [v.shape for v in self._values]:
            return False  # gathered or cut up (FSDP): that is no step
        if _versions(parameters) != self._versions:
            return True
        return not all(torch.equal(a, b) for a, b in zip(now, self._values, strict=True))

    def shares(self, parameters: frozenset[int]) -> bool:
        return not self._parameters.isdisjoint(parameters)

    def overlaps(self, other: Quiet) -> bool:
        return other is not self and self.shares(other._parameters)

    def forget(self) -> None:
        self._versions = None


class UnseenSteps:
    """All optimizers of a process that were made and whose step no hook has told of."""

    def __init__(self) -> None:
        self._quiet: list[Quiet] = []
        self._by_hand = ByHand()
        self._no_step = NoStep()
        self._assumed: Quiet | None = None  # once each backward call counts as a step
        self._looked = 0  # graphs that were searched for parameters
        self._some_hooked = False
        self.asks = False  # whether a backward call was made since parameters were last compared

    def __bool__(self) -> bool:
        return bool(self._quiet)

    def made(self, optimizer: Any) -> None:
        """An optimizer is being made: it has no parameters yet."""
        self._quiet = [q for q in self._quiet if q.optimizer() is not None]
        if len(self._quiet) < MAX_QUIET:
            self._quiet.append(Quiet(weakref.ref(optimizer)))

    def hooked(self, optimizer: Any) -> int:
        """A step is under way that a hook tells of. What it changes is not another's step.

        Gives how many backward calls came before a wrapper of this optimizer moved its parameters
        to look at the loss elsewhere; 0 where none did.
        """
        if not self._some_hooked:
            self._some_hooked = True
            self._assumed = None
            self._quiet = [q for q in self._quiet if not isinstance(q.optimizer(), Leaves)]
        if not self._quiet:
            return 0
        elsewhere = 0
        self._quiet = [q for q in self._quiet if q.optimizer() is not optimizer]
        changed = frozenset(map(id, _parameters(optimizer)))
        for quiet in self._quiet:
            if quiet.shares(changed):
                quiet.forget()
                elsewhere = max(elsewhere, quiet.suspected)
                quiet.marks_since_shared = quiet.suspected = 0
        return elsewhere

    @property
    def wants_leaves(self) -> bool:
        """Whether the graph should be searched for parameters: there is no optimizer at all."""
        if self._some_hooked or any(not isinstance(q.optimizer(), Leaves) for q in self.alive()):
            return False
        self._looked += 1
        return self._looked <= 3 or self._looked % 100 == 0

    def found(self, leaves: list[Tensor]) -> None:
        self._by_hand.add(leaves)
        if not any(q.optimizer() is self._by_hand for q in self._quiet):
            self._quiet.append(Quiet(weakref.ref(self._by_hand)))

    def mark(self) -> None:
        """A backward call has begun."""
        self.asks = True
        for quiet in self._quiet:
            quiet.mark()

    def moved(self) -> list[Quiet]:
        """Those whose parameters have changed since the last backward call."""
        if self._assumed is not None:
            return [self._assumed]
        return [q for q in self._quiet if not q.is_wrapper and q.has_moved()]

    def look_for_wrappers(self, calls: int) -> None:
        """Note which of those that wrap another optimizer moved its parameters after `calls`."""
        for quiet in self._quiet:
            if quiet.is_wrapper and not quiet.suspected and quiet.has_moved():
                quiet.suspected = calls

    def alive(self) -> Iterator[Quiet]:
        return (quiet for quiet in self._quiet if quiet.optimizer() is not None)

    def measured_ones(self) -> list[tuple[Quiet, Any]]:
        """Those that are known to step unseen, with their optimizers."""
        known = [q for q in self.alive() if q.steps]
        return [(quiet, quiet.optimizer()) for quiet in known]

    def ended(self) -> list[Quiet]:
        """Those that stepped unseen and are gone now, with the parameters that would tell more."""
        gone = [quiet for quiet in self._quiet if quiet.optimizer() is None]
        self._quiet = [quiet for quiet in self._quiet if quiet not in gone]
        return [quiet for quiet in gone if quiet.steps]

    def assume(self) -> Quiet:
        """From now on each backward call counts as a step."""
        for quiet in self.alive():
            self._no_step.add(_parameters(quiet.optimizer()))
        self._assumed = Quiet(weakref.ref(self._no_step))
        self._quiet.append(self._assumed)
        return self._assumed


def leaves_of(losses: Iterable[Tensor], limit: int = 20_000) -> list[Tensor]:
    """The tensors that backward accumulates gradients in, in the order of the forward pass."""
    found: dict[int, Tensor] = {}
    stack, seen = [loss.grad_fn for loss in losses], {None}
    while stack and len(seen) < limit:
        node: Any = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        variable = getattr(node, "variable", None)
        if isinstance(variable, Tensor):
            found[id(variable)] = variable
        stack.extend(child for child, _ in node.next_functions)
    return list(reversed(found.values()))


def compiled_autograd_is_on() -> bool:
    """Whether the backward pass will be compiled: then it must see no hook of ours."""
    module = sys.modules.get("torch._dynamo.compiled_autograd")
    return bool(getattr(module, "compiled_autograd_enabled", False))


def _parameters(optimizer: Any) -> list[Tensor]:
    groups = getattr(optimizer, "param_groups", ())
    return [p for group in groups for p in group["params"]]


def _versions(parameters: Iterable[Tensor]) -> int:
    return sum(p._version for p in parameters if not p.is_inference())


def _values(parameters: Iterable[Tensor]) -> list[Tensor]:
    on_cpu = [p for p in parameters if is_measurable(p) and p.device.type == "cpu"]
    return [sample_of(p, VALUES) for p in on_cpu[:MAX_COMPARED]]
