"""What is known of the loss and of clipping from the calls that the script makes anyway.

The backward tap leaves no frame of ours in the user's tracebacks: looking up `loss.backward` runs
our code and gives back torch's own method, which the script then calls.
"""

from __future__ import annotations

import functools
import math
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from nndiag.adapters.pytorch.quiet import leave_to_python
from nndiag.adapters.pytorch.tensor_stats import is_measurable

Scalar = float | Tensor  # a number, or one that is still on its device


class MethodTap:
    """Stands for a method on its class; each look-up on an instance is told to `observe`."""

    def __init__(self, original: Any, observe: Callable[[Any], None]) -> None:
        self.original = original
        self.observe = observe

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        if instance is not None:
            self.observe(instance)
        return self.original.__get__(instance, owner)


@dataclass(frozen=True, slots=True)
class Backward:
    """One backward call: the loss as autograd saw it, and the constant it was multiplied by."""

    value: Scalar
    factor: float = 1.0


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
        self.clips: list[Clip] = []
        self._scaler: weakref.ref[Any] | None = None
        # micro-batches that the loss of an optimizer is divided by, once known
        self._accumulation: dict[int, int] = {}

    def install(self, on_backward: Callable[[Tensor], None], on_clip: Callable[..., None]) -> None:
        """Tap `Tensor.backward`, `GradScaler.scale` and gradient clipping by norm."""
        from torch.nn.utils import clip_grad

        leave_to_python(MethodTap.__get__)
        torch.Tensor.backward = MethodTap(torch.Tensor.backward, on_backward)  # type: ignore
        scaler = torch.amp.GradScaler
        scaler.scale = MethodTap(scaler.scale, self._remember_scaler)  # type: ignore
        for place, name in (
            (clip_grad, "_clip_grads_with_norm_"),  # clip_grad_norm_ calls it, however imported
            (torch.nn.utils, "clip_grads_with_norm_"),
        ):
            if hasattr(place, name):
                setattr(place, name, _before(getattr(place, name), on_clip))

    def _remember_scaler(self, scaler: Any) -> None:
        if self._scaler is None or self._scaler() is not scaler:
            self._scaler = weakref.ref(scaler)

    def saw_backward(self, loss: Tensor) -> Backward:
        """Note one backward call. `loss`: the tensor, of one element."""
        value, factor = loss.detach().reshape(()), 1.0
        node = loss.grad_fn
        scale = self.scale()
        other = _constant_factor(node)
        if scale is not None and other is not None and self._is_scale(other):
            value = value / other
            node = node.next_functions[0][0] if node is not None else None
        other = _constant_factor(node)
        if isinstance(other, Tensor) and other.device.type == "cpu":
            factor = float(other)
        call = Backward(value.item() if value.device.type == "cpu" else value, factor)
        self.backwards.append(call)
        return call

    def saw_clip(
        self,
        parameters: Any = None,
        max_norm: float = 0.0,
        total_norm: Any = None,
        *_: Any,
        **__: Any,
    ) -> None:
        """Note one call of torch's clipping: the arguments of `_clip_grads_with_norm_`."""
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
    if other is None or other.numel() != 1:
        return None
    return torch.reciprocal(other) if name == "DivBackward0" else other


def _before(original: Callable[..., Any], observe: Callable[..., None]) -> Callable[..., Any]:
    """`original`, with its arguments shown to `observe` first."""

    @functools.wraps(original)
    def tapped(*args: Any, **kwargs: Any) -> Any:
        observe(*args, **kwargs)
        return original(*args, **kwargs)

    return tapped
