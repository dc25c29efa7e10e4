"""What is known of the loss and of clipping from the calls that the script makes anyway.

The taps leave no frame of ours in the user's tracebacks: looking up what is about to be called
runs our code and gives back torch's own, which the caller then calls.
"""

from __future__ import annotations

import functools
import math
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nndiag.adapters.pytorch.quiet import leave_to_python
from nndiag.adapters.pytorch.ranks import whole
from nndiag.adapters.pytorch.replaced import Undo, replace
from nndiag.adapters.pytorch.tensor_stats import is_freed, is_measurable

Scalar = float | Tensor  # a number, or one that is still on its device
MAX_GRADIENTS = 64  # calls of `torch.autograd.grad` that are kept; a script may never step


class MethodTap:
    """Stands for a method on its class; each look-up on an instance is told to `observe`."""

    def __init__(self, original: Any, observe: Callable[[Any], None]) -> None:
        self.original = original
        self.observe = observe

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is not None:
            self.observe(instance)
        return self.original.__get__(instance, owner)


class CallTap:
    """Stands for a function in its module; the caller's frame is shown to `observe` at each call.

    Python looks `__call__` up on the class: that runs our code, then torch's function is called by
    whoever called us.
    """

    def __init__(self, original: Callable[..., Any], observe: Callable[[Any], None]) -> None:
        functools.update_wrapper(self, original)
        self._original = original
        self._observe = observe

    @property
    def __call__(self) -> Callable[..., Any]:
        self._observe(sys._getframe(1))
        return self._original


@dataclass(frozen=True, slots=True)
class Backward:
    """One backward call: the loss as autograd saw it, and the constant it was multiplied by."""

    value: Scalar
    factor: float = 1.0


@dataclass(frozen=True, slots=True)
class Start:
    """Where a backward pass starts: the loss or the losses, and what each is weighted by."""

    losses: tuple[Tensor, ...]
    weights: tuple[Tensor | None, ...] = (None,)
    accumulates: bool = True  # False: `torch.autograd.grad`, which hands the gradients back

    @classmethod
    def seen_in(cls, place: Any) -> Start | None:
        """The start that a tap has seen; `place` is a frame of torch.autograd, or the loss itself.

        Gradients with respect to anything but leaves, or those that will be differentiated again,
        are penalties and the like: no training starts from them.
        """
        if isinstance(place, Tensor):
            return cls._of((place,), (None,), accumulates=True)
        told = place.f_locals
        if place.f_code is getattr(torch.autograd.backward, "__code__", None):
            return cls._of(told["tensors"], told["grad_tensors_"], accumulates=True)
        if place.f_code is not getattr(torch.autograd.grad, "__code__", None):
            return None
        to_leaves = all(isinstance(i, Tensor) and i.is_leaf for i in told["inputs_tuple"])
        if told["create_graph"] or not to_leaves:
            return None
        return cls._of(told["outputs"], told["grad_outputs_"], accumulates=False)

    @classmethod
    def _of(
        cls, losses: Sequence[Any], weights: Sequence[Tensor | None], *, accumulates: bool
    ) -> Start | None:
        pairs = [
            (loss, weight)
            for loss, weight in zip(losses, weights, strict=True)
            if is_measurable(loss) and loss.grad_fn is not None
        ]
        if not pairs or any(loss.numel() > 1 and weight is None for loss, weight in pairs):
            return None  # torch has its own word on those
        kept, weighted_by = zip(*pairs, strict=True)
        return cls(kept, weighted_by, accumulates)

    def objective(self) -> Tensor | None:
        """The number whose gradient is taken, on its device; None where it has no such number."""
        total: Tensor | None = None
        for loss, weight in zip(self.losses, self.weights, strict=True):
            value = loss.detach()
            if loss.numel() > 1:
                if weight is None or not is_measurable(weight) or weight.shape != loss.shape:
                    return None
                value = (value * weight).sum()
            value = value.reshape(())
            total = value if total is None else total + value.to(total.device)
        return total


