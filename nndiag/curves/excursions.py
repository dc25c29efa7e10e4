"""Rises of a curve above its own earlier level: when, how high, how sudden, and whether it came back.

A candidate is a point far above the best level held so far, on a scale that knows the upper tail
of the noise. One point alone counts only where the gradient norm jumps with it (a co-spike):
in the measurement behind this rule (research E3), height alone blamed 48 to 70 of 70 healthy
runs, height with a co-spike none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np

from nndiag.curves import robust
from nndiag.curves.shape import Curve, Excursion

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What makes a rise an excursion. Origin: research section 2, refined on the labelled runs."""

    lone_score: float = 5.0  # noise widths; enough where the gradient norm jumps too
    gradient_score: float = 4.0  # noise widths of the log gradient norm
    held_score: float = 6.0  # noise widths; two of three points, without a co-spike
    few_points_score: float = 8.0  # the same where fewer than `few_points` measure the noise
    few_points: int = 150
    lone_height_score: float = 20.0  # noise widths; one point, where no gradient norm was logged
    lone_height: float = 0.69  # in u, a doubling
    rise: float = 0.2  # in u, 22 %
    back_share: float = 0.15  # of the rise; closer than that to the old level counts as back
    back_most: float = 0.25  # in u; and never farther from it than that
    merge: int = 20  # points; nearer excursions are one


FAIR = 0.3  # noise in u up to which one batch tells the level of the untrained model
STANDARD = Limits()


@lru_cache(maxsize=16)  # several detectors ask for the same curve, by identity
def excursions(
    curve: Curve, gradient: Curve | None = None, limits: Limits = STANDARD
) -> tuple[Excursion, ...]:
    """All excursions of `curve`, in order. `gradient`: the gradient norm of the same run."""
    if len(curve) < 10:
        return ()
    height = curve.u - curve.baseline
    z = _gradient_z(gradient)
    seeds = _seeds(curve, height, gradient, z, limits)
    found: list[Excursion] = []
    for first, last in stretches_of(seeds, limits.merge):
        if not found or first > found[-1].last:
            found.append(_measured(curve, height, first, last, limits))
    return tuple(_with_gradient(e, curve, gradient, z) for e in _merged(found, limits.merge))


def stretches_of(rows: Array, merge: int) -> Iterator[tuple[int, int]]:
    """Rows grouped into (first, last) where neighbours lie at most `merge` apart."""
    if not rows.size:
        return
    for group in np.split(rows, np.flatnonzero(np.diff(rows) > merge) + 1):
        yield int(group[0]), int(group[-1])


def _seeds(
    curve: Curve, height: Array, gradient: Curve | None, z: Array | None, limits: Limits
) -> Array:
    """Rows that are too high to be noise."""
    held = robust.median_of_three(height)
    enough = limits.held_score if len(curve) >= limits.few_points else limits.few_points_score
    found = (held > enough * curve.noise) & (held > limits.rise)
    if gradient is None or z is None:
        found |= (height > limits.lone_height_score * curve.noise) & (height > limits.lone_height)
        return np.flatnonzero(found)
    tall = np.flatnonzero((height > limits.lone_score * curve.noise) & (height > limits.rise))
    at = np.searchsorted(gradient.steps, curve.steps[tall])
    around = np.clip(at[:, None] + np.arange(-3, 3), 0, z.size - 1)
    found[tall[z[around].max(axis=1, initial=-np.inf) > limits.gradient_score]] = True
    return np.flatnonzero(found)


