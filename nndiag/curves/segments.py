"""Where a series changes its behaviour for a reason that is no fault: schedule, seams, epochs.

A rise of the loss means something only where nothing else explains it: while the learning rate
warms up, right after it was raised on purpose, where a run was resumed, or at every epoch edge,
the rules of the detectors look elsewhere or ask for more.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from nndiag.curves import robust
from nndiag.records import Series

JUMP = 1.5  # ratio of neighbouring learning rates that is no smooth schedule; experiment E8
BUMP_SHARE = 0.02  # of the run: a raised rate that falls back sooner is a bump, not a restart
FLOOR = 0.01  # share of the peak rate under which a schedule is finished; our experiments
SEAM_GAPS = 10.0  # usual distances between records that make a gap a seam
FRAGMENT = 0.1  # first step over last step: a log that starts later saw no beginning. Our choice
FRAGMENT_GAPS = 10.0  # usual distances between records from 0 to its first step. Our choice


class SameSeries:
    """A key for caches: a `Series` by identity, since its arrays have no hash."""

    def __init__(self, series: Series) -> None:
        self.series = series

    def __hash__(self) -> int:
        return id(self.series)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, SameSeries) and other.series is self.series


@dataclass(frozen=True, slots=True)
class Schedule:
    """What the learning rate did. Without a rate nothing is known, and nothing is excused."""

    known: bool = False
    warmup_end: int | None = None  # step of the first peak, where the rate rose from the start
    restarts: tuple[int, ...] = ()  # first steps at a rate that jumped up and stayed
    finished: int | None = None  # first step from which the rate stays below FLOOR of its peak
    peak: float = float("nan")
    last: float = float("nan")

    def warming(self, step: int) -> bool:
        return self.warmup_end is not None and step <= self.warmup_end


def schedule_of(lr: Series | None) -> Schedule:
    """Read a schedule from the rates as logged; NaN and negative rates are skipped."""
    return Schedule() if lr is None else _schedule(SameSeries(lr))


@lru_cache(maxsize=16)
def _schedule(key: SameSeries) -> Schedule:
    lr = key.series
    good = np.isfinite(lr.values) & (lr.values >= 0)
    steps, rates = lr.steps, lr.values
    if not good.all():
        steps, rates = steps[good], rates[good]
    if rates.size < 2 or rates.max() <= 0:
        return Schedule()
    rates = without_bumps(rates)
    peak = float(rates.max())
    start = _warmup_end(rates)
    return Schedule(
        known=True,
        warmup_end=int(steps[start]) if start else None,
        restarts=tuple(int(steps[i]) for i in _restarts(rates, start)),
        finished=_finished(steps, rates, peak),
        peak=peak,
        last=float(rates[-1]),
    )


def _warmup_end(rates_T: np.ndarray) -> int:
    """Index of the first peak of a rate that rises from the start; 0 where it does not."""
    falls = np.flatnonzero(rates_T[1:] < rates_T[:-1])
    climb = rates_T[: int(falls[0]) + 1] if falls.size else rates_T
    top = int(np.argmax(climb >= climb.max() * 0.98))
    if rates_T[0] >= 0.9 * climb[top]:
        return 0
    # One late jump from a constant rate is a change of mind; an early one is a coarse warm-up.
    moving = np.count_nonzero(np.diff(climb[: top + 1])) > 2
    return top if moving or top < 0.1 * rates_T.size else 0


def without_bumps(rates_T: np.ndarray, width: int = 5) -> np.ndarray:
    """Rates without rises shorter than `width` points: windows' lowest, then highest of those."""
    if rates_T.size < 4 * width:
        return rates_T
    opened = np.empty(rates_T.size)
    for part, wide, inside in robust.in_chunks(rates_T.size, margin=2 * width):
        opened[part] = _opened(rates_T[wide], width)[inside]
    return opened


def _opened(rates_T: np.ndarray, width: int) -> np.ndarray:
    padded = np.concatenate([rates_T, np.repeat(rates_T[-1], width - 1)])
    lowest = np.min([padded[i : i + rates_T.size] for i in range(width)], axis=0)
    padded = np.concatenate([np.repeat(lowest[0], width - 1), lowest])
    opened: np.ndarray = np.max([padded[i : i + rates_T.size] for i in range(width)], axis=0)
    return opened


def _restarts(rates_T: np.ndarray, start: int) -> list[int]:
    before, after = rates_T[:-1], rates_T[1:]
    jumps = np.flatnonzero((after > JUMP * before) & (after > FLOOR * rates_T.max())) + 1
    stay = max(3, int(BUMP_SHARE * rates_T.size))
    return [
        int(i)
        for i in jumps
        if i > start and np.min(rates_T[i : i + stay]) > rates_T[i - 1] * (1 + JUMP) / 2
    ]


def _finished(steps_T: np.ndarray, rates_T: np.ndarray, peak: float) -> int | None:
    alive = np.flatnonzero(rates_T >= FLOOR * peak)
    last_alive = int(alive[-1])
    return int(steps_T[last_alive + 1]) if last_alive + 1 < steps_T.size else None


def seams(steps_T: np.ndarray) -> np.ndarray:
    """Indices of points that follow a gap: the run was resumed there, or part of its log is lost.

    A gap is measured against both neighbours: some logs write every step at first, every hundredth
    later.
    """
    if steps_T.size < 4:
        return np.empty(0, dtype=np.int64)
    gaps = np.diff(steps_T)
    wide = gaps[1:-1] > SEAM_GAPS * np.maximum(gaps[:-2], gaps[2:])
    return np.flatnonzero(wide) + 2


def is_fragment(steps_T: np.ndarray) -> bool:
    """The log begins so late that its first value says nothing about the start of the run."""
    if steps_T.size < 2 or steps_T[0] <= FRAGMENT * steps_T[-1] or steps_T[0] <= 100:
        return False
    return bool(steps_T[0] > FRAGMENT_GAPS * (steps_T[-1] - steps_T[0]) / (steps_T.size - 1))


def epoch_edges(epoch: Series | None) -> np.ndarray:
    """Steps at which a new epoch begins; empty where the log does not tell."""
    if epoch is None or len(epoch) < 3:
        return np.empty(0, dtype=np.int64)
    whole = np.floor(np.where(np.isfinite(epoch.values), epoch.values, 0.0) + 1e-9)
    return epoch.steps[1:][np.diff(whole) > 0]


def regularly_spaced(steps_E: np.ndarray, tolerance: float = 0.1) -> bool:
    """At least four events at a fixed distance or multiples of it: an epoch, not an accident."""
    if steps_E.size < 4:
        return False
    gaps = np.diff(steps_E).astype(np.float64)
    unit = float(np.median(gaps))
    multiples = np.maximum(1.0, np.round(gaps / unit))
    return bool(np.mean(np.abs(gaps / unit - multiples) <= tolerance * multiples) >= 0.8)
