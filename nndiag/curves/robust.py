"""Statistics that one spike or one NaN cannot move. Plain functions on numpy columns.

Shapes: T points of a series, B blocks. All inputs are float64 and, where not said otherwise,
finite. Nothing here knows what a loss is.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import pairwise

import numpy as np

Array = np.ndarray

MAD_TO_SIGMA = 1.4826  # of a normal distribution
Z_95 = 1.645  # its 95 % quantile, in standard deviations
Z_99 = 2.326  # its 99 % quantile
CHUNK = 1 << 15  # points that are worked on at once, so that they stay in the cache


def middle(values_T: Array) -> float:
    """The median; NaN where there is nothing."""
    return float(np.median(values_T)) if values_T.size else math.nan


def thinned(values_T: Array, most: int = 50_000) -> Array:
    """Every k-th value, so that at most `most` are left: enough for any quantile we use."""
    return values_T if values_T.size <= most else values_T[:: -(-values_T.size // most)]


def spread(values_T: Array) -> float:
    """The width of the bulk as a standard deviation: 1.4826 times the MAD."""
    if not values_T.size:
        return 0.0
    values_T = thinned(values_T)
    return MAD_TO_SIGMA * float(np.median(np.abs(values_T - np.median(values_T))))


def upper_spread(values_T: Array, *, far: bool = False) -> float:
    """A standard deviation that respects the upper tail: max(MAD, (q95 - q50) / 1.645).

    The log of a minibatch loss is skewed to the right, and the MAD alone then calls ordinary hard
    batches outliers: 48 of 70 healthy runs, in the measurement this rule comes from. `far` adds
    (q99 - q50) / 2.326, for callers that can afford an outlier in the sample.
    """
    if not values_T.size:
        return 0.0
    values_T = thinned(values_T)
    median, high, highest = np.quantile(values_T, (0.5, 0.95, 0.99))
    width = max(spread(values_T), float(high - median) / Z_95)
    tail = float(highest - median) / Z_99 if far else 0.0
    return max(width, min(tail, 1.5 * width))  # a spike in every window is no noise


def step_noise(values_T: Array) -> float:
    """Noise from point to point, whatever the trend: the MAD of differences, as a sigma."""
    return spread(np.diff(values_T)) / math.sqrt(2.0) if values_T.size > 2 else 0.0


def turning_share(values_T: Array) -> float:
    """Share of points that are a local extreme: 2/3 for pure noise, near 0 for a smooth curve."""
    change = np.sign(np.diff(values_T))
    return float(np.mean(change[1:] * change[:-1] < 0)) if values_T.size > 3 else 0.0


def block_edges(points: int, blocks: int) -> Array:
    """(B + 1,) int64: where to cut `points` points into at most `blocks` nearly equal blocks."""
    return np.linspace(0, points, max(1, min(blocks, points)) + 1).astype(np.int64)


def block_medians(values_T: Array, blocks: int) -> Array:
    """(B,) medians of nearly equal blocks; fewer where there are fewer points."""
    edges = block_edges(values_T.size, blocks)
    if not values_T.size:
        return np.empty(0)
    return np.array([np.median(values_T[a:b]) for a, b in pairwise(edges)])


def block_means(values_T: Array, blocks: int) -> Array:
    """(B,) means of nearly equal blocks; fewer where there are fewer points."""
    edges = block_edges(values_T.size, blocks)
    if not values_T.size:
        return np.empty(0)
    return np.add.reduceat(values_T, edges[:-1]) / np.diff(edges)


def spread_out(values_B: Array, edges: Array) -> Array:
    """(T,) the value of each block, given to all its points."""
    points = np.empty(int(edges[-1]))
    for value, (a, b) in zip(values_B.tolist(), pairwise(edges.tolist()), strict=True):
        points[a:b] = value
    return points


def running_median(values_T: Array, width: int) -> Array:
    """(T,) median of `width` (made odd) points around each; at the ends, of those there are."""
    half = max(0, min(width, values_T.size) // 2)
    if half == 0 or values_T.size == 0:
        return values_T.astype(np.float64)
    padded = np.concatenate([np.full(half, np.nan), values_T, np.full(half, np.nan)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    medians = np.empty(values_T.size)
    inner = slice(half, values_T.size - half)
    if values_T.size > 2 * half:
        medians[inner] = np.median(windows[inner], axis=1)
    for i in [
        *range(min(half, values_T.size)),
        *range(max(half, values_T.size - half), values_T.size),
    ]:
        medians[i] = np.median(values_T[max(0, i - half) : i + half + 1])
    return medians


def trailing_median(values_T: Array, width: int) -> Array:
    """(T,) median of the `width` points up to each; at the start, of those there are."""
    width = max(1, min(width, values_T.size))
    medians = np.empty(values_T.size)
    for i in range(min(width - 1, values_T.size)):
        medians[i] = np.median(values_T[: i + 1])
    if values_T.size:
        windows = np.lib.stride_tricks.sliding_window_view(values_T, width)
        medians[width - 1 :] = np.median(windows, axis=1)
    return medians


def median_of_three(values_T: Array) -> Array:
    """(T,) median of each point and its two neighbours: one lonely point cannot move it."""
    if values_T.size < 3:
        return values_T.copy()
    left, here, right = values_T[:-2], values_T[1:-1], values_T[2:]
    inner = np.maximum(np.minimum(left, here), np.minimum(np.maximum(left, here), right))
    ends = np.minimum(values_T[[0, -1]], values_T[[1, -2]])
    return np.concatenate([ends[:1], inner, ends[1:]])


def in_chunks(points: int, margin: int, size: int = CHUNK) -> Iterator[tuple[slice, slice, slice]]:
    """Parts of a long array that stay in the cache: (part, part with margins, part in that).

    What looks at most `margin` points far gives the same in parts as in one go, and needs no
    memory for all points at once. No part with margins is shorter than the margins.
    """
    for a in range(0, points, size):
        b, low = min(a + size, points), max(0, a - margin)
        yield slice(a, b), slice(low, min(b + margin, points)), slice(a - low, b - low)


def mann_kendall(values_B: Array) -> float:
    """Trend as a z score: positive where later values are larger. 0 where too few or all equal.

    Meant for at most some hundred block medians; on raw, autocorrelated steps it exaggerates.
    """
    count = values_B.size
    if count < 4:
        return 0.0
    signs = np.sign(values_B[None, :] - values_B[:, None])
    s = float(np.triu(signs, 1).sum())
    variance = count * (count - 1) * (2 * count + 5) / 18.0
    return 0.0 if s == 0 else (s - math.copysign(1.0, s)) / math.sqrt(variance)


def theil_sen(values_B: Array) -> tuple[float, float, float]:
    """Slope per block, with the ends of its 95 % interval (Sen 1968). Zeros where too few."""
    count = values_B.size
    if count < 3:
        return 0.0, 0.0, 0.0
    i, j = np.triu_indices(count, 1)
    slopes = np.sort((values_B[j] - values_B[i]) / (j - i))
    half_width = 1.96 * math.sqrt(count * (count - 1) * (2 * count + 5) / 18.0)
    low = max(0, int((slopes.size - half_width) / 2))
    high = min(slopes.size - 1, int((slopes.size + half_width) / 2) + 1)
    return float(np.median(slopes)), float(slopes[low]), float(slopes[high])


def stretches(mask_T: Array) -> list[tuple[int, int]]:
    """The runs of True as (first, one past last)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask_T, [False]]).astype(np.int8)))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def probability(*log_odds: float) -> float:
    """Evidence to a probability: the logistic of the sum, each part capped at +-3.5 nats."""
    total = sum(max(-3.5, min(3.5, part)) for part in log_odds)
    return 1.0 / (1.0 + math.exp(-total))
