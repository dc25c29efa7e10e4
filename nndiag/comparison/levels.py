"""The level of a curve in a window, the difference of two, and how far noise alone would go.

A level is the value of a straight line through the window at its middle: the same place of the
training, however often a run was logged. Its error comes from the noise of a longer stretch around
the window (curves/long_run.py), so that it holds for noise with a memory. Where both runs have the
same steps, the noise is that of their differences: what they share cancels.

Runs of several seeds are compared by one level each, with Welch's t: then the error is that from
seed to seed, whatever the noise within a run.

Shapes: T points of a series, W points of a window.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nndiag.comparison.axes import Course
from nndiag.comparison.facts import Basis, Difference, Outcome
from nndiag.curves.long_run import FEWEST, calmed, long_run
from nndiag.curves.student_t import two_sided

Array = np.ndarray

FLOOR = 1e-3  # of the level: a smaller difference is none that matters. Our own choice
PAIRED = 0.9  # of the points that must stand at the same steps
UNKNOWN = math.nan


@dataclass(frozen=True, slots=True)
class Window:
    """Where a level is taken, and the stretch around it that tells the noise."""

    start: float
    end: float
    noise_start: float
    noise_end: float

    @property
    def middle(self) -> float:
        return 0.5 * (self.start + self.end)


@dataclass(frozen=True, slots=True)
class Level:
    """A level with its standard error; NaN where the noise is not known."""

    value: float
    error: float = UNKNOWN
    freedom: float = UNKNOWN
    reason: str = ""  # why the error is not known


def end_window(courses: Sequence[Course], start: float, end: float, share: float = 0.1) -> Window:
    """The newest tenth of a stretch, more where a run has few points there, half at most."""
    half = end - 0.5 * (end - start)
    begin = end - share * (end - start)
    for course in courses:
        inside = course.x_T[(course.x_T >= half) & (course.x_T <= end)]
        if inside.size:
            begin = min(begin, float(inside[-min(FEWEST, inside.size)]))
    return Window(max(half, begin), end, half, end)


def part(course: Course, start: float, end: float) -> tuple[Array, Array]:
    """The points of a course between two places, both included."""
    low = int(np.searchsorted(course.x_T, start, side="left"))
    high = int(np.searchsorted(course.x_T, end, side="right"))
    return course.x_T[low:high], course.y_T[low:high]


def value(course: Course, window: Window) -> float:
    """The level of one run, without its error; NaN where it has no values."""
    x_T, y_T = part(course, window.noise_start, window.noise_end)
    x_W, y_W = part(Course(x_T, calmed(y_T)), window.start, window.end)
    return _at_middle(x_W, y_W, window.middle)[0] if x_W.size else UNKNOWN


def level(course: Course, window: Window) -> Level:
    """The level of one run."""
    x_T, y_T = part(course, window.noise_start, window.noise_end)
    y_T = calmed(y_T)
    x_W, y_W = part(Course(x_T, y_T), window.start, window.end)
    if not x_W.size:
        return Level(UNKNOWN, reason="no values there")
    value, factor = _at_middle(x_W, y_W, window.middle)
    noise = long_run(x_T, y_T)
    if x_W.size < FEWEST or noise is None:
        return Level(value, reason=f"{x_W.size} values there; {FEWEST} are needed")
    if not noise.is_known:
        return Level(value, reason="its noise remembers too long for the steps there are")
    inside = _scatter(x_W, y_W) if x_W.size > 2 * FEWEST else 0.0
    louder = max(1.0, inside / noise.spread) if noise.spread > 0 else 1.0
    return Level(value, louder * math.sqrt(noise.variance * factor), noise.freedom)


def mean_level(courses: Sequence[Course], window: Window) -> Level:
    """The level of several runs: the mean of theirs, with the error from seed to seed."""
    values = [value(course, window) for course in courses]
    if not all(math.isfinite(value) for value in values):
        return Level(UNKNOWN, reason="a run has no values there")
    error = float(np.std(values, ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else UNKNOWN
    return Level(float(np.mean(values)), error, len(values) - 1.0)


def difference(
    a: Sequence[Course], b: Sequence[Course], window: Window, alpha: float
) -> Difference:
    """B minus A in a window; a band of noise exceeds it with probability `alpha`."""
    if len(a) == 1 and len(b) == 1:
        return _of_two(a[0], b[0], window, alpha)
    return _of_seeds(a, b, window, alpha)


def _of_two(a: Course, b: Course, window: Window, alpha: float) -> Difference:
    own = part(a, window.noise_start, window.noise_end)
    other = part(b, window.noise_start, window.noise_end)
    if own[0].size and all(np.array_equal(x, y) for x, y in zip(own, other, strict=True)):
        same = value(a, window)
        return Difference(Outcome.IDENTICAL, same, same, 0.0, 0.0, Basis.NOISE)
    paired = _paired(a, b, window)
    if paired is not None:
        at_a, at_b = value(a, window), value(b, window)
        both = level(paired, window)
    else:
        level_a, level_b = level(a, window), level(b, window)
        at_a, at_b = level_a.value, level_b.value
        error, freedom = math.hypot(level_a.error, level_b.error), _welch(level_a, level_b)
        both = Level(at_b - at_a, error, freedom, level_a.reason or level_b.reason)
    if both.reason or not math.isfinite(both.value) or not math.isfinite(both.error):
        return _undecided(at_a, at_b, both.value, both.reason)
    band = both.error * two_sided(alpha, both.freedom)
    return _judged(at_a, at_b, both.value, band, Basis.NOISE)


def _undecided(a: float, b: float, difference: float, reason: str) -> Difference:
    return Difference(Outcome.UNDECIDED, a, b, difference, UNKNOWN, Basis.NONE, reason)


def _of_seeds(a: Sequence[Course], b: Sequence[Course], window: Window, alpha: float) -> Difference:
    level_a, level_b = mean_level(a, window), mean_level(b, window)
    at_a, at_b = level_a.value, level_b.value
    if not math.isfinite(at_b - at_a):
        return _undecided(at_a, at_b, at_b - at_a, level_a.reason or level_b.reason)
    if len(a) > 1 and len(b) > 1:
        error, freedom = math.hypot(level_a.error, level_b.error), _welch(level_a, level_b)
    else:  # a single run against several: it is taken to scatter as they do
        many, count = (level_a, len(a)) if len(a) > 1 else (level_b, len(b))
        error = many.error * math.sqrt(count + 1.0)
        freedom = count - 1.0
    if error == 0.0 and at_a == at_b:
        return Difference(Outcome.IDENTICAL, at_a, at_b, 0.0, 0.0, Basis.SEEDS)
    if error == 0.0:
        reason = "the runs of each side are equal: no seeds to judge by"
        return _undecided(at_a, at_b, at_b - at_a, reason)
    band = error * two_sided(alpha, freedom)
    return _judged(at_a, at_b, at_b - at_a, band, Basis.SEEDS)


def _judged(a: float, b: float, value: float, band: float, basis: Basis) -> Difference:
    size = max(abs(a), abs(b))
    if abs(value) <= band or abs(value) < FLOOR * size:
        return Difference(Outcome.SAME, a, b, value, band, basis)
    return Difference(Outcome.LOWER if value < 0 else Outcome.HIGHER, a, b, value, band, basis)


def _paired(a: Course, b: Course, window: Window) -> Course | None:
    """B minus A where both have a value, if they nearly always do."""
    xa, ya = part(a, window.noise_start, window.noise_end)
    xb, yb = part(b, window.noise_start, window.noise_end)
    common, in_a, in_b = np.intersect1d(xa, xb, assume_unique=True, return_indices=True)
    if common.size < max(FEWEST, PAIRED * max(xa.size, xb.size)):
        return None
    return Course(common, yb[in_b] - ya[in_a])


def is_paired(a: Course, b: Course, window: Window) -> bool:
    return _paired(a, b, window) is not None


def _welch(a: Level, b: Level) -> float:
    """Degrees of freedom of a difference of two levels (Welch 1947, Satterthwaite 1946)."""
    va, vb = a.error**2, b.error**2
    total = va**2 / a.freedom + vb**2 / b.freedom
    if not total > 0 or not math.isfinite(total):
        return max(1.0, min(a.freedom, b.freedom))
    return max(1.0, (va + vb) ** 2 / total)


def _at_middle(x_W: Array, y_W: Array, middle: float) -> tuple[float, float]:
    """(value at the middle of the line through the points, its variance in units of theirs)."""
    centre, mean = float(x_W.mean()), float(np.mean(y_W))
    square = float(np.sum((x_W - centre) ** 2))
    if x_W.size < FEWEST or square <= 0.0:
        return mean, 1.0 / x_W.size
    away = middle - centre
    return mean + _slope(x_W, y_W) * away, 1.0 / x_W.size + away**2 / square


def _slope(x_W: Array, y_W: Array) -> float:
    from_centre_W = x_W - x_W.mean()
    return float(from_centre_W @ (y_W - y_W.mean()) / (from_centre_W @ from_centre_W))


def _scatter(x_W: Array, y_W: Array) -> float:
    """The standard deviation of the values of a window around their line."""
    return float(np.std(y_W - _slope(x_W, y_W) * (x_W - x_W.mean())))
