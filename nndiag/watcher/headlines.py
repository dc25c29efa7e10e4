"""The few numbers that stand for a step and for all layers. Standard library only."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from nndiag.adapters.base import Column, StepRow

WHOLE = ("loss", "grad_norm", "lr", "clip_threshold", "loss_scale", "update_ratio")


@dataclass(frozen=True, slots=True)
class Extreme:
    """Of all layers, or parameters, the one with the smallest or the largest value."""

    name: str
    metric: str
    largest: bool


EXTREMES = (
    Extreme("layers/min_grad_norm", "param_grad_norm", largest=False),
    Extreme("layers/max_grad_norm", "param_grad_norm", largest=True),
    Extreme("layers/min_activation_variance", "activation_variance", largest=False),
    Extreme("layers/max_activation_variance", "activation_variance", largest=True),
    Extreme("layers/max_dead_unit_fraction", "dead_unit_fraction", largest=True),
    Extreme("layers/max_saturated_unit_fraction", "saturated_unit_fraction", largest=True),
)
NONFINITE = "layers/nonfinite"  # elements of all activations that are NaN or infinite


def of_step(row: StepRow) -> dict[str, float]:
    """The numbers of a step that were measured. A loss that is NaN was measured too."""
    values = {name: float(getattr(row, name)) for name in WHOLE if name != "lr"}
    values["lr"] = float(row.lrs[0]) if row.lrs else math.nan
    if values["grad_norm"] == -1:  # not due in this step
        del values["grad_norm"]
    may_be_nan = ("loss", "grad_norm") if row.backward_calls else ()
    return {k: v for k, v in values.items() if not math.isnan(v) or k in may_be_nan}


def of_layers(values: Mapping[Column, float]) -> dict[str, tuple[float, str]]:
    """(value, module or parameter) of each extreme that was measured; NaN is none."""
    found: dict[str, tuple[float, str]] = {}
    by_metric: dict[str, list[tuple[float, str]]] = {}
    for (metric, where), value in values.items():
        if not math.isnan(value) and not (metric.startswith("param_") and value == -1):
            by_metric.setdefault(metric, []).append((value, where))
    for extreme in EXTREMES:
        measured = by_metric.get(extreme.metric)
        if measured:
            choose = max if extreme.largest else min
            found[extreme.name] = choose(measured, key=lambda pair: pair[0])
    counts = by_metric.get("activation_nonfinite", [])
    if counts:
        most = max(counts, key=lambda pair: pair[0])
        found[NONFINITE] = (sum(count for count, _ in counts), most[1])
    return found
