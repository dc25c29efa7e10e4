"""A band learned from a few runs of the same training, and whether another run lies above it.

Each run becomes its levels in common blocks of steps (`resample`). For a window of blocks the n
learned levels x_1..x_n are taken as a sample of a normal distribution, of log x where all are
positive. The next healthy run lies above

    mean + t(1 - alpha; n - 1) * sd * sqrt(1 + 1/n)

with probability alpha: Student's one-sided prediction interval. It knows how little a few runs
tell: with three runs it is very wide. `alpha` is a share of the false-alarm rate of the whole
comparison: half of it goes to the end of the curve, the rest to the windows on the way
(Bonferroni), so the rate holds however the windows hang together.

Two things make the band wider, never narrower. The standard deviation is at least the noise of the
levels themselves, so that runs of one seed do not give a band of width zero. And a new curve whose
levels are noisier than the learned ones, because it is logged less often, gets that much more.

Shapes: N runs, B blocks.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np

from nndiag.curves import resample, student_t
from nndiag.curves.robust import Array
from nndiag.records import Series

FEWEST = 3  # runs; two have a spread, but one degree of freedom tells nothing
POINTS = 4  # of the shortest curve; with fewer only its last value is compared
END_SHARE = 0.5  # of the false-alarm rate for the end of a curve. Our own choice
FLOOR = 1e-6  # of the level: two floats that close are the same


@dataclass(frozen=True, slots=True)
class Learned:
    """A curve of several runs, in blocks from step `first` to step `last`."""

    metric: str
    owner: str
    label: str  # what the logs call it
    first: int
    last: int
    interval: float  # usual steps between two points
    levels: Array  # (N, B); NaN where a run has no level
    errors: Array  # (N, B) their standard errors

    @property
    def edges(self) -> Array:
        """(B + 1,) the ends of the blocks; for the last value alone, that step twice."""
        return resample.block_edges(self.first, self.last, self.levels.shape[1])

    @property
    def is_last_value(self) -> bool:
        return bool(self.levels.shape[1] == 1)


@dataclass(frozen=True, slots=True)
class Place:
    """One window of a comparison: where, and how the new run stands to the band there."""

    start: int  # steps
    end: int
    value: float  # of the new run; NaN where only the band was asked for
    centre: float  # of the learned runs
    lowest: float
    highest: float
    limit: float  # the upper end of the band
    excess: float  # (value - centre) in standard deviations of a prediction
    runs: int
    alpha: float

    @property
    def is_outside(self) -> bool:
        return self.value > self.limit


def learn(curves: Sequence[Series]) -> Learned | None:
    """What several runs have in common; None where their curves share no steps."""
    filled = [curve for curve in curves if np.isfinite(curve.values).any()]
    common = resample.overlap(filled)
    if common is None:
        return None
    first, last = common
    few = min(len(curve) for curve in filled) < POINTS or first == last
    found = []
    for curve in filled:
        if few:
            found.append(_last_value(curve, last))
        else:
            found.append(resample.levels(curve, resample.block_edges(first, last)))
    one = filled[0]
    return Learned(
        metric=one.metric,
        owner=one.owner,
        label=one.label,
        first=last if few else first,
        last=last,
        interval=float(np.median([resample.interval(curve) for curve in filled])),
        levels=np.stack([each.values for each in found]),
        errors=np.stack([each.errors for each in found]),
    )


def compare(learned: Learned, curve: Series, rate: float) -> tuple[Place, ...]:
    """How `curve` stands to the band; empty where it covers no block. `rate` is for all places."""
    if learned.is_last_value:
        new = _last_value(curve, learned.last)
    else:
        new = resample.levels(curve, learned.edges)
    return stand(learned, new, rate)


def band(learned: Learned, rate: float) -> tuple[Place, ...]:
    """The band alone, as a run of full length would meet it."""
    return stand(learned, None, rate)


def stand(learned: Learned, new: resample.Levels | None, rate: float) -> tuple[Place, ...]:
    """The windows of a comparison with levels in the learned blocks; without any, the band."""
    known = np.isfinite(learned.levels).sum(axis=0) >= FEWEST
    covered = known if new is None else known & new.covered
    blocks = int(np.argmin(covered)) if not covered.all() else covered.size
    places = []
    for start, end, share in _windows(blocks):
        place = _place(learned, slice(start, end), rate * share, new)
        if place is not None:
            places.append(place)
    return tuple(places)


def _windows(blocks: int) -> list[tuple[int, int, float]]:
    """(first block, one past the last, share of the rate): the end, the half way, the quarter."""
    width = 2 if blocks >= 4 else 1
    ends = sorted({blocks, round(blocks / 2), round(blocks / 4)} - set(range(width)))
    if not blocks:
        return []
    rest = (1.0 - END_SHARE) / max(1, len(ends) - 1)
    last = END_SHARE if len(ends) > 1 else 1.0
    return [(end - width, end, last if end == blocks else rest) for end in ends]


def _place(
    learned: Learned, window: slice, alpha: float, new: resample.Levels | None
) -> Place | None:
    whole = np.isfinite(learned.levels[:, window]).all(axis=1)
    levels_NB, errors_NB = learned.levels[whole, window], learned.errors[whole, window]
    count, width = levels_NB.shape
    if count < FEWEST:
        return None
    is_log = bool((levels_NB > 0).all())
    if is_log:
        errors_NB = errors_NB / levels_NB
        levels_NB = np.log(levels_NB)
    level_N = levels_NB.mean(axis=1)
    centre, noise = float(level_N.mean()), float((errors_NB**2).mean() / width)
    floor = FLOOR * (1.0 if is_log else max(abs(centre), np.finfo(float).tiny))
    variance = max(float(level_N.var(ddof=1)), noise, floor**2) * (1.0 + 1.0 / count)
    value = math.nan
    if new is not None:
        value, error = _level_of(new, window, is_log)
        variance += max(0.0, error**2 / width - noise)
    limit = centre + _quantile(1.0 - alpha, count - 1) * math.sqrt(variance)
    edges = learned.edges
    back = _exp if is_log else float
    return Place(
        start=math.ceil(edges[window.start]),
        end=math.floor(edges[window.stop]),
        value=back(value),
        centre=back(centre),
        lowest=back(float(level_N.min())),
        highest=back(float(level_N.max())),
        limit=back(limit),
        excess=(value - centre) / math.sqrt(variance),
        runs=count,
        alpha=alpha,
    )


@cache
def _quantile(probability: float, freedom: int) -> float:
    return student_t.quantile(probability, freedom)


def _level_of(new: resample.Levels, window: slice, is_log: bool) -> tuple[float, float]:
    """(level, root mean square error of a block); -infinity where log x would be none."""
    values_B, errors_B = new.values[window], new.errors[window]
    if is_log:
        if (values_B <= 0).any():
            return -math.inf, 0.0
        values_B, errors_B = np.log(values_B), errors_B / values_B
    return float(values_B.mean()), float(np.sqrt((errors_B**2).mean()))


def _last_value(curve: Series, last: int) -> resample.Levels:
    """The newest finite value up to step `last`, of a curve that comes near it."""
    slack = max(1.0, resample.interval(curve))
    upto = np.isfinite(curve.values) & (curve.steps <= last + slack)
    reaches = upto.any() and curve.steps[upto][-1] >= last - slack
    value = float(curve.values[upto][-1]) if reaches else math.nan
    edges = np.array([last, last], dtype=np.float64)
    return resample.Levels(edges, np.array([value]), np.zeros(1))


def _exp(value: float) -> float:
    try:
        return math.exp(value)
    except OverflowError:
        return math.inf
