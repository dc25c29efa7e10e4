"""Which units are silent: followed one by one over many batches, since a batch proves little.

Shapes: C units of one activation, n samples and positions of one batch.
"""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nndiag.adapters.pytorch.autograd_graph import Activation
from nndiag.adapters.pytorch.loss_taps import Scalar
from nndiag.adapters.pytorch.tensor_stats import (
    UNIT_ELEMENTS,
    UNIT_SAMPLES,
    first_samples,
    other_than,
)

# A unit counts as dead when it was silent for so many samples. Over 8 samples up to 9 % of a
# healthy net's units look dead, over 2048 at most 1 % (measured). 512 are some 80 steps of batch 64
# at the usual stride: few enough to see units die, enough to miss one unit in 160 that fires 1 %.
WINDOW_SAMPLES = 512
WINDOW_BATCHES = 8  # and for so many batches: the positions of one image are not independent
SATURATED = {"tanh": 0.97, "sigmoid": 0.94}  # |2s - 1| > 0.94 is s outside [0.03, 0.97]
SATURATED_SAMPLES = 0.95  # of a batch, for a unit to count as saturated


@dataclass(slots=True)
class Units:
    """What is known of the units of one activation."""

    idle: Tensor  # (C,) samples since the unit was last active
    seen: int = 0  # samples in all


@dataclass(slots=True)
class UnitActivity:
    """All activations of one process. Keys: id of the module that an activation is named after."""

    relus: dict[int, Units] = field(default_factory=dict)
    spellings: dict[int, str] = field(default_factory=dict)
    _alive: dict[int, Tensor] = field(default_factory=dict)  # of the step under way
    _samples: dict[int, int] = field(default_factory=dict)
    _saturated: dict[int, tuple[Scalar, int]] = field(default_factory=dict)  # sum of shares, calls

    def see(self, activation: Activation) -> None:
        """Take one activation of the step under way."""
        key = id(activation.module)
        x = first_samples(activation.values.detach(), UNIT_ELEMENTS, UNIT_SAMPLES)
        rest = other_than(activation.unit_axis, x)
        if activation.saturating:
            self._add_share(key, _saturated_share(x, rest, activation.saturating))
            return
        alive = x.amax(rest) > 0  # quicker than any(x > 0)
        self._add_alive(key, alive, x.numel() // alive.numel(), activation.spelling)

    def see_all(
        self, which: Sequence[tuple[int, str]], x: Tensor, unit_axis: int, saturating: str
    ) -> None:
        """Take K activations of one shape at once: (K, ...). `which`: key and spelling of each."""
        rest = tuple(i for i in range(1, x.ndim) if i != unit_axis % x.ndim)
        if saturating:
            shares = _saturated_share(x, rest, saturating, of_each=True)
            for (key, _), share in zip(which, shares, strict=True):
                self._add_share(key, share)
            return
        alive_KC = x.amax(rest) > 0
        samples = x[0].numel() // max(alive_KC.shape[1], 1)
        for (key, spelling), alive in zip(which, alive_KC.unbind(), strict=True):
            self._add_alive(key, alive, samples, spelling)

    def _add_share(self, key: int, share: Scalar) -> None:
        total, calls = self._saturated.get(key, (0.0, 0))
        self._saturated[key] = (total + share, calls + 1)

    def _add_alive(self, key: int, alive: Tensor, samples: int, spelling: str) -> None:
        before = self._alive.get(key)
        if before is not None and before.shape == alive.shape:
            alive = alive | before
        self._alive[key] = alive
        self._samples[key] = self._samples.get(key, 0) + samples
        self.spellings[key] = spelling

    def close_step(self, modules: Container[int]) -> dict[int, dict[str, Scalar]]:
        """The statistics of the step under way of those `modules`, by id; begins the next step.

        What is known of other modules waits for the step of the optimizer that holds them.
        """
        found: dict[int, dict[str, Scalar]] = {}
        alike: dict[Any, list[int]] = {}  # keys of activations with as many units
        for key, alive in self._alive.items():
            if key in modules:
                alike.setdefault((alive.shape, alive.device), []).append(key)
        for keys in alike.values():
            for key, dead, window in zip(keys, *self._close(keys), strict=True):
                found[key] = {"dead_unit_fraction": dead, "dead_unit_samples": float(window)}
        for key in [key for key in self._saturated if key in modules]:
            total, calls = self._saturated.pop(key)
            found.setdefault(key, {})["saturated_unit_fraction"] = total / calls
        return found

    def _close(self, keys: list[int]) -> tuple[Sequence[Scalar], list[int]]:
        """Dead fraction and window of activations with as many units, (K, C) at once."""
        alive_KC = torch.stack([self._alive.pop(key) for key in keys])
        seen = [self._samples.pop(key) for key in keys]
        known = [self._units_of(key, alive_KC[0]) for key in keys]
        windows = []
        for units, n in zip(known, seen, strict=True):
            units.seen += n
            windows.append(min(units.seen, max(WINDOW_SAMPLES, WINDOW_BATCHES * n)))
        idle_KC = torch.stack([units.idle for units in known])
        idle_KC = torch.where(alive_KC, 0, idle_KC + _column(seen, idle_KC))
        for units, idle in zip(known, idle_KC.unbind(), strict=True):
            units.idle = idle
        dead_K = (idle_KC >= _column(windows, idle_KC)).float().mean(1)
        return (dead_K.tolist() if dead_K.is_cpu else dead_K.unbind()), windows

    def _units_of(self, key: int, alive: Tensor) -> Units:
        units = self.relus.get(key)
        if units is None or units.idle.shape != alive.shape or units.idle.device != alive.device:
            units = self.relus[key] = Units(torch.zeros_like(alive, dtype=torch.int64))
        return units


def _column(numbers: list[int], like: Tensor) -> int | Tensor:
    """A number for each row: (K, 1), or one number where they are equal, as they mostly are."""
    if len(set(numbers)) == 1:
        return numbers[0]
    column = torch.tensor(numbers, dtype=torch.int64, device="cpu").unsqueeze(1)
    return column.to(like.device, non_blocking=True)


def _saturated_share(
    x: Tensor, rest: tuple[int, ...], saturating: str, *, of_each: bool = False
) -> Any:
    """The share of units at their limits for nearly all of a batch; `of_each` of K activations."""
    middle, scale = (0.0, 1.0) if saturating == "tanh" else (0.5, 2.0)
    at_limit = ((x - middle) * scale).abs() > SATURATED[saturating]
    units = (at_limit.float().mean(rest) > SATURATED_SAMPLES).float()
    return units.mean(1).unbind() if of_each else units.mean()
