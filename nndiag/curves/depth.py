"""What several layer detectors ask of a run: does it learn, and what lies where along the depth?

No detector and no fault: only views on the records. A chain is a row of Linear and convolution
layers in forward order, without what makes variances incomparable (embeddings, recurrent cells,
attention internals) and cut at batch normalisation, which sets the variance across samples anew.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from nndiag.records import Layer, Parameter, Run, Series

VarianceRow = list[tuple[Layer, float, int]]  # layer, its first variance, the step of that
ENOUGH_STEPS = 20  # optimizer steps before "it does not learn" means anything; our own choice
NOT_RECORDED = "layers were not recorded"

# Conv1D is the transposed Linear of the GPT-2 in transformers.
_DENSE = frozenset(
    "Linear Conv1D Conv1d Conv2d Conv3d ConvTranspose1d ConvTranspose2d ConvTranspose3d".split()
)
_RECURRENT = ("RNN", "LSTM", "GRU")
_RESETS = ("BatchNorm", "SyncBatchNorm", "InstanceNorm", "LayerNorm", "GroupNorm", "RMSNorm")


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the loss of one optimizer came. Levels are medians: one spike does not move them."""

    points: int
    start: float  # level of the first steps
    opened: float  # level of the second tenth, when the opening is over
    end: float  # level of the last finite tenth
    drift: float  # share of the level that went after the opening, beyond its noise
    broke: bool  # the loss became NaN or infinite

    @property
    def learned(self) -> float:
        """Share of the first loss that is gone; negative where the loss rose."""
        scale = abs(self.start) if abs(self.start) > 1e-12 else 1e-12
        return (self.start - self.end) / scale

    @property
    def stuck(self) -> bool:
        """No progress worth the name: neither from first to last, nor after the opening.

        15 %: while a net finds the class shares and nothing else the loss still falls by up to
        10 % (our sigmoid and ReLU nets of 6 to 20 layers, 800 steps: 0 to 9 %). Some healthy
        losses fall no further, since their floor is high (cross-entropy with soft targets: 7 %),
        but they go on falling after the opening, which a stuck one does not.
        """
        return self.points >= ENOUGH_STEPS and self.learned < 0.15 and self.drift < 0.02

    @property
    def in_words(self) -> str:
        """The levels, for a message: "the loss stays at 2.30"."""
        if self.broke:
            return f"the loss starts at {self.start:.3g} and becomes non-finite"
        if self.stuck and self.learned > -0.15:
            return f"the loss stays at {self.end:.3g}"
        return f"the loss goes from {self.start:.3g} to {self.end:.3g}"


