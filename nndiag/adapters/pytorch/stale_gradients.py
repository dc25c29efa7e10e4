"""Whether somebody clears the gradients between two steps of an optimizer.

Certain evidence only. A few gradients are copied right after a step. They are stale if the next
backward call finds them unchanged, no backward call before the next step finds them cleared, and at
that step they lie in the same memory with something added to them. So accumulation over several
backward calls is none, nor is a gradient that other losses soiled and that was cleared after that
(a generator's, in the step of its discriminator). Where the gradient was 0, or nothing was added
to it, as in a dead net, there is nothing to tell.

Shapes: K parameters, n coordinates of each.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nndiag.adapters.pytorch.loss_taps import Start
from nndiag.adapters.pytorch.optimizer_hooks import StepObserver
from nndiag.adapters.pytorch.ranks import PLAIN, is_distributed
from nndiag.adapters.pytorch.tensor_stats import is_freed
from nndiag.adapters.pytorch.transfer import Transfer

PARAMETERS = 8  # looked at, of each optimizer
COORDINATES = 64  # of each
FIRST_STEPS = 8  # measured steps of each optimizer that are judged; then one of LATER
LATER = 16

Tell = Callable[..., None]


@dataclass(slots=True, eq=False)
class Held:
    """The gradients of some parameters as a step left them."""

    parameters: list[weakref.ref[Tensor]]
    values: Tensor  # (K, n), a copy
    kept: Tensor | None = None  # (K,) whether they were found as they were; None: no backward yet
    known: Tensor | None = None  # (K,) whether that could be told: not of a gradient of 0
    places: tuple[int, ...] = ()  # where they lay then, in memory
    gone: bool = False  # whether a backward call found them missing, so that no more need be asked


class StaleGradients:
    """Looks at the gradients of each optimizer in some of its steps."""

    def __init__(self, tell: Tell, transfer: Transfer) -> None:
        self._tell = tell
        self._transfer = transfer
        self._held: dict[int, Held] = {}  # by index of the observer
        self._judged: dict[int, int] = {}

    def after_step(self, observer: StepObserver, parameters: list[Tensor]) -> None:
        """Copy some gradients, if the step to come is one to be judged."""
        self._held.pop(observer.index, None)
        judged = self._judged.get(observer.index, 0)
        if not observer.due or (judged >= FIRST_STEPS and observer.measured_steps % LATER):
            return
        chosen = _chosen(parameters)
        values = _sampled([p.grad for p in chosen])
        if values is not None:
            self._held[observer.index] = Held([weakref.ref(p) for p in chosen], values)

    def saw_backward(self, start: Start) -> None:
        """A backward call is about to add to the gradients, or to write new ones."""
        if not self._held or not start.accumulates:
            return
        for index, held in list(self._held.items()):
            if held.gone:
                continue
            found = _living(held)
            values = _sampled([p.grad for p in found])
            if values is None or values.shape != held.values.shape:
                held.kept = torch.zeros_like(held.values[:, 0], dtype=torch.bool)  # cleared
                held.known, held.gone = ~held.kept, True
            elif held.kept is None:
                both_nan = values.isnan() & held.values.isnan()
                held.known = (held.values != 0).any(1)
                held.kept = held.known & ((values == held.values) | both_nan).all(1)
            elif held.places == _places(found):
                held.kept = held.kept.to(values.device) & (values != 0).any(1)
            else:
                self._held.pop(index)  # others have taken their place: nothing to say
                continue
            held.places = _places(found)

    def before_step(self, observer: StepObserver) -> None:
        """Say whether the gradients of this step hold those of the last."""
        held = self._held.pop(observer.index, None)
        if held is None or held.kept is None or held.known is None:
            return
        found = _living(held)
        values = _sampled([p.grad for p in found])
        added = torch.zeros_like(held.kept)
        if values is not None and held.places == _places(found):
            added = (values != held.values).any(1)
        kept, known = held.kept.to(added.device), held.known.to(added.device)
        self._judged[observer.index] = self._judged.get(observer.index, 0) + 1
        step, owner = observer.steps, observer.owner

        def deliver(numbers: list[float]) -> None:
            stale, cleared = map(int, numbers)
            if stale or cleared:
                told = {"checked": stale + cleared, "stale": stale}
                self._tell("zero-grad", step, "", owner, told, state=stale > 0)

        self._transfer.send([(kept & added).sum(), (known & ~kept).sum()], deliver)


def _chosen(parameters: list[Tensor]) -> list[Tensor]:
    """Some parameters with a plain gradient, spread over the model."""
    first: Any = None
    found = []
    for p in parameters:
        grad = p.grad
        if type(p) not in PLAIN or type(grad) is not Tensor or is_distributed(grad):
            continue
        if grad.layout is not torch.strided or grad.numel() < 2 or is_freed(grad):
            continue
        kind = (grad.dtype, grad.device)
        first = first or kind
        if kind == first:
            found.append(p)
    large = [p for p in found if p.numel() >= COORDINATES] or found
    if len(large) <= PARAMETERS:
        return large
    return [large[i * (len(large) - 1) // (PARAMETERS - 1)] for i in range(PARAMETERS)]


def _sampled(gradients: list[Tensor | None]) -> Tensor | None:
    """Coordinates of each: (K, n), a copy; None where one is missing, or there are none."""
    plain = [g for g in gradients if type(g) is Tensor and g.layout is torch.strided]
    if not plain or len(plain) < len(gradients) or any(map(is_freed, plain)):
        return None
    if len({(g.dtype, g.device) for g in plain}) > 1:
        return None
    count = min(COORDINATES, *(g.numel() for g in plain), *(_span(g) for g in plain))
    rows = [torch.as_strided(g.detach(), (count,), (_span(g) // count,)) for g in plain]
    return torch.stack(rows)


def _span(gradient: Tensor) -> int:
    """How many elements lie between the first and the last of a tensor, both included."""
    pairs = zip(gradient.shape, gradient.stride(), strict=True)
    return 1 + sum((size - 1) * stride for size, stride in pairs)


def _living(held: Held) -> list[Tensor]:
    return [p for ref in held.parameters if (p := ref()) is not None]


def _places(parameters: list[Tensor]) -> tuple[int, ...]:
    return tuple(p.grad.data_ptr() if p.grad is not None else 0 for p in parameters)