def _gradient_z(gradient: Curve | None) -> Array | None:
    """z of the log gradient norm around its running median; None where it is not known."""
    if gradient is None or len(gradient) < 10 or not np.any(gradient.values > 0):
        return None
    norms = np.log(np.maximum(gradient.values, np.min(gradient.values[gradient.values > 0])))
    stride = max(1, norms.size // 2000)
    width = min(51, max(5, norms.size // 10))
    usual = np.repeat(robust.running_median(norms[::stride], width), stride)[: norms.size]
    rest = norms - usual
    return rest / max(robust.upper_spread(rest), 0.02)


def _with_gradient(
    e: Excursion, curve: Curve, gradient: Curve | None, z: Array | None
) -> Excursion:
    """The excursion with the largest z of the gradient norm from 3 steps before it to 2 after."""
    if gradient is None or z is None:
        return e
    low, high = gradient.row_of(curve.steps[e.first]), gradient.row_of(curve.steps[e.peak])
    around = z[max(0, low - 2) : high + 3]
    return replace(e, together=float(around.max()) if around.size else float("nan"))


def _back(height: Array, calm: Array, peak: int) -> int | None:
    """The first row from `peak` on from which the next few points together are calm again."""
    width = min(20, max(3, height.size // 50))
    for begin in range(peak, height.size - width + 1, 5000):
        ahead = height[begin : begin + 5000 + width - 1]
        together = np.median(np.lib.stride_tricks.sliding_window_view(ahead, width), axis=1)
        rows = np.flatnonzero(together < calm[begin : begin + together.size])
        if rows.size:
            return begin + int(rows[0])
    rest = height[-width:]
    rows = np.flatnonzero([np.median(rest[i:]) < calm[i - width] for i in range(1, rest.size)])
    late = height.size - width + 1 + int(rows[0]) if rows.size else None
    return late if late is not None and late >= peak else None


def _measured(
    curve: Curve, height: Array, first: int, last: int, limits: Limits
) -> Excursion:
    peak = first + int(np.argmax(height[first : last + 1]))
    for _ in range(2):  # the second time with the highest point before it came back
        share = min(limits.back_most, limits.back_share * float(height[peak]))
        calm = np.maximum(1.5 * curve.noise, share)
        back = _back(height, calm, peak)
        end = len(curve) - 1 if back is None else back
        peak = first + int(np.argmax(height[first : end + 1]))
    before = np.flatnonzero(height[:peak] < calm[:peak])
    start = int(before[-1]) if before.size else 0
    half = start + int(np.argmax(height[start : peak + 1] >= 0.5 * height[peak]))
    held = np.flatnonzero(height[: half + 1] < calm[: half + 1])
    calm_row = int(held[-1]) if held.size else 0
    return Excursion(
        first=calm_row,
        peak=peak,
        last=end,
        recovered=back is not None,
        score=float(height[peak] / curve.noise[peak]),
        rise=float(height[peak]),
        onset=half - calm_row,
        baseline=robust.middle(curve.values[max(0, calm_row - 20) : calm_row + 1]),
    )


def _merged(found: list[Excursion], merge: int) -> Iterator[Excursion]:
    """Neighbours joined: the higher peak, the first beginning, the last end."""
    kept: Excursion | None = None
    for one in found:
        if kept is None or one.first - kept.last > merge:
            if kept is not None:
                yield kept
            kept = one
            continue
        high = one if one.rise > kept.rise else kept
        kept = replace(
            high,
            first=kept.first,
            last=max(one.last, kept.last),
            recovered=one.recovered,
            baseline=kept.baseline,
        )
    if kept is not None:
        yield kept


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


def is_sudden(curve: Curve, e: Excursion, onset_share: float = 0.01) -> bool:
    """After the opening, and at half its height within a hundredth of the points."""
    return e.first >= curve.opening and e.onset <= max(3, onset_share * len(curve))


def are_swings(curve: Curve, events: Sequence[Excursion], duty: float = 0.2, count: int = 4) -> bool:
    """The events are the upper halves of a swing: often, and a good part of the time, up there.

    A spike is high for a moment, however long its tail; a swing is as long up as down.
    """
    if not events:
        return False
    half = 0.5 * max(e.rise for e in events)
    high = robust.median_of_three(curve.u - curve.baseline) > half
    return float(np.mean(high)) > duty and len(robust.stretches(high)) >= count


def divergence_of(curve: Curve, gradient: Curve | None, *, factor: float = 3.0) -> Climb | None:
    """A climb by `factor`, or above the start; or a slow one by a third that nothing sudden began.

    What jumps by less than `factor` and stays is an unrecovered spike.
    """
    climb = climb_of(curve, factor=min(factor, 1.35))
    if climb is None or climb.rise > np.log(factor) or climb.over_start or climb.into_nonfinite:
        return climb
    jumps = any(not e.recovered and is_sudden(curve, e) for e in excursions(curve, gradient))
    return None if jumps else climb


def climb_of(curve: Curve, *, factor: float = 3.0, over_start: float = 1.05) -> Climb | None:
    """A rise that is there at the end: `factor` times the best, `over_start` times the start.

    The way back must be worth mentioning (a quarter of what had been gained), and beyond what the
    noise of the first half makes of the same number of points. A run that ends in NaN counts with
    its last finite point.
    """
    count = len(curve)
    if count < 3:
        return None
    dies = not bool(curve.finite[int(np.flatnonzero(curve.finite)[-1]) :].all())
    newest = 1 if dies else max(3, count // 20)
    end_u = robust.middle(curve.u[-newest:])
    end = robust.middle(curve.values[-newest:])
    calm_rows = max(1, int(0.95 * count)) if count >= 20 else max(1, count - newest)
    lowest = int(np.argmin(curve.baseline)) if count >= 20 else int(np.argmin(curve.u[:calm_rows]))
    best_u = float(curve.baseline[lowest]) if count >= 20 else float(curve.u[lowest])
    best = _value_at(curve, best_u)
    noise = _early_noise(curve) / np.sqrt(min(newest, 20))
    start = _start_of(curve)
    above_start = end_u - _u_at(curve, start)
    rise = max(end_u - best_u, above_start)
    best = min(best, start)
    real = rise > 4.0 * noise and end > best
    worse_than_best = end_u - best_u > np.log(factor) and end - best > 0.25 * max(0.0, start - best)
    worse_than_start = above_start > max(np.log(over_start), 4.0 * noise)
    ends_rising = dies and rise > np.log(1.5) and rise > 6.0 * noise and end_u >= curve.u[-3:].max()
    if not (real and (worse_than_best or worse_than_start or ends_rising)):
        return None
    calm = np.flatnonzero(curve.smooth - best_u < max(1.5 * _early_noise(curve), 0.15 * rise))
    first = int(calm[-1]) if calm.size and worse_than_best else lowest if ends_rising else 0
    first = min(first, count - 1)
    peak = first + int(np.argmax(curve.values[first:]))
    if not dies and first > 0.9 * count and curve.u[peak] - end_u > 1.0:
        return None  # a spike near the end, already on its way back
    return Climb(first, peak, best, end, float(rise), float(above_start), bool(worse_than_start), dies)


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
    rest = (curve.u - curve.smooth)[:half]
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

    Source: research E3 (61 % of the runs with a too high rate, 0 of 242 others).
    """
    count = len(curve)
    if count < 20 or not curve.positive:
        return None
    early = max(10, int(within * count))
    held = robust.running_median(curve.u[: early + 5], 5)[2:early]
    row = 2 + int(np.argmax(held))
    highest = float(np.median(curve.values[row - 2 : row + 3]))
    start = float(curve.values[0])
    rest = (curve.u - curve.smooth)[early:]
    noise = max(robust.upper_spread(rest), 0.005)
    if noise > FAIR or highest < factor * start or held.max() - curve.u[0] < 4.0 * noise:
        return None
    peak = row - 2 + int(np.argmax(curve.values[row - 2 : row + 3]))
    below = np.flatnonzero(robust.running_median(curve.u[peak:][:4000], 5) > curve.u[0])
    last_above = peak + int(below[-1]) if below.size else peak
    ended_low = curve.end < 0.9 * start
    return BlowUp(peak, start, highest, last_above + 1 if ended_low else None)
