"""How far the steps move the weights, compared with their size: |update| / |weight|.

Shapes: W weights of an optimizer; T recorded steps, of which the opening is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nndiag.curves import depth
from nndiag.records import Parameter, Run

_OTHERS = ("Embedding", "Norm")  # rows that are seldom met; scales that weights do not share
_OPENING = 0.1  # of the recorded steps: warm-up, zero weights on their way


@dataclass(frozen=True, slots=True)
class UpdateRatios:
    """The usual ratio of each weight, and how much of the model it is."""

    ratios: np.ndarray  # (W,) median over the recorded steps after the opening
    sizes: np.ndarray  # (W,) how many numbers each weight has
    layers: tuple[str, ...]  # (W,)
    recorded: int  # steps
    first_step: int
    last_step: int

    @property
    def usual(self) -> float:
        """The median over the numbers of the model: half of them move by less."""
        order = np.argsort(self.ratios)
        share = np.cumsum(self.sizes[order]) / self.sizes.sum()
        return float(self.ratios[order][int(np.searchsorted(share, 0.5))])

    def share(self, chosen: np.ndarray) -> float:
        """The share of the model's numbers that these weights (W,) hold."""
        return float(self.sizes[chosen].sum() / self.sizes.sum())

    def layers_of(self, chosen: np.ndarray) -> tuple[str, ...]:
        """The layers of these weights (W,)."""
        return tuple(np.array(self.layers, dtype=object)[chosen])


def update_ratios(run: Run, owner: str) -> UpdateRatios | None:
    """Of the weights that `owner` trains ("" where there is one optimizer); None where unknown.

    Steps with a learning rate far below the peak tell nothing: a warm-up, or the end of a schedule.
    """
    index = depth.Index(run, ("param_norm", "param_update_norm"))
    full = _full_rate_steps(run, owner)
    found: list[tuple[float, int, str]] = []
    recorded, first, last = 0, 0, 0
    for parameter in run.parameters:
        if not _counts(run, parameter, owner):
            continue
        size = index.of_parameter("param_norm", parameter)
        move = index.of_parameter("param_update_norm", parameter)
        if size is None or move is None:
            continue
        steps, i, j = np.intersect1d(
            size.steps, move.steps, assume_unique=True, return_indices=True
        )
        w, u = size.values[i], move.values[j]
        good = np.isfinite(w) & np.isfinite(u) & (w > 0) & (u >= 0)
        good[: math.ceil(_OPENING * good.size)] = False
        if full is not None:
            good &= np.isin(steps, full)
        if not good.any():
            continue
        if good.sum() > recorded:
            chosen = steps[good]
            recorded, first, last = int(good.sum()), int(chosen[0]), int(chosen[-1])
        numbers = math.prod(parameter.shape)
        found.append((float(np.median(u[good] / w[good])), numbers, parameter.layer))
    if not found:
        return None
    ratios, sizes, layers = zip(*found, strict=True)
    sized = np.array(sizes, dtype=float)
    return UpdateRatios(np.array(ratios), sized, tuple(layers), recorded, first, last)


def _counts(run: Run, parameter: Parameter, owner: str) -> bool:
    kind = next((la.kind for la in run.layers if la.name == parameter.layer), "")
    ours = parameter.optimizer is not None and owner in ("", parameter.optimizer)
    special = any(word in kind for word in _OTHERS)
    return ours and parameter.requires_grad and parameter.is_weight and not special


def _full_rate_steps(run: Run, owner: str) -> np.ndarray | None:
    """Steps with at least half of the highest learning rate; None where rates are not known."""
    series = run.one("lr", owner=owner) or run.one("lr")
    if series is None or not (np.isfinite(series.values) & (series.values > 0)).any():
        return None
    return series.steps[series.values >= 0.5 * float(np.nanmax(series.values))]
