"""With which settings a run was made, as far as its log tells, and which of them differ.

Logs tell of the optimizers, the learning rate as it was used, clipping, the model's size and, for
watched runs, the environment. Configurations of trackers (wandb, MLflow) are not read: they may
hold secrets.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from nndiag.comparison.facts import SettingDifference
from nndiag.records import Run, Series

NONE = ""  # a run that does not record it
SAME = 1e-6  # of a value: two learning rates that close are the same float
COURSES = (("lr", "learning rate"), ("clip_threshold", "clip threshold"))


def different_settings(
    a: Sequence[Run], b: Sequence[Run]
) -> tuple[tuple[SettingDifference, ...], int]:
    """(those that differ, number of those that could be compared).

    A setting that only one side records is told too, unless the other tells nothing of its kind.
    """
    all_a, all_b = [settings_of(run) for run in a], [settings_of(run) for run in b]
    names = list(dict.fromkeys(name for one in (*all_a, *all_b) for name in one))
    found, compared = [], 0
    for name in names:
        in_a = tuple(dict.fromkeys(one.get(name, NONE) for one in all_a))
        in_b = tuple(dict.fromkeys(one.get(name, NONE) for one in all_b))
        if not _both_tell(name, all_a, all_b):
            continue
        compared += 1
        if set(in_a) != set(in_b):
            found.append(SettingDifference(name, in_a, in_b))
    for metric, name in COURSES:
        if (one := _course_difference(a, b, metric, name)) is not None and name not in [
            f.name for f in found
        ]:
            found.append(one)
    return tuple(found), compared


def settings_of(run: Run) -> dict[str, str]:
    """Every setting that the log tells, by name."""
    return dict(_settings(run))


def _both_tell(name: str, a: Sequence[dict[str, str]], b: Sequence[dict[str, str]]) -> bool:
    """Whether both sides tell of this kind of setting: a log without optimizers lacks no Adam."""
    kind = name.split(" ")[0]
    return all(any(key.split(" ")[0] == kind for one in side for key in one) for side in (a, b))


def _settings(run: Run) -> Iterator[tuple[str, str]]:
    several = len(run.optimizers) > 1
    for i, optimizer in enumerate(run.optimizers, start=1):
        # by number: a name has the kind in it, and the kind is what may differ
        prefix = f"optimizer {i}" if several else "optimizer"
        yield prefix, optimizer.kind
        has_course = any(run.series_of("lr"))
        for name, value in optimizer.settings:
            if name != "lr" or not has_course:
                yield f"{prefix} {name}", _number(value)
    for metric, name in COURSES:
        for series in run.series_of(metric):
            if len(series):
                yield f"{name}{_of(series.owner, run, metric)}", course(series)
    if run.parameters:
        sizes = [(math.prod(p.shape), p.requires_grad) for p in run.parameters]
        yield "parameters", str(sum(size for size, _ in sizes))
        yield "parameters trained", str(sum(size for size, is_trained in sizes if is_trained))
    if run.layers:
        models = dict.fromkeys(layer.model for layer in run.layers if layer.model)
        yield "model", ", ".join(models)
        yield "layers", str(len(run.layers))
        yield "layers by kind", _kinds(run)
    yield "log format", run.format
    for series in run.series_of("loss"):
        if len(series) > 1:
            yield f"loss read from{_of(series.owner, run, 'loss')}", series.label
            yield f"logging interval{_of(series.owner, run, 'loss')}", _interval(series)
    yield from run.environment


def _of(owner: str, run: Run, metric: str) -> str:
    return f" of {owner}" if owner and len(list(run.series_of(metric))) > 1 else ""


def _kinds(run: Run) -> str:
    counts: dict[str, int] = {}
    for layer in run.layers:
        counts[layer.kind] = counts.get(layer.kind, 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in counts.items())


def _interval(series: Series) -> str:
    steps = float(np.median(np.diff(series.steps.astype(np.float64))))
    return f"{steps:g}"


def course(series: Series) -> str:
    """A setting over time: `0.003`, or `0 -> 0.003 (step 100) -> 3e-05`."""
    values = series.values[np.isfinite(series.values)]
    steps = series.steps[np.isfinite(series.values)]
    if not values.size:
        return "not finite"
    first, last = float(values[0]), float(values[-1])
    if np.ptp(values) <= SAME * abs(first):
        return _number(first)
    top = int(np.argmax(values))
    parts = [_number(first)]
    if values[top] > max(first, last) * (1.0 + SAME):
        parts.append(f"{_number(float(values[top]))} (step {steps[top]})")
    return " -> ".join([*parts, _number(last)])


def _course_difference(
    a: Sequence[Run], b: Sequence[Run], metric: str, name: str
) -> SettingDifference | None:
    """Two courses with the same ends may differ between them: the first step where they do."""
    one, other = a[0].one(metric), b[0].one(metric)
    if one is None or other is None or not len(one) or not len(other):
        return None
    steps, in_a, in_b = np.intersect1d(
        one.steps, other.steps, assume_unique=True, return_indices=True
    )
    was, now = one.values[in_a], other.values[in_b]
    apart = np.flatnonzero(np.abs(now - was) > 1e-3 * np.maximum(np.abs(was), np.abs(now)))
    if not apart.size:
        return None
    i = int(apart[0])
    at = f"at step {steps[i]}"
    return SettingDifference(
        name, (f"{_number(float(was[i]))} {at}",), (f"{_number(float(now[i]))} {at}",)
    )


def _number(value: float) -> str:
    return f"{value:.6g}"
