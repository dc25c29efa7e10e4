"""What a test can ask of a model before anybody trains it: that it can learn at all.

Both functions train a copy; the model itself, its gradients and the random state stay as they are.

A batch is a pair of inputs and targets, for which `loss_fn(model(inputs), targets)` is the loss; or
a mapping, for which `model(**batch).loss` is, as with Hugging Face; or anything else together with
a `loss_fn(model, batch)`.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nndiag.errors import BadUsage

MakeOptimizer = Callable[[list[nn.Parameter]], torch.optim.Optimizer]
LEARNING_RATES = (1e-3, 1e-2, 1e-4)  # Adam's usual one first
SHOWN = 10  # names in a message


class CannotOverfit(AssertionError):
    """A model did not learn a single batch by heart."""


class IdleParameters(AssertionError):
    """Trainable parameters did not move."""


def assert_overfits(
    model: nn.Module,
    batch: Any,
    loss_fn: Callable[..., Tensor] | None = None,
    *,
    steps: int = 300,
    below: float | None = None,
    optimizer: MakeOptimizer | None = None,
) -> None:
    """Raise `CannotOverfit` unless a copy of `model` learns one batch by heart.

    Any model and loss that are put together rightly can do it, whatever the data: A. Karpathy, "A
    recipe for training neural networks" (2019). `below`: the loss that counts as learnt, by default
    a tenth of the first one; a loss that cannot come near 0 (label smoothing, a mean over
    contradictory targets) needs it. `optimizer` makes one from the parameters; by default Adam at
    three learning rates, of which one has to do. Dropout is switched off in the copy.
    """
    __tracebackhide__ = True  # pytest shows the line of the test
    _check(model, steps)
    tries = [optimizer] if optimizer is not None else [_adam(lr) for lr in LEARNING_RATES]
    best: _Attempt | None = None
    for make in tries:
        try:
            attempt = _overfit(model, batch, loss_fn, make, steps, below)
        except _CutGraph as error:
            raise CannotOverfit(str(error)) from None
        if attempt.reached:
            return
        if best is None or not best.lowest <= attempt.lowest:
            best = attempt
    if best is None:
        raise BadUsage(where="assert_overfits", what="made no attempt")
    raise CannotOverfit(best.told(steps, len(tries)))


def assert_all_parameters_move(
    model: nn.Module,
    batch: Any,
    loss_fn: Callable[..., Tensor] | None = None,
    *,
    steps: int = 3,
    optimizer: MakeOptimizer | None = None,
    ignore: Sequence[str] = (),
) -> None:
    """Raise `IdleParameters` unless each trainable parameter changes within some `steps`.

    The message says which do not and why: no gradient reaches them, it is exactly 0, it is not
    finite, or the optimizer does not hold them. `ignore`: names, or beginnings of names, of
    parameters that need not move. `optimizer` makes one from the parameters that require a
    gradient; by default plain SGD, which moves nothing that has no gradient.
    """
    __tracebackhide__ = True
    _check(model, steps)
    with _copy_of(model) as twin:
        wanted = {
            name: parameter
            for name, parameter in twin.named_parameters()
            if parameter.requires_grad and not name.startswith(tuple(ignore))
        }
        if not wanted:
            what = "the model has no trainable parameter"
            raise BadUsage(where="assert_all_parameters_move", what=what)
        before = {name: parameter.detach().clone() for name, parameter in wanted.items()}
        trained = [p for p in twin.parameters() if p.requires_grad]
        stepper = (optimizer or _sgd)(trained)
        held = {id(p) for group in stepper.param_groups for p in group["params"]}
        largest: dict[str, float] = {}  # size of the gradient; missing: there was none
        for _ in range(steps):
            try:
                _train(twin, batch, loss_fn, stepper)
            except _CutGraph as error:
                raise IdleParameters(str(error)) from None
            for name, parameter in wanted.items():
                if parameter.grad is not None:
                    size = float(parameter.grad.detach().abs().max())
                    largest[name] = max(largest.get(name, 0.0), size, key=_badness)
        idle = {
            name: _why(parameter, id(parameter) in held, largest.get(name))
            for name, parameter in wanted.items()
            if torch.equal(parameter.detach(), before[name])
        }
    if idle:
        raise IdleParameters(_listed(idle, len(wanted), steps))


class _CutGraph(Exception):
    """A loss without a gradient."""


@dataclass(frozen=True, slots=True)
class _Attempt:
    """One optimizer's way with one batch."""

    first: float
    lowest: float
    last: float
    goal: float
    lr: float

    @property
    def reached(self) -> bool:
        return self.lowest <= self.goal

    def told(self, steps: int, tries: int) -> str:
        of = f"; the best of {tries} learning rates was {self.lr:g}" if tries > 1 else ""
        if not math.isfinite(self.first):
            return f"the loss of the first step is {self.first:g}, before anything was learnt"
        if math.isnan(self.lowest):
            return f"the loss of one batch became {self.last:g} (from {self.first:.4g}){of}"
        hint = (
            "it did not move: does the loss depend on the parameters (detach, argmax, a graph that "
            "is cut)?"
            if self.lowest > 0.98 * self.first
            else "look for targets that do not belong to their inputs, a softmax before the loss, "
            "dead units, or a loss that cannot come near 0 (then say below=...)"
        )
        return (
            f"one batch was not learnt by heart in {steps} steps: loss {self.first:.4g} -> "
            f"{self.lowest:.4g} at its lowest, {self.goal:.4g} expected{of}. {hint}"
        )


