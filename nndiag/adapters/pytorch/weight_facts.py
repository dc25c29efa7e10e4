"""Weights whose units all begin alike, and whether they stay so.

Only what begins so is followed: in the first measured step the first rows of each weight are
compared, after that all rows of those few, ever more seldom. A last layer that starts at zero on
purpose has left that state after a step or two.

Shapes: K weights; U units (rows) of each, n of their numbers.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from nndiag.adapters.pytorch.discovery import Model
from nndiag.adapters.pytorch.loss_taps import Scalar
from nndiag.adapters.pytorch.optimizer_hooks import StepObserver
from nndiag.adapters.pytorch.tensor_stats import is_measurable
from nndiag.adapters.pytorch.transfer import Transfer

UNITS = 64  # compared in the first look
NUMBERS = 256  # of each unit, in the first look
MAX_WEIGHTS = 1_000  # looked at first
MAX_FOLLOWED = 32  # that begin alike
OTHERS = ("Embedding", "Norm")  # kinds of modules whose rows may well be alike

Named = list[tuple[str, Tensor]]


@dataclass(slots=True, eq=False)
class Followed:
    """A weight that began with identical units."""

    name: str
    weight: weakref.ref[Tensor]
    looks: int = 0
    differ: bool = False


class WeightFacts:
    """Follows the weights of each optimizer."""

    def __init__(self, tell: Callable[..., None], transfer: Transfer) -> None:
        self._tell = tell
        self._transfer = transfer
        self._followed: dict[int, list[Followed]] = {}  # by index of the observer

    def is_new(self, observer: StepObserver) -> bool:
        return observer.index not in self._followed

    def look_again(self, observer: StepObserver) -> None:
        """Look at the weights that began alike, as a measured step left them."""
        for one in self._followed[observer.index]:
            one.looks += 1
            weight = one.weight()
            due = one.looks & (one.looks - 1) == 0  # 1, 2, 4, 8, ...
            if due and not one.differ and weight is not None and is_measurable(weight):
                self._compare(observer, one, weight)

    def look_first(self, observer: StepObserver, named: Named, models: list[Model]) -> None:
        """Find the weights that begin alike; `named`: all that the optimizer has."""
        weights = _weights(named, models)
        followed: list[Followed] = []
        self._followed[observer.index] = followed
        values: list[Scalar] = []
        for _, p in weights:
            x = p.detach()[:UNITS].flatten(1)[:, :NUMBERS]
            values.append((x == x[:1]).all())
        if not values:
            return
        refs = [(name, weakref.ref(p)) for name, p in weights]

        def deliver(numbers: list[float]) -> None:
            alike = [ref for ref, number in zip(refs, numbers, strict=True) if number]
            followed.extend(Followed(name, ref) for name, ref in alike[:MAX_FOLLOWED])

        self._transfer.send(values, deliver)

    def _compare(self, observer: StepObserver, one: Followed, weight: Tensor) -> None:
        x = weight.detach().flatten(1)
        step, owner, units = observer.steps, observer.owner, x.shape[0]
        values: list[Scalar] = [(x == x[:1]).all(), torch.count_nonzero(x) == 0]

        def deliver(numbers: list[float]) -> None:
            one.differ = not numbers[0]
            told = {"units": units, "identical": bool(numbers[0]), "zero": bool(numbers[1])}
            self._tell("weights", step, one.name, owner, told, state=step)

        self._transfer.send(values, deliver)


def _weights(named: Named, models: list[Model]) -> Named:
    """Matrices and kernels of several units, by what they are called."""
    found = []
    for name, p in named:
        layer = next((m.layer_of[id(p)] for m in models if id(p) in m.layer_of), None)
        kinds = (m.kinds.get(layer, "") for m in models if layer is not None)
        kind = next((k for k in kinds if k), "")
        if layer is None or not p.requires_grad or any(word in kind for word in OTHERS):
            continue
        if is_measurable(p) and p.ndim >= 2 and p.shape[0] >= 2 and p[0].numel() >= 2:
            found.append((name, p))
    return found[:MAX_WEIGHTS]
