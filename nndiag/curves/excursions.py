"""Rises of a curve above its own earlier level: when, how high, how sudden, how long.

A candidate is a point far above the best level held so far, on a scale that knows the upper tail
of the noise. One point alone counts only where the gradient norm jumps with it (a co-spike):
in the measurement behind this rule (experiment E3), height alone blamed 48 to 70 of 70 healthy
runs, height with a co-spike none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nndiag.curves import robust
from nndiag.curves.shape import Curve, Excursion

Array = np.ndarray


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What makes a rise an excursion. Origin: our experiments, refined on the labelled runs."""

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


STANDARD = Limits()
STEEP_POINTS = 50  # a rise over more is no sudden one, however long the run


def excursions(
    curve: Curve, gradient: Curve | None = None, limits: Limits = STANDARD
) -> tuple[Excursion, ...]:
    """All excursions of `curve`, in order. `gradient`: the gradient norm of the same run."""
    key = ("excursions", gradient, limits)  # several detectors ask for the same
    if key not in curve.memo:
        curve.memo[key] = _excursions(curve, gradient, limits)
    found: tuple[Excursion, ...] = curve.memo[key]
    return found


def _excursions(curve: Curve, gradient: Curve | None, limits: Limits) -> tuple[Excursion, ...]:
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
    enough = limits.held_score if len(curve) >= limits.few_points else limits.few_points_score
    alone = gradient is None or z is None
    lone_score = limits.lone_height_score if alone else limits.lone_score
    lone_rise = limits.lone_height if alone else limits.rise
    held_rows, lone_rows = [], []
    for part, wide, inside in robust.in_chunks(height.size, margin=2):
        held, noise = robust.median_of_three(height[wide])[inside], curve.noise[part]
        found = (held > enough * noise) & (held > limits.rise)
        lone = (height[part] > lone_score * noise) & (height[part] > lone_rise)
        held_rows.append(part.start + np.flatnonzero(found))
        lone_rows.append(part.start + np.flatnonzero(lone))
    tall = np.concatenate(lone_rows)
    if gradient is not None and z is not None:
        at = np.searchsorted(gradient.steps, curve.steps[tall])
        around = np.clip(at[:, None] + np.arange(-3, 3), 0, z.size - 1)
        tall = tall[z[around].max(axis=1, initial=-np.inf) > limits.gradient_score]
    return np.union1d(np.concatenate(held_rows), tall)


def _gradient_z(gradient: Curve | None) -> Array | None:
    """z of the log gradient norm around its running median; None where it is not known."""
    if gradient is None or len(gradient) < 10 or not np.any(gradient.values > 0):
        return None
    norms = np.log(np.maximum(gradient.values, np.min(gradient.values[gradient.values > 0])))
    stride = max(1, norms.size // 2000)
    width = min(51, max(5, norms.size // 10))
    usual = np.repeat(robust.running_median(norms[::stride], width), stride)[: norms.size]
    rest = norms - usual
    z: Array = rest / max(robust.upper_spread(rest), 0.02)
    return z


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
            row = begin + int(rows[0])  # most of the points ahead are calm; go to the first of them
            high = robust.median_of_three(height[row : row + width]) >= calm[row : row + width]
            return row + int(np.argmin(high))
    rest = height[-width:]
    rows = np.flatnonzero([np.median(rest[i:]) < calm[i - width] for i in range(1, rest.size)])
    late = height.size - width + 1 + int(rows[0]) if rows.size else None
    return late if late is not None and late >= peak else None


def _measured(curve: Curve, height: Array, first: int, last: int, limits: Limits) -> Excursion:
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
    low = np.maximum(calm, 0.25 * height[peak])  # a level that wanders is calm enough
    held = np.flatnonzero(height[: half + 1] < low[: half + 1])
    calm_row = int(held[-1]) if held.size else 0
    return Excursion(
        first=calm_row,
        peak=peak,
        last=end,
        recovered=back is not None,
        score=float(height[peak] / curve.noise[peak]),
        rise=float(height[peak]),
        onset=min(half - calm_row, _steepest(curve.u[calm_row : peak + 1], 0.5 * height[peak])),
        baseline=robust.middle(curve.values[max(0, calm_row - 20) : calm_row + 1]),
    )


def _steepest(u: Array, rise: float) -> int:
    """The fewest points within which `u` rises by `rise`."""
    for width in range(1, min(u.size, STEEP_POINTS)):
        if (u[width:] - u[:-width]).max() >= rise:
            return width
    return u.size


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


def is_sudden(curve: Curve, e: Excursion, onset_share: float = 0.01) -> bool:
    """After the opening, and at half its height within a hundredth of the points."""
    return e.first >= curve.opening and e.onset <= max(3, onset_share * len(curve))


def are_swings(
    curve: Curve, events: Sequence[Excursion], duty: float = 0.2, count: int = 4
) -> bool:
    """The events are the upper halves of a swing: often, and a good part of the time, up there.

    A spike is high for a moment, however long its tail; a swing is as long up as down.
    """
    if not events:
        return False
    half = 0.5 * max(e.rise for e in events)
    high = robust.median_of_three(curve.u - curve.baseline) > half
    return float(np.mean(high)) > duty and len(robust.stretches(high)) >= count
