"""The shape of one loss curve: levels, noise, trend, excursions. Measured once, used by many.

A `Curve` is built from a `Series` and kept for the next detector that asks for the same one.
Everything is measured on u, a scale on which noise has about the same width all along:

    u = log(loss + eps), eps = 1 % of the first level                        losses >= 0
    u = asinh((loss - median) / spread)                                      losses of any sign

Without eps, a run that interpolates its data (loss -> 1e-6) makes log loss so wide that every
rule fires. Shapes: T finite points, B = 20 blocks. Source: experiments E3, E9.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from nndiag.curves import robust
from nndiag.curves.segments import SameSeries
from nndiag.records import Series

Array = np.ndarray

BLOCKS = 20  # blocks of a trend; our experiments
SMALLEST_NOISE = 0.005  # in u: finer than this, nothing is called a change
EPS_SHARE = 0.01  # of the first losses
LARGEST = 1e150  # of a loss: sums and squares of it must not overflow
NOISE_WINDOW = 100  # points over which the noise is taken as constant
NOISE_WINDOWS = 300  # at most; longer windows in longer runs
KEPT = 16  # curves that are remembered ...
KEPT_POINTS = 30_000_000  # ... and points in them: each takes up to 40 bytes
COARSE = 2000  # blocks to which long series are reduced for baselines


class Curve:
    """One series, measured. All arrays belong to its finite points."""

    def __init__(self, series: Series) -> None:
        good = np.isfinite(series.values)
        is_whole = bool(good.all())
        self.series = series
        self.finite = good
        self.steps: Array = series.steps if is_whole else series.steps[good]
        values = series.values if is_whole else series.values[good]
        is_large = values.size and max(values.max(), -values.min()) > LARGEST
        self.values: Array = np.clip(values, -LARGEST, LARGEST) if is_large else values
        self.memo: dict[object, Any] = {}  # what others found out about it

    def __len__(self) -> int:
        return int(self.values.size)

    @cached_property
    def positive(self) -> bool:
        """Bounded by zero, so that ratios mean something. One stray negative does not count."""
        values = robust.thinned(self.values)
        return bool(len(self) and np.quantile(values, 0.01) >= 0 and np.median(values) > 0)

    @cached_property
    def u(self) -> Array:
        """(T,) the loss on the scale that all rules use."""
        if not len(self):
            return self.values
        if self.positive:
            eps = EPS_SHARE * max(self._first_level(), 1e-300)
            logs: Array = np.log(np.maximum(self.values, 0.0) + eps)
            return logs
        width = robust.spread(self.values) or float(np.std(self.values)) or 1.0
        bent: Array = np.arcsinh((self.values - np.median(self.values)) / width)
        return bent

    def _first_level(self) -> float:
        """Of the untrained model: the first twenty, but not where the run blew up among them."""
        usual = max(float(self.values[0]), robust.middle(robust.thinned(self.values)))
        return min(float(np.median(self.values[:20])), usual)

    @cached_property
    def opening(self) -> int:
        """Points at the start that may behave as they like: a high first loss is no event."""
        return max(2, min(20, len(self) // 50))

    @cached_property
    def blocks(self) -> Array:
        """(B,) medians of u."""
        return robust.block_medians(self.u, min(BLOCKS, max(1, len(self) // 3)))

    @cached_property
    def value_blocks(self) -> Array:
        """(B,) medians of the loss itself."""
        return robust.block_medians(self.values, min(BLOCKS, max(1, len(self) // 3)))

    @cached_property
    def start(self) -> float:
        """The level of the loss at the start: median of the first few points."""
        return robust.middle(self.values[: max(1, min(5, len(self) // 20))])

    @cached_property
    def end(self) -> float:
        """The level of the loss at the end: median of the last twentieth, three points or more."""
        return robust.middle(self.values[-max(3, len(self) // BLOCKS) :])

    @cached_property
    def best(self) -> float:
        """The lowest level that was held for a block."""
        return float(min(self.value_blocks.min(), self.end))

    @cached_property
    def way(self) -> float:
        """How far the loss came down, from its highest level at the start to its best."""
        first = self.values[: max(1, len(self) // 50)]
        return max(self.start, robust.middle(first)) - self.best

    @cached_property
    def _stride(self) -> int:
        return max(1, math.ceil(len(self) / COARSE))

    @cached_property
    def _coarse(self) -> Array:
        return self.u if self._stride == 1 else robust.block_medians(self.u, COARSE)

    def _spread_out(self, coarse: Array) -> Array:
        """(T,) a value of each coarse block, given to all its points."""
        if self._stride == 1:
            return coarse
        return robust.spread_out(coarse, robust.block_edges(len(self), COARSE))

    @cached_property
    def smooth(self) -> Array:
        """(T,) u without noise: a running median over about a fiftieth of the run."""
        width = min(101, max(5, self._coarse.size // 50))
        return self._spread_out(robust.running_median(self._coarse, width))

    @cached_property
    def baseline(self) -> Array:
        """(T,) the best level held so far: the lowest trailing median. It never rises.

        A level that is left upward stays the measure of what comes later, so a rise that never
        comes back is as visible at its end as at its beginning.
        """
        coarse = self._coarse
        width = min(50, max(5, coarse.size // 20))
        held = robust.trailing_median(coarse, width)
        held[: width // 2] = coarse[: width // 2].max(initial=-np.inf)  # too few to be a level
        held = np.minimum.accumulate(np.concatenate([held[:1], held[:-1]]))
        return self._spread_out(held)

    @cached_property
    def noise(self) -> Array:
        """(T,) width of the noise of u around its smooth course, upper tail respected.

        Measured in windows and taken as the median of five of them, so that a spike does not
        widen the noise it is measured by.
        """
        windows = min(NOISE_WINDOWS, max(1, len(self) // NOISE_WINDOW))
        edges = robust.block_edges(len(self), windows)
        far = windows >= 5
        local = np.array(
            [
                robust.upper_spread(self.u[a:b] - self.smooth[a:b], far=far)
                for a, b in pairwise(edges)
            ]
        )
        first = _steady(local, edges)
        out = np.empty(len(self), dtype=bool)
        for part, wide, inside in robust.in_chunks(len(self), margin=2):
            height = self.u[wide] - self.baseline[wide]
            held = robust.median_of_three(height)[inside]
            out[part] = (held > 3.0 * first[part]) & (height[inside] > 0.3)
        if not 0 < np.mean(out) < 0.1:
            return first
        # An event must not widen the noise it is measured by; much that stands out is the noise.
        for i, (a, b) in enumerate(pairwise(edges)):
            if out[a:b].any():
                rest = self.u[a:b] - self.smooth[a:b]
                local[i] = robust.upper_spread(rest[~out[a:b]], far=far)
        return _steady(local, edges)

    @cached_property
    def typical_noise(self) -> float:
        return robust.middle(robust.thinned(self.noise)) if len(self) else 0.0

    @cached_property
    def level_noise(self) -> float:
        """How far the median of a block wanders by noise alone, in u."""
        per_block = max(1.0, len(self) / max(1, self.blocks.size))
        return 1.25 * self.typical_noise / math.sqrt(per_block)

    def row_of(self, step: int) -> int:
        """Index of the first point at or after `step`."""
        return int(np.searchsorted(self.steps, step))

    def part(self, first: int, last: int | None = None) -> Trend:
        """The trend over the points first..last."""
        key = ("trend", first, last)
        if key not in self.memo:
            self.memo[key] = trend(self.u[first:last])
        found: Trend = self.memo[key]
        return found


def _steady(local_W: Array, edges: Array) -> Array:
    """(T,) widths of the noise, from those in windows."""
    return robust.spread_out(np.maximum(SMALLEST_NOISE, robust.running_median(local_W, 5)), edges)


@dataclass(frozen=True, slots=True)
class Trend:
    """The change of u over a stretch, with its 95 % interval (Theil-Sen on 20 block medians)."""

    change: float
    low: float
    high: float
    kendall: float  # Mann-Kendall z; negative where it falls

    def flat(self, within: float) -> bool:
        """An equivalence claim: the whole interval lies within +-`within`."""
        return -within <= self.low and self.high <= within


def trend(u_T: Array) -> Trend:
    medians = robust.block_medians(u_T, min(BLOCKS, max(1, u_T.size // 2)))
    slope, low, high = robust.theil_sen(medians)
    count = max(0, medians.size - 1)
    return Trend(slope * count, low * count, high * count, robust.mann_kendall(medians))


@dataclass(frozen=True, slots=True)
class Excursion:
    """A stretch in which the loss stood above its own earlier level. Rows count finite points."""

    first: int  # row of the last calm point before it
    peak: int
    last: int  # row of the first point that is back; the last row where it never is
    recovered: bool
    score: float  # height at the peak, in widths of the noise
    rise: float  # height at the peak, in u
    onset: int  # points within which it gains half of its height
    baseline: float  # level before, in units of the loss
    together: float = float("nan")  # largest z of the gradient norm around the onset


_newest: OrderedDict[SameSeries, Curve] = OrderedDict()


def curve_of(series: Series) -> Curve:
    """The measured curve of a series; measured once, while it is among the newest."""
    key = SameSeries(series)
    curve = _newest.pop(key, None) or Curve(series)
    _newest[key] = curve
    while len(_newest) > KEPT or (len(_newest) > 2 and _points() > KEPT_POINTS):
        _newest.popitem(last=False)
    return curve


def _points() -> int:
    return sum(len(key.series) for key in _newest)
