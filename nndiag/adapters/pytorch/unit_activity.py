"""Which units are silent: followed one by one over many batches, since a batch proves little.

Shapes: C units of one activation, n samples and positions of one batch.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass, field

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
    _saturated: dict[int, tuple[Tensor, int]] = field(default_factory=dict)  # sum of shares, calls

    def see(self, activation: Activation) -> None:
        """Take one activation of the step under way."""
        key = id(activation.module)
        x = first_samples(activation.values.detach(), UNIT_ELEMENTS, UNIT_SAMPLES)
        rest = other_than(activation.unit_axis, x)
        if activation.saturating:
            middle, scale = (0.0, 1.0) if activation.saturating == "tanh" else (0.5, 2.0)
            at_limit = ((x - middle) * scale).abs() > SATURATED[activation.saturating]
            share = (at_limit.float().mean(rest) > SATURATED_SAMPLES).float().mean()
            total, calls = self._saturated.get(key, (0.0, 0))
            self._saturated[key] = (total + share, calls + 1)
            return
        alive = x.amax(rest) > 0  # quicker than any(x > 0)
        before = self._alive.get(key)
        if before is not None and before.shape == alive.shape:
            alive = alive | before
        self._alive[key] = alive
        self._samples[key] = self._samples.get(key, 0) + x.numel() // alive.numel()
        self.spellings[key] = activation.spelling

    def close_step(self, modules: Container[int]) -> dict[int, dict[str, Scalar]]:
        """The statistics of the step under way of those `modules`, by id; begins the next step.

        What is known of other modules waits for the step of the optimizer that holds them.
        """
        found: dict[int, dict[str, Scalar]] = {}
        for key in [key for key in self._alive if key in modules]:
            alive, n = self._alive.pop(key), self._samples.pop(key)
            units = self.relus.get(key)
            if units is None or units.idle.shape != alive.shape:
                units = self.relus[key] = Units(torch.zeros_like(alive, dtype=torch.int64))
            units.idle = torch.where(alive, 0, units.idle + n)
            units.seen += n
            window = min(units.seen, max(WINDOW_SAMPLES, WINDOW_BATCHES * n))
            found[key] = {
                "dead_unit_fraction": (units.idle >= window).float().mean(),
                "dead_unit_samples": float(window),
            }
        for key in [key for key in self._saturated if key in modules]:
            total, calls = self._saturated.pop(key)
            found.setdefault(key, {})["saturated_unit_fraction"] = total / calls
        return found
