"""Optimizers that step inside of backward, each as soon as the gradient of its parameter is there.

There is one for each parameter, and no moment at which all gradients exist. All that step in one
backward call are recorded as one optimizer that makes one step.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from nndiag.adapters.pytorch.optimizer_hooks import Measured, StepObserver
from nndiag.adapters.pytorch.ranks import local
from nndiag.adapters.pytorch.samples import Group, grouped
from nndiag.adapters.pytorch.tensor_stats import Scalar, norm_of_norms, norms, sample_of

MAX_GROUPS = 16


class Joined:
    """Several optimizers in the form of one. A subclass has the name of their kind."""

    def __init__(self) -> None:
        self.observer: StepObserver | None = None  # from the end of the first step
        self._parameters = 0  # that stepped in the newest backward
        self._members: dict[int, weakref.ref[Any]] = {}

    def __contains__(self, optimizer: object) -> bool:
        ref = self._members.get(id(optimizer))
        return ref is not None and ref() is optimizer

    def add(self, optimizer: Any) -> None:
        self._members[id(optimizer)] = weakref.ref(optimizer)

    def stepped(self, observer: StepObserver, parameters: int) -> None:
        self.observer, self._parameters = observer, parameters

    def sample_limit(self) -> int:
        """How many coordinates of each parameter to sample before the step under way; 0: none."""
        if self.observer is None or not (self.observer.due or self.observer.follows_update):
            return 0
        return self.observer.limit(self._parameters)

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        """Groups of the same learning rate as one, in the order in which they first stepped."""
        joined: dict[Any, dict[str, Any]] = {}
        for ref in self._members.values():
            for group in getattr(ref(), "param_groups", ()):
                lr = group.get("lr")
                key = lr if isinstance(lr, int | float) or len(joined) >= MAX_GROUPS else id(lr)
                known = joined.setdefault(key, {**group, "params": []})
                known["params"].extend(group["params"])
        return list(joined.values())


@dataclass(slots=True)
class UnderWay:
    """What the optimizers of one backward call have shown so far. Lists: one for each parameter."""

    optimizer: Joined
    limit: int  # coordinates of each parameter that are sampled; 0: none
    parameters: list[Tensor] = field(default_factory=list)
    norms: list[Scalar] = field(default_factory=list)  # of gradients
    samples: list[Tensor] = field(default_factory=list)  # before the step

    def add(self, parameters: list[Tensor]) -> None:
        """These are about to be changed."""
        self.parameters += parameters
        self.norms += norms([local(p.grad) for p in parameters])
        if self.limit:
            self.samples += [sample_of(local(p), self.limit).clone() for p in parameters]

    def measured(self) -> Measured:
        found = Measured(before=self._before(), clipped=False)
        if self.norms:
            found.grad_norm = norm_of_norms(self.norms)
            found.norms = dict(zip(map(id, self.parameters), self.norms, strict=True))
        return found

    def _before(self) -> list[Group]:
        return grouped([local(p) for p in self.parameters], self.samples) if self.samples else []


class StepsInBackward:
    """Collects them by kind, in one backward call after the other."""

    def __init__(self) -> None:
        self._by_kind: dict[str, Joined] = {}
        self.under_way: dict[str, UnderWay] = {}

    def add(self, optimizer: Any) -> None:
        """`optimizer` is about to step."""
        kind = type(optimizer).__name__
        if kind not in self._by_kind:
            self._by_kind[kind] = type(kind, (Joined,), {})()
        joined = self._by_kind[kind]
        if optimizer not in joined:
            joined.add(optimizer)
        if kind not in self.under_way:
            self.under_way[kind] = UnderWay(joined, joined.sample_limit())
        params = [p for group in optimizer.param_groups for p in group["params"]]
        self.under_way[kind].add([p for p in params if p.grad is not None])

    def take(self) -> list[UnderWay]:
        """All that stepped in the backward that ends now."""
        done = list(self.under_way.values())
        self.under_way = {}
        return done