def progress(run: Run, owner: str = "") -> Progress | None:
    """Progress of an optimizer's loss, or of the run's only loss; None without a loss."""
    loss = run.one("loss", owner=owner) or run.one("loss")
    if loss is None:
        return None
    finite = loss.values[np.isfinite(loss.values)]
    if finite.size == 0:
        return Progress(0, math.nan, math.nan, math.nan, 0.0, True)
    bad = np.flatnonzero(~np.isfinite(loss.values))
    broke = bad.size > max(3, 0.1 * len(loss))
    head = finite[: max(1, min(5, finite.size // 20))]
    tail = finite[-max(1, finite.size // 10) :]
    opened = finite[finite.size // 10 : max(finite.size // 5, finite.size // 10 + 1)]
    levels = float(np.median(head)), float(np.median(opened)), float(np.median(tail))
    return Progress(int(finite.size), *levels, _drift(finite), broke)


def why_no_variance(run: Run) -> str:
    """Why there is no variance across samples: nothing was recorded, or batches of one sample."""
    seen = any(len(series) for series in run.series_of("activation_mean"))
    return "no layer saw several samples at once" if seen else NOT_RECORDED


def _drift(finite: np.ndarray) -> float:
    """How far the loss fell between its second fifteen per cent and its last, as a share.

    What the noise of the two medians may be (two standard errors) is taken off.
    """
    part = max(1, int(0.15 * finite.size))
    early, late = finite[part : 2 * part], finite[-part:]
    if early.size == 0:
        return 0.0
    fall = float(np.median(early) - np.median(late))
    noise = 1.4826 * float(np.median(np.abs(late - np.median(late))))
    error = 2 * 1.25 * noise * math.sqrt(2 / part)
    return max(0.0, fall - error) / max(abs(float(np.median(early))), 1e-12)


def is_harmed(trained: Progress | None) -> bool:
    """Whether the training went wrong, as far as its loss tells: nothing learned, or broken."""
    return trained is not None and (trained.stuck or trained.broke)


def broken_from(run: Run, owner: str = "") -> float:
    """The step at which the loss became non-finite for good; infinity where it did not.

    Statistics from there on show NaN everywhere, and nothing about their layer.
    """
    loss = run.one("loss", owner=owner) or run.one("loss")
    if loss is None or len(loss) == 0:
        return math.inf
    good = np.flatnonzero(np.isfinite(loss.values))
    if good.size == 0:
        return float(loss.steps[0])
    return float(loss.steps[good[-1] + 1]) if good[-1] + 1 < len(loss) else math.inf


def is_dense(layer: Layer) -> bool:
    return layer.kind in _DENSE or layer.kind.startswith("Lazy")


def resets_variance(layer: Layer) -> bool:
    return layer.kind.startswith(_RESETS)


class Index:
    """Series, layers and parameters of a run by place: built once per examination."""

    def __init__(self, run: Run, metrics: Iterable[str]) -> None:
        self.run = run
        wanted = set(metrics)
        self._series: dict[tuple[str, str], list[Series]] = defaultdict(list)
        for series in run.series:
            if series.metric in wanted and len(series):
                self._series[series.metric, series.where].append(series)
        self._layers = {(layer.model, layer.name): layer for layer in run.layers}
        self._optimizers = {(p.model, p.layer): p.optimizer for p in run.parameters}

    def any_of(self, metric: str) -> bool:
        return any(m == metric for m, _ in self._series)

    def of_layer(self, metric: str, layer: Layer) -> Series | None:
        """A layer's series; where two models share a layer name, the one of its own owner."""
        owner = self._optimizers.get((layer.model, layer.name)) or self._model_owner(layer.model)
        return self._pick(self._series.get((metric, layer.name), []), owner, layer.model)

    def of_parameter(self, metric: str, parameter: Parameter) -> Series | None:
        found = self._series.get((metric, parameter.name), [])
        return self._pick(found, parameter.optimizer, parameter.model)

    def layer_of(self, parameter: Parameter) -> Layer | None:
        return self._layers.get((parameter.model, parameter.layer))

    def owner_of(self, layer: Layer) -> str:
        """The optimizer that trains a layer, "" where the run has only one."""
        owner = self._optimizers.get((layer.model, layer.name)) or self._model_owner(layer.model)
        return owner if owner and len(self.run.optimizers) > 1 else ""

    def _model_owner(self, model: str) -> str | None:
        owners = (p.optimizer for p in self.run.parameters if p.model == model and p.optimizer)
        return next(owners, None)

    @staticmethod
    def _pick(found: list[Series], owner: str | None, model: str) -> Series | None:
        if len(found) <= 1:
            return found[0] if found else None
        named = [s for s in found if s.owner and s.owner in (owner, model)]
        return named[0] if named else None


def by_model(run: Run) -> Iterator[list[Layer]]:
    """Layers of each model, in forward order."""
    models: dict[str, list[Layer]] = defaultdict(list)
    for layer in sorted(run.layers, key=lambda layer: layer.order):
        models[layer.model].append(layer)
    yield from models.values()


def chains(layers: list[Layer]) -> Iterator[list[Layer]]:
    """Rows of dense layers with nothing between that sets the variance anew."""
    row: list[Layer] = []
    for layer in layers:
        if resets_variance(layer) or layer.kind.startswith(_RECURRENT):
            if row:
                yield row
            row = []
        elif is_dense(layer):
            row.append(layer)
    if row:
        yield row


def output_orders(run: Run) -> dict[str, int]:
    """For each model, the place of the last layer with weights: what follows is its output."""
    last: dict[str, int] = {}
    for layer in run.layers:
        weighted = is_dense(layer) or layer.kind.startswith(_RECURRENT)
        if weighted and layer.order > last.get(layer.model, -1):
            last[layer.model] = layer.order
    return last


def where_is(run: Run, series: Series) -> Layer | None:
    """The layer that a layer series was measured at."""
    found = [layer for layer in run.layers if layer.name == series.where]
    if len(found) > 1:
        owners = {p.model for p in run.parameters if p.optimizer == series.owner}
        found = [layer for layer in found if layer.model in owners | {series.owner}] or found
    return found[0] if found else None


def named(layers: Iterable[str], most: int = 3) -> str:
    """Layer names for a message: "`a`, `b`, `c` and 4 more"."""
    names = [f"`{name}`" for name in dict.fromkeys(layers)]
    if not names:
        return ""
    if len(names) <= most + 1:
        return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
    return f"{', '.join(names[:most])} and {len(names) - most} more"


def variances_at_start(index: Index, row: Iterable[Layer]) -> VarianceRow:
    """The layers of a row with the variance across samples that each began with, and its step.

    NaN is left out; infinity stays in, since float32 overflows when a signal explodes.
    """
    found = []
    for layer in row:
        series = index.of_layer("activation_sample_variance", layer)
        if series is not None and at_start(series) >= 0:
            found.append((layer, at_start(series), int(series.steps[0])))
    return found


def at_start(series: Series) -> float:
    """The first measurement. Only the first: a large step can change a layer beyond recognition."""
    return float(series.values[0]) if len(series) else math.nan


def before(series: Series, step: float) -> np.ndarray:
    """The values measured before a step."""
    return series.values[series.steps < step]


def percent(fraction: float) -> str:
    return f"{100 * fraction:.0f} %"
