"""Rises that stay: a curve that ends above where it was, or leaves its start upward."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from nndiag.curves import robust
from nndiag.curves.excursions import excursions, is_sudden
from nndiag.curves.shape import Curve

OVER_START = 1.05  # times the start: a run that ends higher has lost its way. Our choice
FAIR = 0.3  # noise in u up to which one batch tells the level of the untrained model


@dataclass(frozen=True, slots=True)
class Climb:
    """A curve that ends far above where it was, or where it began."""

    first: int  # row from which it rose
    peak: int
    best: float  # the level it had, in units of the loss
    end: float
    rise: float  # end over best, in u
    above_start: float  # end over the highest level of its opening, in u
    over_start: bool  # that is beyond noise
    into_nonfinite: bool


def divergence_of(curve: Curve, gradient: Curve | None, *, factor: float = 3.0) -> Climb | None:
    """A climb by `factor`, or above the start; or a slow one by a third that nothing sudden began.

    What jumps by less than `factor` and stays is an unrecovered spike.
    """
    climb = climb_of(curve, factor=min(factor, 1.35))
    if climb is None or climb.rise > math.log(factor) or climb.over_start or climb.into_nonfinite:
        return climb
    jumps = any(not e.recovered and is_sudden(curve, e) for e in excursions(curve, gradient))
    return None if jumps else climb


def climb_of(curve: Curve, *, factor: float = 3.0) -> Climb | None:
    """A rise that is there at the end: `factor` times the best, or 1.05 times the start.

    The way back must be worth mentioning (a quarter of what had been gained), and beyond what the
    noise of the first half makes of the same number of points. A run that ends in NaN counts with
    its last finite point.
    """
    key = ("climb", factor)  # several detectors ask for the same
    if key not in curve.memo:
        curve.memo[key] = _climb_of(curve, factor, OVER_START)
    found: Climb | None = curve.memo[key]
    return found


def _climb_of(curve: Curve, factor: float, over_start: float) -> Climb | None:
    if len(curve) < 3:
        return None
    dies = not bool(curve.finite[int(np.flatnonzero(curve.finite)[-1]) :].all())
    end_u, end, newest = _end_of(curve, dies)
    lowest, best_u = _best_of(curve, newest)
    noise = _early_noise(curve)
    start = _start_of(curve)
    above_start = end_u - _u_at(curve, start)
    best = min(_value_at(curve, best_u), start)
    rise = max(end_u - best_u, above_start)
    beyond = 4.0 * noise / math.sqrt(min(newest, 20))  # a level wanders with the iterate, too
    if rise <= beyond or end <= best:
        return None
    lost = end - best > 0.25 * max(0.0, start - best)
    below_best = end_u - best_u > math.log(factor) and lost
    over = above_start > max(math.log(over_start), beyond)
    ends_rising = dies and rise > max(math.log(1.5), 6.0 * noise) and end_u >= curve.u[-3:].max()
    if not (below_best or over or ends_rising):
        return None
    calm = np.flatnonzero(curve.smooth - best_u < max(1.5 * noise, 0.15 * rise))
    first = int(calm[-1]) if calm.size and below_best else lowest if ends_rising else 0
    first = min(first, len(curve) - 1)
    peak = first + int(np.argmax(curve.values[first:]))
    if not dies and first > 0.9 * len(curve) and curve.u[peak] - end_u > 1.0:
        return None  # a spike near the end, already on its way back
    return Climb(first, peak, best, end, rise, above_start, over, dies)


def _end_of(curve: Curve, dies: bool) -> tuple[float, float, int]:
    """u and loss at the end, with the number of points they rest on; one, where NaN follows."""
    newest = 1 if dies else max(3, len(curve) // 20)
    return robust.middle(curve.u[-newest:]), robust.middle(curve.values[-newest:]), newest


def _best_of(curve: Curve, newest: int) -> tuple[int, float]:
    """Row and u of the best level held; of the lowest point where there are too few for levels."""
    if len(curve) >= 20:
        lowest = int(np.argmin(curve.baseline))
        return lowest, float(curve.baseline[lowest])
    lowest = int(np.argmin(curve.u[: max(1, len(curve) - newest)]))
    return lowest, float(curve.u[lowest])


def _start_of(curve: Curve) -> float:
    """What a run that learns nothing would stay at.

    The first value is of the untrained model and exact where hardly any later one is lower; else
    it may be one lucky batch, and the level of the first few counts.
    """
    first = float(curve.values[0])
    if len(curve) >= 50 and curve.typical_noise < FAIR and np.mean(curve.values < first) < 0.03:
        return first
    return max(curve.start, first)


def _early_noise(curve: Curve) -> float:
    """Width of the noise in the first half, before most runs that end badly go wrong."""
    half = max(2, len(curve) // 2)
    rest = curve.u[:half] - curve.smooth[:half]
    return max(robust.upper_spread(rest), 0.005)


def _u_at(curve: Curve, value: float) -> float:
    """u of a value of the loss, by the nearest point that has it."""
    return float(curve.u[int(np.argmin(np.abs(curve.values - value)))])


def _value_at(curve: Curve, u: float) -> float:
    """The loss at a height u, by the nearest point that has it."""
    return float(curve.values[int(np.argmin(np.abs(curve.u - u)))])


@dataclass(frozen=True, slots=True)
class BlowUp:
    """A curve that left its first value upward at once, before it had learned anything."""

    peak: int
    start: float
    highest: float  # held for five points, or the last finite one
    back: int | None  # row from which it stayed below its start again


def blow_up_of(curve: Curve, *, factor: float = 1.5, within: float = 0.125) -> BlowUp | None:
    """Five points together above `factor` times the first value, in the first eighth of the run.

    Source: experiment E3 (61 % of the runs with a too high rate, 0 of 242 others).
    """
    count = len(curve)
    if count < 20 or not curve.positive or curve.values[0] == 0:  # nothing is a multiple of 0
        return None
    early = max(10, int(within * count))
    held = robust.running_median(curve.u[: early + 5], 5)[2:early]
    row = 2 + int(np.argmax(held))
    highest = float(np.median(curve.values[row - 2 : row + 3]))
    start = float(curve.values[0])
    rest = curve.u[early:] - curve.smooth[early:]
    noise = max(robust.upper_spread(rest), 0.005)
    if noise > FAIR or highest < factor * start or held.max() - curve.u[0] < 4.0 * noise:
        return None
    peak = row - 2 + int(np.argmax(curve.values[row - 2 : row + 3]))
    below = np.flatnonzero(robust.running_median(curve.u[peak:][:4000], 5) > curve.u[0])
    last_above = peak + int(below[-1]) if below.size else peak
    ended_low = curve.end < 0.9 * start
    return BlowUp(peak, start, highest, last_above + 1 if ended_low else None)