def _overfit(
    model: nn.Module,
    batch: Any,
    loss_fn: Callable[..., Tensor] | None,
    make: MakeOptimizer,
    steps: int,
    below: float | None,
) -> _Attempt:
    with _copy_of(model) as twin:
        for module in twin.modules():
            if isinstance(module, nn.modules.dropout._DropoutNd):
                module.p = 0.0
        stepper = make([p for p in twin.parameters() if p.requires_grad])
        first = last = lowest = _train(twin, batch, loss_fn, stepper)
        goal = below if below is not None else 0.1 * first
        for _ in range(steps - 1):
            last = _train(twin, batch, loss_fn, stepper)
            lowest = min(lowest, last)
            if lowest <= goal or not math.isfinite(last):
                break
        rate = float(stepper.param_groups[0].get("lr", math.nan))
    return _Attempt(first, lowest if math.isfinite(last) else math.nan, last, goal, rate)


def _train(
    model: nn.Module,
    batch: Any,
    loss_fn: Callable[..., Tensor] | None,
    optimizer: torch.optim.Optimizer,
) -> float:
    """One step; the loss before it."""
    optimizer.zero_grad()
    loss = _loss(model, batch, loss_fn)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    return float(loss.detach())


def _loss(model: nn.Module, batch: Any, loss_fn: Callable[..., Tensor] | None) -> Tensor:
    if loss_fn is None:
        if not isinstance(batch, Mapping):
            raise BadUsage(where="loss_fn", what="is missing", do="give one, or a mapping as batch")
        loss: Any = model(**batch).loss
    elif isinstance(batch, tuple | list) and len(batch) == 2:
        inputs, targets = batch
        loss = loss_fn(model(inputs), targets)
    else:
        loss = loss_fn(model, batch)
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        shape = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else repr(loss)
        raise BadUsage(where="loss_fn", what=f"must give one number, not {shape[:80]}")
    if not loss.requires_grad:
        raise _CutGraph("the loss depends on no trainable parameter: its graph is cut")
    return loss


@contextmanager
def _copy_of(model: nn.Module) -> Iterator[nn.Module]:
    """A copy in training mode; the random state is given back."""
    devices = {p.device.index for p in model.parameters() if p.device.type == "cuda"}
    with torch.random.fork_rng(sorted(d for d in devices if d is not None)), torch.enable_grad():
        twin = copy.deepcopy(model)
        twin.zero_grad()
        yield twin.train()


def _check(model: Any, steps: int) -> None:
    if not isinstance(model, nn.Module):
        raise BadUsage(where="model", what=f"must be an nn.Module, not {type(model).__name__}")
    if steps < 1:
        raise BadUsage(where=f"steps={steps}", what="must be 1 or more")


def _adam(lr: float) -> MakeOptimizer:
    return lambda parameters: torch.optim.Adam(parameters, lr=lr)


def _sgd(parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.SGD(parameters, lr=0.1)


def _badness(size: float) -> float:
    return math.inf if math.isnan(size) else size


def _why(parameter: Tensor, is_held: bool, gradient: float | None) -> str:
    if not is_held:
        return "the optimizer does not hold it"
    if gradient is None:
        return "no gradient (None): the graph from the loss does not reach it"
    if gradient == 0:
        return "its gradient is exactly 0: dead units, or an output that is not used"
    if not math.isfinite(gradient):
        return f"its gradient is {gradient:g}"
    return f"its gradient ({gradient:.2g} at most) is too small to change it"


def _listed(idle: Mapping[str, str], wanted: int, steps: int) -> str:
    reasons: dict[str, list[str]] = {}
    for name, why in idle.items():
        reasons.setdefault(why, []).append(name)
    lines = [f"{len(idle)} of {wanted} trainable parameters did not move in {steps} steps"]
    for why, names in reasons.items():
        shown = ", ".join(names[:SHOWN])
        more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        lines.append(f"  {shown}{more}: {why}")
    return "\n".join(lines)
