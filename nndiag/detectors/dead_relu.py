"""dead-relu: units that output 0 for every input, and stay so."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag.curves import depth
from nndiag.detectors.base import Detector
from nndiag.records import Abstention, Evidence, Finding, Layer, Run, Series, Severity


@dataclass(frozen=True, slots=True)
class _Dying:
    """A ReLU with many silent units."""

    where: str
    fraction: float  # settled
    limit: float  # that it broke
    initial: float
    samples: int
    step: int  # from which on the fraction stayed above the limit
    order: int
    owner: str


@dataclass(frozen=True, kw_only=True)
class DeadRelu(Detector):
    """Most units of a ReLU layer output zero for every input, and stay so.

    What it sees
        In each ReLU, module or call, the share of units (features or channels) that were silent
        for every one of the last some thousand samples. Zeros as such are healthy: half of all
        elements are zero in a good net. A unit that never fires is not.

    Why it happens
        A large step, or a bias that starts far below zero, pushes a unit under zero for every
        input. ReLU has slope 0 there, so its weights get no gradient, and it seldom comes back.

    Evidence
        d(t) = units without a positive output over the last N samples / all units of the layer
        settled: the smallest of the newest 3 measurements, each over N >= 256 samples
        reported when d > limit; or d > limit_pushed, risen by `rise`, where an early step changed
        the parameters by more than a tenth and the loss keeps a third of its first level
        left out: a ReLU after the last layer with weights, unless it is dead as a whole, and
        layers of fewer than 16 units while the net learns

    Remedy
        1. Dead from the start: He initialisation with biases at 0.
        2. Died later: a lower learning rate or a warm-up, then train again from the start.
        3. LeakyReLU, GELU or SiLU in the layers named.

    Source
        Lu et al. 2019, "Dying ReLU and Initialization", arXiv:1903.06733. Limits: our own runs
        (healthy layers 0 to 12 % dead units over 2048 samples, 45 % before the bottleneck of an
        autoencoder; affected ones 56 to 100 %).
    """

    name = "dead-relu"
    explains = ("vanishing-gradient", "activation-vanishing", "unused-parameters",
                "untrained-parameters", "loss-plateau", "slow-convergence",
                "loss-oscillation", "loss-spike", "update-too-small")  # fmt: skip

    limit: float = 0.5  # share of units, 0..1
    limit_critical: float = 0.9  # share of units: hardly anything passes the layer
    limit_pushed: float = 0.3  # share of units that steps far too large have killed so far
    rise: float = 0.2  # share of units
    too_large: float = 0.1  # |update| / |parameters|: 48 of 78 too high rates, 2 of 122 good
    settled: int = 3  # measurements
    samples: int = 256  # per unit; healthy units look dead in 9 % of cases over 8, 0-1 % over 2048
    narrow: int = 16  # units; in fewer, half of them can die by chance and do no harm

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        measured = [s for s in run.series_of("dead_unit_fraction") if len(s)]
        if not measured:
            if not run.layers:
                yield Abstention(self.name, depth.NOT_RECORDED)
            return
        outputs = depth.output_orders(run)
        widths = _widths(run)
        found: dict[str, list[_Dying]] = {}
        too_few = ""
        owners = {series.owner for series in measured}
        trained = {owner: depth.progress(run, owner) for owner in owners}
        until = {owner: depth.broken_from(run, owner) for owner in owners}
        for series in measured:
            layer = depth.where_is(run, series)
            stuck = depth.is_harmed(trained[series.owner])
            pushed = self._pushed(run, series.owner, trained[series.owner])
            dying = self._dying(run, series, layer, until[series.owner], pushed)
            if isinstance(dying, str):
                too_few = too_few or dying
                continue
            if dying is None or not self._matters(dying, layer, outputs, widths, stuck):
                continue
            found.setdefault(series.owner, []).append(dying)
        for owner, layers in found.items():
            yield self._finding(layers, owner, trained[owner])
        if not found and too_few:
            yield Abstention(self.name, too_few)

    def _dying(
        self, run: Run, series: Series, layer: Layer | None, until: float, pushed: bool
    ) -> _Dying | str | None:
        """The layer if too many of its units are silent; the reason where that is unknown."""
        usable = np.isfinite(series.values) & (series.steps < until)
        counted = _samples(run, series)
        enough = usable & (counted >= self.samples)
        if int(enough.sum()) < self.settled:
            if until <= series.steps[-1]:
                return f"the loss broke at step {until:.0f}, before units could be judged"
            if usable.any() and counted[usable].max() >= self.samples:
                return f"{int(enough.sum())} measurements; {self.settled} needed"
            seen = int(counted[usable].max()) if usable.any() else 0
            return f"{seen} samples per unit; {self.samples} needed"
        values = series.values[usable]
        settled = float(series.values[enough][-self.settled :].min())
        limit = self.limit
        if pushed and settled - float(values[0]) > self.rise:
            limit = self.limit_pushed
        if settled <= limit:
            return None
        judged = np.flatnonzero(counted[usable] >= self.samples)[-1]  # the newest one
        below = np.flatnonzero(values[:judged] <= limit)
        since = int(series.steps[usable][below[-1] + 1 if below.size else 0])
        return _Dying(
            where=series.where,
            fraction=settled,
            limit=limit,
            initial=float(values[0]),
            samples=int(min(counted[enough][-1], 1e9)),
            step=since,
            order=layer.order if layer else 0,
            owner=series.owner,
        )

    def _pushed(self, run: Run, owner: str, trained: depth.Progress | None) -> bool:
        """Whether early steps were far too large, and the loss has not got over it."""
        ratio = run.one("update_ratio", owner=owner) or run.one("update_ratio")
        if ratio is None or trained is None or trained.learned > 0.67:
            return False
        early = ratio.values[ratio.steps < 50]
        return bool((early > self.too_large).any())

    def _matters(
        self,
        dying: _Dying,
        layer: Layer | None,
        outputs: dict[str, int],
        widths: dict[tuple[str, int], int],
        stuck: bool,
    ) -> bool:
        if layer is None or layer.name == "":
            return True  # a call outside every layer: its place in the depth is unknown
        if layer.order >= outputs.get(layer.model, -1) and outputs:
            return stuck and dying.fraction > 0.99
        width = max(
            ((order, n) for (model, order), n in widths.items()
             if model == layer.model and order <= layer.order),
            default=(0, self.narrow),
        )[1]  # fmt: skip
        return stuck or width >= self.narrow or dying.fraction > 0.99

    def _finding(self, layers: list[_Dying], owner: str, trained: depth.Progress | None) -> Finding:
        layers = sorted(layers, key=lambda dying: dying.order)
        worst = max(layers, key=lambda dying: dying.fraction)
        start = min(dying.step for dying in layers)
        from_start = worst.initial > self.limit
        harmed = depth.is_harmed(trained)
        critical = worst.fraction > self.limit_critical or harmed
        when = "from the start" if from_start else f"since step {worst.step}"
        others = "" if len(layers) == 1 else (
            f" ({len(layers)} layers like it: "
            f"{depth.named(dying.where for dying in layers)})"
        )  # fmt: skip
        return Finding(
            name=self.name,
            severity=Severity.CRITICAL if critical else Severity.WARNING,
            confidence=0.97 if worst.fraction > self.limit_critical else 0.85,
            message=(
                f"{depth.percent(worst.fraction)} of the units of `{worst.where}` output 0 for "
                f"every one of {worst.samples} samples {when}{others}"
                + (f"; {trained.in_words}" if trained and harmed else "")
            ),
            step_start=start,
            series="dead_unit_fraction",
            owner=owner,
            layers=tuple(dying.where for dying in layers),
            evidence=(
                Evidence("dead_unit_fraction", worst.fraction, worst.limit),
                Evidence("dead_unit_fraction_at_start", worst.initial),
                Evidence("dead_from_start", from_start),
                Evidence("dead_unit_samples", worst.samples, self.samples),
                Evidence("layers", len(layers)),
            ),
        )


def _samples(run: Run, series: Series) -> np.ndarray:
    """Samples behind each measurement; plenty where the log does not say."""
    counts = next(
        (
            s
            for s in run.series_of("dead_unit_samples", owner=series.owner)
            if s.where == series.where and len(s)
        ),
        None,
    )
    if counts is None:
        return np.full(len(series), np.inf)
    at = np.searchsorted(counts.steps, series.steps, side="right") - 1
    return np.where(at >= 0, counts.values[np.maximum(at, 0)], 0.0)


def _widths(run: Run) -> dict[tuple[str, int], int]:
    """Units of each layer with weights, by model and place: what a ReLU after it has."""
    places = {(layer.model, layer.name): layer for layer in run.layers}
    widths = {}
    for parameter in run.parameters:
        layer = places.get((parameter.model, parameter.layer))
        if layer is not None and parameter.is_weight and depth.is_dense(layer):
            transposed = "Transpose" in layer.kind or layer.kind == "Conv1D"
            widths[layer.model, layer.order] = parameter.shape[1 if transposed else 0]
    return widths
