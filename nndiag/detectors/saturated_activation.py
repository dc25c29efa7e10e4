"""saturated-activation: sigmoid or tanh units at their limits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag.curves import depth
from nndiag.detectors.base import Detector
from nndiag.records import Abstention, Evidence, Finding, Layer, Run, Series, Severity

_SQUASHING = ("Tanh", "Sigmoid", "Softsign")
_OPEN = ("ReLU", "ReLU6", "LeakyReLU", "PReLU", "ELU", "SELU", "GELU", "SiLU", "Mish", "Hardswish")


@dataclass(frozen=True, slots=True)
class _Saturated:
    where: str
    share: float  # of units stuck at a limit, or of the squared range that is used at the start
    from_start: bool
    measure: str
    limit: float
    order: int
    step: int


@dataclass(frozen=True, kw_only=True)
class SaturatedActivation(Detector):
    """Sigmoid or tanh units sit at their limits, where their slope is nearly zero.

    What it sees
        In each hidden sigmoid or tanh: at the first recorded step, how much of its range the
        outputs use (a mean square near 1 is reached only at the limits), or how large its inputs
        are; later, the share of units that are at a limit for nearly all samples.

    Why it happens
        Inputs far from order 1, or initial weights that are too large, push the units to their
        limits before training starts; a large step can do it later. The gradient through a
        saturated unit is nearly 0.

    Evidence
        start:  q = mean(a^2) for tanh, mean((2a - 1)^2) for sigmoid > limit_start; for a call
                in forward(): root mean square of the feeding layer > limit_input
        later:  units with |a| > 0.97 (sigmoid: outside 0.03..0.97) in 95 % of the samples,
                settled > limit; > limit_stuck where the net does not learn
        left out: outputs of the model; gates (sigmoids in a net of ReLU or alike) that learn

    Remedy
        1. Inputs of size 1e1 and more: normalise them.
        2. Xavier initialisation, or a normalisation layer before the activation.
        3. ReLU, GELU or SiLU instead; a lower learning rate where it came later.

    Source
        Glorot and Bengio 2010. Limits: our own runs (tanh nets from N(0, 1): q = 0.84 at the
        start, Xavier 0.40; no unit of a healthy tanh net stays saturated).
    """

    name = "saturated-activation"
    explains = ("vanishing-gradient", "activation-vanishing", "loss-plateau",
                "slow-convergence", "update-too-small")  # fmt: skip

    limit_start: float = 0.75  # mean square over the full range, 0..1; own runs, see Source
    limit_input: float = 6.0  # root mean square of what a squashing call is fed
    limit: float = 0.6  # share of units
    limit_stuck: float = 0.3  # share of units, where the net does not learn
    settled: int = 3  # measurements
    narrow: int = 8  # units; a few at their limits, in a net that learns, are a gate or a scale

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        measured = [s for s in run.series_of("saturated_unit_fraction") if len(s)]
        squashing = [layer for layer in run.layers if layer.kind in _SQUASHING]
        if not measured and not squashing:
            if not run.layers:
                yield Abstention(self.name, depth.NOT_RECORDED)
            return
        measures = ("activation_mean", "activation_variance", "saturated_unit_fraction")
        index = depth.Index(run, measures)
        outputs = depth.output_orders(run)
        found: dict[str, list[_Saturated]] = {}
        for layer in run.layers:
            series = index.of_layer("saturated_unit_fraction", layer)
            if series is None and layer.kind not in _SQUASHING:
                continue
            if layer.order >= outputs.get(layer.model, math.inf):
                continue  # an output may use its whole range
            owner = index.owner_of(layer)
            stuck = depth.is_harmed(depth.progress(run, owner))
            until = depth.broken_from(run, owner)
            if not stuck and self._is_narrow(run, layer):
                continue
            seen = self._at_start(index, layer) or self._later(series, layer, stuck, until)
            if seen is not None and (stuck or not _is_gate(run, layer)):
                found.setdefault(owner, []).append(seen)
        for owner, layers in found.items():
            yield self._finding(layers, owner, depth.progress(run, owner))

    def _is_narrow(self, run: Run, layer: Layer) -> bool:
        """Fed by a layer of a few units. A functional call bears the name of that layer."""
        before = [
            (other.order, parameter.shape[0])
            for other in run.layers
            if other.model == layer.model and other.order <= layer.order
            for parameter in run.parameters
            if parameter.model == other.model and parameter.layer == other.name
            if parameter.is_weight
        ]
        return bool(before) and max(before)[1] < self.narrow

    def _at_start(self, index: depth.Index, layer: Layer) -> _Saturated | None:
        """A layer whose first recorded outputs, or inputs, are already at the limits."""
        mean = index.of_layer("activation_mean", layer)
        variance = index.of_layer("activation_variance", layer)
        if mean is None or variance is None:
            return None
        m, v = depth.at_start(mean), depth.at_start(variance)
        step = int(mean.steps[0])
        if layer.kind == "Sigmoid":
            used, limit, measure = 4 * (v + (m - 0.5) ** 2), self.limit_start, "mean_square"
        elif layer.kind in _SQUASHING:
            used, limit, measure = v + m**2, self.limit_start, "mean_square"
        else:
            used, limit, measure = math.sqrt(v + m**2), self.limit_input, "input_rms"
        if not used > limit:
            return None
        return _Saturated(layer.name, used, True, measure, limit, layer.order, step)

    def _later(
        self, series: Series | None, layer: Layer, stuck: bool, until: float
    ) -> _Saturated | None:
        """A layer most of whose units have settled at a limit."""
        if series is None:
            return None
        usable = np.isfinite(series.values) & (series.steps < until)
        values, steps = series.values[usable], series.steps[usable]
        if values.size < self.settled:
            return None
        limit = self.limit_stuck if stuck else self.limit
        settled = float(values[-self.settled :].min())
        if settled <= limit:
            return None
        below = np.flatnonzero(values <= limit)
        since = int(steps[below[-1] + 1 if below.size else 0])
        measure = "saturated_unit_fraction"
        return _Saturated(layer.name, settled, below.size == 0, measure, limit, layer.order, since)

    def _finding(
        self, layers: list[_Saturated], owner: str, trained: depth.Progress | None
    ) -> Finding:
        layers = sorted(layers, key=lambda seen: seen.order)
        worst = max(layers, key=lambda seen: seen.share / seen.limit)
        says = {
            "mean_square": f"uses {worst.share:.2f} of its squared range at the first recorded "
            f"step (1 is reached only at the limits, order 0.4 is healthy)",
            "input_rms": f"feeds values of size {worst.share:.2g} into a sigmoid or tanh at the "
            f"first recorded step (flat beyond 3)",
            "saturated_unit_fraction": f"has {depth.percent(worst.share)} of its units at "
            f"their limits for nearly every sample since step {worst.step}",
        }[worst.measure]
        rest = depth.named(seen.where for seen in layers if seen is not worst)
        others = f"; like it {rest}" if rest else ""
        harmed = depth.is_harmed(trained)
        return Finding(
            name=self.name,
            severity=Severity.CRITICAL if harmed else Severity.WARNING,
            confidence=0.9 if worst.from_start else 0.8,
            message=f"`{worst.where}` {says}{others}"
            + (f", and {trained.in_words}" if trained and harmed else ""),
            step_start=min(seen.step for seen in layers),
            series=worst.measure,
            owner=owner,
            layers=tuple(seen.where for seen in layers),
            evidence=(
                Evidence(worst.measure, worst.share, worst.limit),
                Evidence("saturated_from_start", worst.from_start),
                Evidence("layers", len(layers)),
                Evidence("first_layer", layers[0].where),
            ),
        )


def _is_gate(run: Run, layer: Layer) -> bool:
    """A sigmoid among ReLUs or their like is a gate: it may stand at 0 or 1."""
    if layer.kind != "Sigmoid":
        return False
    kinds = [other.kind for other in run.layers if other.model == layer.model]
    return sum(kind in _OPEN for kind in kinds) >= kinds.count("Sigmoid")
