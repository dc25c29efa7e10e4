"""The layer statistics of one measured step: collected on their devices, named when they arrive."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from nndiag.adapters.base import Column
from nndiag.adapters.pytorch.discovery import Model
from nndiag.adapters.pytorch.loss_taps import Clip, Scalar
from nndiag.adapters.pytorch.module_hooks import ModuleStats
from nndiag.adapters.pytorch.optimizer_hooks import Measured
from nndiag.adapters.pytorch.tensor_stats import ACTIVATION, MERGED, merge_activation_stats
from nndiag.adapters.pytorch.unit_activity import UnitActivity


class LayerRow:
    """Columns and their values. The calls of modules come last, and are merged at the end."""

    def __init__(self) -> None:
        self._columns: list[Column] = []
        self._values: list[Scalar] = []
        self._calls: list[tuple[str, list[list[Any]]]] = []  # module name -> one entry a call

    def add_parameters(
        self,
        named: Iterable[tuple[str, Tensor]],
        measured: Measured,
        sizes: Iterable[Scalar],
        moves: Iterable[Scalar],
        clips: Iterable[Clip],
    ) -> None:
        """Norms of parameters, of their updates, and of their gradients before clipping."""
        shrunk = [(clip, _clip_factor(clip)) for clip in clips]
        for (name, p), size, moved in zip(named, sizes, moves, strict=False):
            self._columns += [("param_norm", name), ("param_update_norm", name)]
            self._values += [size, moved]
            if id(p) in measured.norms:
                gradient = measured.norms[id(p)]
                absent = not isinstance(gradient, Tensor) and gradient < 0
                factor = next((f for clip, f in shrunk if clip.covers(p)), 1.0)
                self._columns.append(("param_grad_norm", name))
                self._values.append(gradient if absent else gradient * factor)

    def take_units(self, units: UnitActivity, models: list[Model]) -> None:
        """What was found of the units of these models."""
        ours = {key for model in models for key in model.modules}
        for key, found in units.close_step(ours).items():
            place = next(m.modules[key] for m in models if key in m.modules)
            self._columns += [(metric, place) for metric in found]
            self._values += found.values()

    def take_calls(self, stats: ModuleStats, models: list[Model]) -> None:
        """The measured module calls of these models, in forward order."""
        for key, several in list(stats.calls().items()):
            model = next((m for m in models if key in m.modules), None)
            if model is not None:
                name = model.modules[key]
                model.order.setdefault(name, len(model.order))
                self._calls.append((name, several))
                stats.forget(key)

    def values(self) -> list[Scalar]:
        """All numbers, to be brought to Python and handed to `named`."""
        return [*self._values, *(v for _, several in self._calls for one in several for v in one)]

    def named(self, numbers: list[float]) -> dict[Column, float]:
        """The row: the numbers of `values` by column."""
        found = dict(zip(self._columns, numbers, strict=False))
        at, width = len(self._columns), len(ACTIVATION)
        for name, several in self._calls:
            if len(several) == 1 and not numbers[at]:  # of compiled code that did not run
                at += width
                continue
            if len(several) == 1:
                found.update(zip(_columns(name), _alone(numbers[at : at + width]), strict=True))
                at += width
                continue
            rows = [numbers[i : i + width] for i in range(at, at + width * len(several), width)]
            rows = [row for row in rows if row[0]] or rows[:1]
            at += width * len(several)
            merged = merge_activation_stats(rows)
            found |= {(metric, name): value for metric, value in merged.items()}
        return found


@lru_cache(maxsize=1 << 16)
def _columns(name: str) -> list[Column]:
    return [(metric, name) for metric in MERGED]


def _alone(call: list[float]) -> list[float]:
    """What `merge_activation_stats` would make of a single call, in the order of MERGED."""
    count, _, mean, variance, across, largest, zeros, nonfinite = call
    return [count, mean, variance, across, largest, zeros / count, nonfinite]


def _clip_factor(clip: Clip) -> Scalar:
    """By how much clipping shrank the gradients: multiply to undo it."""
    if isinstance(clip.norm, Tensor):
        return torch.clamp((clip.norm + 1e-6) / clip.threshold, min=1.0)
    return max(1.0, (clip.norm + 1e-6) / clip.threshold) if clip.threshold > 0 else 1.0
