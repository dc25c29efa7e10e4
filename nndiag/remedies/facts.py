"""The numbers of a run that remedies are chosen by and made of.

Everything is looked at around one finding: its optimizer, and the steps before and after it began.
None, an empty tuple or False stand for "the log does not tell".
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from nndiag.curves import depth
from nndiag.records import Finding, Layer, Optimizer, Parameter, Run, Series

SATURATING = ("Sigmoid", "Tanh", "Softsign", "Hardsigmoid", "Hardtanh")
EARLY_UPDATE = 0.1  # largest early |update| / |parameters|: 48 of 78 too-high rates, 2 of 122 good
EARLY_SHARE = 0.1  # of the run: a finding that begins before may lie in the warm-up
HEALTHY_LEAST = 10  # gradient norms that make a percentile; our own choice


@dataclass(frozen=True)
class Facts:
    """A run as seen from one finding."""

    run: Run
    finding: Finding

    @property
    def start(self) -> float:
        return -math.inf if self.finding.step_start is None else self.finding.step_start

    @property
    def end(self) -> float:
        return math.inf if self.finding.step_end is None else self.finding.step_end

    def whole(self, metric: str) -> Series | None:
        """The whole-run series of the finding's optimizer."""
        return self.run.one(metric, owner=self.finding.owner) or self.run.one(metric)

    # -- optimizer and learning rate

    @cached_property
    def optimizer(self) -> Optimizer | None:
        return self.run.optimizer(self.finding.owner)

    @property
    def adaptive(self) -> bool | None:
        return None if self.optimizer is None else self.optimizer.is_adaptive

    @property
    def plain_sgd(self) -> bool:
        """SGD without momentum."""
        known = self.optimizer
        return known is not None and known.kind == "SGD" and not known.setting("momentum")

    @property
    def beta2(self) -> float | None:
        value = self.optimizer.setting("beta2") if self.optimizer else None
        return None if value is None else float(value)

    @cached_property
    def lr(self) -> float | None:
        """The learning rate that the finding began under: the median of the steps around it."""
        series = self.whole("lr")
        if series is None or not len(series):
            value = self.optimizer.setting("lr") if self.optimizer else None
            return float(value) if value else None
        values = series.values[np.isfinite(series.values) & (series.values > 0)]
        near = series.values[(series.steps <= max(self.start, series.steps[0]))][-20:]
        near = near[np.isfinite(near) & (near > 0)]
        chosen = near if near.size else values[:20]
        return float(np.median(chosen)) if chosen.size else None

    @cached_property
    def lr_peak(self) -> float | None:
        series = self.whole("lr")
        if series is None or not np.isfinite(series.values).any():
            return self.lr
        return float(np.nanmax(series.values)) or self.lr

    @cached_property
    def lr_reached(self) -> float | None:
        """The highest learning rate up to the finding; of the whole run where it began early.

        A finding in a warm-up concerns the peak that was to come; one in a run whose rate goes on
        growing concerns the rate that was too much, not where it ended.
        """
        series = self.whole("lr")
        if series is None or not np.isfinite(series.values).any():
            return self.lr
        before = series.values[series.steps <= self.start]
        if len(before) < EARLY_SHARE * len(series) or not np.isfinite(before).any():
            return self.lr_peak
        return float(np.nanmax(before)) or self.lr

    @property
    def lr_growth(self) -> tuple[float, float] | None:
        """(first, reached) where the rate has grown far beyond any warm-up when it began."""
        series, reached = self.whole("lr"), self.lr_reached
        if series is None or not len(series) or reached is None or self.lr_peak is None:
            return None
        first = float(series.values[0])
        grows_on = self.lr_peak > 2 * reached  # a warm-up has an end, and a decay after it
        return (first, reached) if 0 < first < reached / 3 and grows_on else None

    @cached_property
    def lr_jump(self) -> tuple[int, float, float] | None:
        """(step, before, after) where the learning rate was raised shortly before the finding."""
        series = self.whole("lr")
        if series is None or len(series) < 3 or not math.isfinite(self.start):
            return None
        near = (series.steps >= self.start - 5) & (series.steps <= self.start + 1)
        for i in np.flatnonzero(near):
            before = series.values[max(0, i - 20) : i]
            before = before[np.isfinite(before) & (before > 0)]
            if before.size < 3:
                continue
            usual = float(np.median(before))
            # 1.5: schedules move by a few per cent a step; warm-up is over after three steps
            if series.values[i] > 1.5 * max(usual, float(before.max())):
                return int(series.steps[i]), usual, float(series.values[i])
        return None

    @cached_property
    def has_warmup(self) -> bool | None:
        """Whether the learning rate reached its peak only after the first hundredth of the run."""
        series = self.whole("lr")
        if series is None or len(series) < 20:
            return None
        peak = int(np.nanargmax(series.values))
        return peak > max(2, 0.01 * len(series)) and series.values[0] < 0.5 * series.values[peak]

    @cached_property
    def lr_is_constant(self) -> bool | None:
        series = self.whole("lr")
        if series is None or len(series) < 20:
            return None
        tail = series.values[len(series) // 2 :]
        return float(np.nanmin(tail)) > 0.5 * float(np.nanmax(tail))

    # -- steps

    @cached_property
    def kappa(self) -> float | None:
        """Mean cosine of a gradient with the update before it; None below 50 samples.

        Below -0.05 the steps are too short: 106 of 120 runs with too low a learning rate against
        8 of 122 with a good one (our own measurement); about 0 where it is right.
        """
        series = self.whole("update_gradient_cosine")
        if series is None:
            return None
        inside = (series.steps >= self.start) & (series.steps <= self.end)
        later = series.values[inside & np.isfinite(series.values)]
        if later.size < 50:
            late = series.values[len(series) // 4 :]
            later = late[np.isfinite(late)]
        return float(later.mean()) if later.size >= 50 else None

    @cached_property
    def early_update_ratio(self) -> float | None:
        """Largest |step's change| / |parameters| of the first 50 steps. Above 0.1: far too high."""
        series = self.whole("update_ratio")
        if series is None:
            return None
        early = series.values[series.steps < 50]
        early = early[np.isfinite(early)]
        return float(early.max()) if early.size else None

    # -- gradient norms and clipping

    @cached_property
    def norms(self) -> np.ndarray:
        """Gradient norms of the healthy steps: before the finding began, or else outside it."""
        series = self.whole("grad_norm")
        if series is None:
            return np.empty(0)
        before = series.steps < self.start - 1
        outside = before | (series.steps > self.end + 1)
        for chosen in (before, outside):
            values: np.ndarray = series.values[chosen & np.isfinite(series.values)]
            if values.size >= HEALTHY_LEAST:
                return values
        return np.empty(0)

    def norm_at(self, percentile: float) -> float | None:
        return float(np.percentile(self.norms, percentile)) if self.norms.size else None

    @cached_property
    def norm_peak(self) -> float | None:
        """The largest gradient norm while the finding lasted."""
        series = self.whole("grad_norm")
        if series is None or not math.isfinite(self.start):
            return None
        inside = (series.steps >= self.start - 3) & (series.steps <= self.end + 2)
        values = series.values[inside & ~np.isnan(series.values)]
        return float(values.max()) if values.size else None

    @property
    def norm_exploded(self) -> bool | None:
        """Whether the gradient norm left its healthy range by far while the finding lasted."""
        usual, high = self.norm_at(50), self.norm_at(99)
        if usual is None or high is None or self.norm_peak is None:
            return None
        return self.norm_peak > max(3 * usual, 1.2 * high)

    @cached_property
    def clip(self) -> float | None:
        series = self.whole("clip_threshold")
        if series is None:
            return None
        finite = series.values[np.isfinite(series.values) & (series.values > 0)]
        return float(np.median(finite)) if finite.size else None

    @property
    def clip_fires(self) -> float:
        """Share of the healthy steps that the clip cuts."""
        if self.clip is None or not self.norms.size:
            return 0.0
        return float((self.norms > self.clip).mean())

    # -- model

    @cached_property
    def layers(self) -> list[Layer]:
        """The finding's model in forward order; of several, those that its layers belong to."""
        models = {layer.model for layer in self.run.layers if layer.name in self.finding.layers}
        chosen = [layer for layer in self.run.layers if not models or layer.model in models]
        return sorted(chosen, key=lambda layer: layer.order)

    @property
    def saturating(self) -> str:
        """The commonest squashing activation of a model whose depth it rules, or ""."""
        kinds = [layer.kind for layer in self.layers if layer.kind in SATURATING]
        return max(set(kinds), key=kinds.count) if len(kinds) >= 2 else ""

    @property
    def normalised(self) -> bool:
        return any(depth.resets_variance(layer) for layer in self.layers)

    @cached_property
    def half_precision(self) -> bool:
        return any(len(s) for s in self.run.series_of("loss_scale"))

    def weight_of(self, layer_name: str) -> tuple[Parameter, float] | None:
        """A layer's weight and the standard deviation that it started with."""
        return self._at_start(layer_name, weight=True)

    def bias_of(self, layer_name: str) -> float | None:
        """The root mean square of a layer's bias at the start."""
        known = self._at_start(layer_name, weight=False)
        return None if known is None else known[1]

    def _at_start(self, layer_name: str, *, weight: bool) -> tuple[Parameter, float] | None:
        """The weight or bias of a layer, and the size of its numbers at the first measurement."""
        for parameter in self.run.parameters:
            if parameter.layer != layer_name or parameter.is_weight != weight:
                continue
            for series in self.run.series_of("param_norm"):
                mine = series.where == parameter.name and len(series)
                if mine and series.owner in ("", parameter.optimizer) and series.values[0] >= 0:
                    size = max(1, math.prod(parameter.shape))
                    return parameter, float(series.values[0]) / math.sqrt(size)
        return None

    @cached_property
    def input_variance(self) -> float | None:
        """Variance across samples of what enters the model, by what its first layer makes of it.

        V_out = fan_in x Var(w) x V_in: exact for independent weights, an order of magnitude here.
        """
        if any(layer.kind.startswith(("Embedding", "RNN", "LSTM", "GRU")) for layer in self.layers):
            return None  # the first dense layer is not the first
        for layer in self.layers:
            if not depth.is_dense(layer):
                continue
            out = self.run.one("activation_sample_variance", layer.name)
            weight = self.weight_of(layer.name)
            if out is None or weight is None or not len(out):
                return None
            parameter, std = weight
            gain = fan_in(parameter) * std**2
            return float(out.values[0]) / gain if gain > 0 else None
        return None


def fan_in(parameter: Parameter) -> int:
    return max(1, math.prod(parameter.shape[1:]))


def times(ratio: float) -> str:
    """How far a step changes the parameters, in words."""
    return f"{100 * ratio:.0f} %" if ratio < 10 else f"{ratio:.1g} times their size"


def about(value: float, digits: int = 2) -> float:
    """Rounded to significant digits: a setting to type, not a measurement."""
    return float(f"{value:.{digits - 1}e}") if value and math.isfinite(value) else value
