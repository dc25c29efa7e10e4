"""Layers of the same name: gradients, activations and updates, phase by phase.

Each measure of a layer is compared in the first, the middle and the last third of the common
steps, on a logarithmic scale but for shares, with the band of its own noise. The chance of a false
alarm is shared by all layers, measures and phases.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import numpy as np

from nndiag.comparison.axes import Axis, Course
from nndiag.comparison.facts import (
    CONFIDENCE,
    Difference,
    LayerDifference,
    Layers,
    Outcome,
)
from nndiag.comparison.levels import Window, difference, part
from nndiag.curves.long_run import FEWEST
from nndiag.records import Layer, Run, Series

PHASES = ("start", "middle", "end")
MEASURES = {  # of a layer's own series: what it is called, and whether ratios compare it
    "activation_variance": ("activation variance", True),
    "dead_unit_fraction": ("dead units", False),
    "saturated_unit_fraction": ("saturated units", False),
}
GRADIENT, UPDATE = "gradient norm", "update ratio"
SHARES = ("dead units", "saturated units")

Key = tuple[str, str]  # layer, measure


def compare_layers(a: Sequence[Axis], b: Sequence[Axis]) -> Layers:
    """What differs in the layers of two sides; nothing where a side was not watched."""
    runs_a, runs_b = [axis.run for axis in a], [axis.run for axis in b]
    if not (runs_a[0].layers and runs_b[0].layers):
        return Layers()
    renamed, added, removed = _names(runs_a[0], runs_b[0])
    courses_a, courses_b = [_courses(axis) for axis in a], [_courses(axis) for axis in b]
    keys = [key for key in courses_a[0] if all(key in c for c in courses_a[1:] + courses_b)]
    alpha = (1.0 - CONFIDENCE) / max(1, len(keys) * len(PHASES))
    different = []
    for key in keys:
        found = _most_different([c[key] for c in courses_a], [c[key] for c in courses_b], alpha)
        if found is not None:
            phase, one = found
            is_ratio = key[1] not in SHARES
            levels = (np.exp(one.a), np.exp(one.b)) if is_ratio else (one.a, one.b)
            told = replace(one, a=float(levels[0]), b=float(levels[1]))
            different.append(LayerDifference(*key, is_ratio, phase, told))
    different.sort(key=lambda one: -_beyond(one.difference))
    return Layers(len(keys), tuple(different), renamed, added, removed)


def _beyond(one: Difference) -> float:
    return abs(one.value) / one.band if one.band > 0 else np.inf


def _most_different(
    a: Sequence[Course], b: Sequence[Course], alpha: float
) -> tuple[str, Difference] | None:
    """The phase in which a measure differs farthest beyond its noise; None where in none."""
    both = [*a, *b]
    if not all(course.x_T.size for course in both):
        return None
    start = max(float(course.x_T[0]) for course in both)
    end = min(float(course.x_T[-1]) for course in both)
    edges = np.linspace(start, end, len(PHASES) + 1)
    best: tuple[str, Difference] | None = None
    for phase, low, high in zip(PHASES, edges[:-1].tolist(), edges[1:].tolist(), strict=True):
        if min(part(course, low, high)[0].size for course in both) < FEWEST:
            continue
        one = difference(a, b, Window(low, high, low, high), alpha)
        if one.outcome not in (Outcome.LOWER, Outcome.HIGHER):
            continue
        if best is None or _beyond(one) > _beyond(best[1]):
            best = phase, one
    return best


def _courses(axis: Axis) -> dict[Key, Course]:
    """The measures of every layer, as logarithms where ratios compare them."""
    run = axis.run
    found: dict[Key, Course] = {}
    by_place: dict[tuple[str, str], Series] = {
        (s.metric, s.where): s for s in run.series if s.where
    }
    for layer in run.layers:
        for metric, (measure, is_ratio) in MEASURES.items():
            series = by_place.get((metric, layer.name))
            if series is not None:
                found[layer.name, measure] = _scaled(axis.course(series), is_ratio)
        norms = [
            _together(by_place, metric, layer.parameters)
            for metric in ("param_grad_norm", "param_update_norm", "param_norm")
        ]
        gradient, update, size = norms
        if gradient is not None:
            found[layer.name, GRADIENT] = _scaled(axis.course(gradient), True)
        if update is not None and size is not None:
            ratio = _by_step(update, size, lambda u, p: u / np.where(p > 0, p, np.nan))
            found[layer.name, UPDATE] = _scaled(axis.course(ratio), True)
    return found


def _together(
    by_place: dict[tuple[str, str], Series], metric: str, names: Sequence[str]
) -> Series | None:
    """The norm of a layer's parameters together, where all of them were measured."""
    parts = [by_place[metric, name] for name in names if (metric, name) in by_place]
    if not parts:
        return None
    total = replace(parts[0], values=np.where(parts[0].values < 0, np.nan, parts[0].values))
    for other in parts[1:]:
        total = _by_step(total, other, lambda x, y: np.hypot(x, np.where(y < 0, np.nan, y)))
    return total


def _by_step(a: Series, b: Series, how: Callable[..., np.ndarray]) -> Series:
    """Two series put together at the steps that both have."""
    steps, in_a, in_b = np.intersect1d(a.steps, b.steps, assume_unique=True, return_indices=True)
    with np.errstate(all="ignore"):
        return Series(a.metric, steps, how(a.values[in_a], b.values[in_b]), a.where, a.owner)


def _scaled(course: Course, is_ratio: bool) -> Course:
    if not is_ratio:
        return course
    positive = course.y_T > 0
    return Course(course.x_T[positive], np.log(course.y_T[positive]))


def _names(a: Run, b: Run) -> tuple[tuple[tuple[str, str], ...], tuple[str, ...], tuple[str, ...]]:
    """(renamed, added, removed): a layer that went and one that came, alike in all but the name,
    are one that was renamed."""
    known_a, known_b = {one.name for one in a.layers}, {one.name for one in b.layers}
    gone = [one for one in a.layers if one.name not in known_b]
    come = [one for one in b.layers if one.name not in known_a]
    renamed = []
    for layer in list(gone):
        shape = _shape(a, layer)
        twin = next((one for one in come if _shape(b, one) == shape), None)
        if twin is not None:
            renamed.append((layer.name, twin.name))
            gone.remove(layer)
            come.remove(twin)
    return tuple(renamed), tuple(_of(come)), tuple(_of(gone))


def _of(layers: Sequence[Layer]) -> Iterator[str]:
    return (layer.name for layer in layers)


def _shape(run: Run, layer: Layer) -> tuple[object, ...]:
    """Kind, place in the forward pass, and the shapes of its parameters."""
    shapes = {parameter.name: parameter.shape for parameter in run.parameters}
    own = tuple(sorted(shapes.get(name, ()) for name in layer.parameters))
    return layer.kind, layer.order, own