@dataclass(frozen=True, slots=True)
class Clip:
    """One clipping call: the threshold and the norm that was there before."""

    threshold: float
    norm: Scalar
    parameters: frozenset[int] | None = None  # ids of what was clipped; None: unknown, all

    def covers(self, parameter: Tensor) -> bool:
        return self.parameters is None or id(parameter) in self.parameters

    def overlaps(self, other: Clip) -> bool:
        if self.parameters is None or other.parameters is None:
            return True
        return not self.parameters.isdisjoint(other.parameters)


class LossTaps:
    """Collects the backward and clipping calls between two optimizer steps."""

    def __init__(self) -> None:
        self.backwards: list[Backward] = []
        self.gradients: list[Backward] = []  # `torch.autograd.grad`, for steps without a backward
        self.clips: list[Clip] = []
        self._scaler: weakref.ref[Any] | None = None
        # micro-batches that the loss of an optimizer is divided by, once known
        self._accumulation: dict[int, int] = {}

    def install(
        self,
        on_backward: Callable[[Any], None],
        on_clip: Callable[..., None],
        on_scaler_update: Callable[[Any], None],
    ) -> list[Undo]:
        """Tap the way into autograd, the gradient scaler, and gradient clipping by norm."""
        from torch.nn.utils import clip_grad

        leave_to_python(MethodTap.__get__)
        scaler = torch.amp.GradScaler
        undo = [
            _tap_autograd(on_backward),
            replace(scaler, "scale", MethodTap(scaler.scale, self._remember_scaler)),
            replace(scaler, "update", MethodTap(scaler.update, on_scaler_update)),
        ]
        for place, name in (
            (clip_grad, "_clip_grads_with_norm_"),  # clip_grad_norm_ calls it, however imported
            (torch.nn.utils, "clip_grads_with_norm_"),
        ):
            if hasattr(place, name):
                undo.append(replace(place, name, _before(getattr(place, name), on_clip)))
        return undo

    def _remember_scaler(self, scaler: Any) -> None:
        if self._scaler is None or self._scaler() is not scaler:
            self._scaler = weakref.ref(scaler)

    def saw_backward(self, start: Start) -> Backward | None:
        """Note one backward call; None where it starts from no number."""
        value, factor = start.objective(), 1.0
        if value is None:
            return None
        node = start.losses[0].grad_fn
        scale = self.scale()
        other = _constant_factor(node)
        if scale is not None and other is not None and self._is_scale(other):
            value = value / other
            node = node.next_functions[0][0] if node is not None else None
        other = _constant_factor(node)
        if isinstance(other, Tensor) and other.device.type == "cpu":
            factor = float(other)
        call = Backward(value.item() if value.device.type == "cpu" else value, factor)
        if start.accumulates:
            self.backwards.append(call)
        else:
            self.gradients = [*self.gradients[-MAX_GRADIENTS:], call]
        return call

    @property
    def calls(self) -> list[Backward]:
        """The calls since the last step; those of `torch.autograd.grad` if there are no others."""
        return self.backwards or self.gradients

    def keep(self, calls: int) -> None:
        """Forget all but the first calls of this step: what came after was not at its point."""
        self.backwards, self.gradients = self.backwards[:calls], self.gradients[:calls]

    def clear(self) -> None:
        """The next step begins."""
        self.backwards, self.gradients, self.clips = [], [], []

    def saw_clip(
        self,
        parameters: Any = None,
        max_norm: float = 0.0,
        total_norm: Any = None,
        *_: Any,
        **__: Any,
    ) -> None:
        """Note one call of torch's clipping: the arguments of `_clip_grads_with_norm_`."""
        total_norm = whole(total_norm)  # of shards torch works out the norm of all
        if is_measurable(total_norm) and total_norm.numel() == 1:
            norm = total_norm.detach().clone()
            value = norm.item() if norm.device.type == "cpu" else norm
            given = [parameters] if isinstance(parameters, Tensor) else parameters
            ids = frozenset(map(id, given)) if isinstance(given, list | tuple) else None
            self.clips.append(Clip(float(max_norm), value, ids))

    def scale(self) -> float | Tensor | None:
        """The gradient scaler's present factor; None where there is no scaler in use."""
        scaler = self._scaler() if self._scaler is not None else None
        scale = getattr(scaler, "_scale", None)
        if scaler is None or scale is None or not scaler._enabled:
            return None
        return float(scale) if scale.device.type == "cpu" else scale

    def _is_scale(self, factor: Tensor) -> bool:
        """Whether a loss was multiplied by the scaler: by that very tensor, or a copy elsewhere."""
        scale = getattr(self._scaler() if self._scaler is not None else None, "_scale", None)
        if scale is None:
            return False
        return bool(factor.device != scale.device or factor.data_ptr() == scale.data_ptr())

    def loss_of(self, calls: Sequence[Backward], optimizer: int) -> Scalar:
        """The loss of a step from its backward calls: their mean, each freed of accumulation.

        A script that accumulates over K micro-batches multiplies each loss by 1/K; that factor is
        taken out once a step of this `optimizer` (an index) with several calls has shown it.
        """
        factors = {call.factor for call in calls}
        if len(calls) > 1 and len(factors) == 1:
            factor = next(iter(factors))
            k = round(1 / factor) if factor else 0
            if k > 1 and math.isclose(factor, 1 / k, rel_tol=1e-6):
                self._accumulation[optimizer] = k
        k = self._accumulation.get(optimizer, 0)
        total: Scalar = 0.0
        for call in calls:
            divided = k > 1 and math.isclose(call.factor, 1 / k, rel_tol=1e-6)
            total = total + (call.value / call.factor if divided else call.value)
        return total / len(calls)

    def clip_of(self, calls: Sequence[Clip]) -> tuple[float, Scalar]:
        """Threshold and norm of a step from its clipping calls; several cover several parts."""
        if len(calls) == 1:
            return calls[0].threshold, calls[0].norm
        squares: Scalar = 0.0
        for call in calls:
            squares = squares + call.norm * call.norm
        return min(call.threshold for call in calls), squares**0.5


def _tap_autograd(on_backward: Callable[[Any], None]) -> Undo:
    """Have each call of `torch.autograd.backward`, and so of `loss.backward`, observed.

    Its last act before it starts the engine is a call of `_make_grads` in the same module: a
    private name. Where it is missing, `Tensor.backward` alone is tapped.
    """
    original = getattr(torch.autograd, "_make_grads", None)
    if original is None:
        tap = MethodTap(torch.Tensor.backward, on_backward)
        return replace(torch.Tensor, "backward", tap)
    leave_to_python(CallTap.__call__.fget)  # type: ignore[attr-defined]
    return replace(torch.autograd, "_make_grads", CallTap(original, on_backward))


def tap_constructor(optimizer: Any, observe: Callable[[Any], None]) -> list[Undo]:
    """Have each new optimizer told to `observe`: its constructor calls `_patch_step_function`.

    A private name; without it, a step that calls no hook is taken for one by hand.
    """
    name = "_patch_step_function"
    original = getattr(optimizer, name, None)
    return [replace(optimizer, name, MethodTap(original, observe))] if original else []


def _constant_factor(node: Any) -> Tensor | None:
    """The number that a loss was multiplied by in its last operation; None if it was not.

    `node` is the loss's grad_fn. Division by K reads as a factor of 1/K.
    """
    name = type(node).__name__
    if name not in ("MulBackward0", "DivBackward0") or node.next_functions[0][0] is None:
        return None
    if len(node.next_functions) > 1 and node.next_functions[1][0] is not None:
        return None
    other: Tensor | None = node._saved_other
    if other is None or other.numel() != 1 or is_freed(other):
        return None
    return torch.reciprocal(other) if name == "DivBackward0" else other


def _before(original: Callable[..., Any], observe: Callable[..., None]) -> Callable[..., Any]:
    """`original`, with its arguments shown to `observe` first."""

    @functools.wraps(original)
    def tapped(*args: Any, **kwargs: Any) -> Any:
        observe(*args, **kwargs)
        return original(*args, **kwargs)

    return tapped
