"""What a run directory recorded and what its script reported, as series.

A row of the journal has every column, so a column holds more than was measured: NaN means "not
measured", and where NaN can be a measurement a companion column tells the two apart.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from nndiag.journal.format import COLUMNS
from nndiag.journal.reader import Stream
from nndiag.records import Series
from nndiag.vocabulary import canonical

Name = tuple[str, str, str]  # metric, where, owner
Column = npt.NDArray[np.float64]  # (T,)
Points = tuple[np.ndarray, np.ndarray]  # steps (T,), values (T,)

NAME_LENGTH = 200  # characters; longer names are not a person's
OF_LAYERS = (
    "activation_mean",
    "activation_variance",
    "activation_sample_variance",
    "activation_abs_max",
    "activation_zero_fraction",
    "activation_nonfinite",
    "dead_unit_fraction",
    "dead_unit_samples",
    "saturated_unit_fraction",
    "param_grad_norm",
    "param_norm",
    "param_update_norm",
)
COMPANIONS = (
    "backward_calls",
    "nndiag_time_s",
    "time_to_backward_s",
    "activation_count",
)  # no series of their own
KNOWN = frozenset({*COLUMNS, *OF_LAYERS}.difference(COMPANIONS))


def recorded_series(streams: Iterable[Stream], *, with_owner: bool) -> list[Series]:
    """The columns of all `streams`, with the rows that were measured.

    A column that several files hold, since their sets of columns changed, is one series.
    """
    parts: dict[Name, list[Points]] = {}
    for stream in streams:
        owner = stream.owner if with_owner else ""
        for (metric, where), points in _measurements(stream):
            parts.setdefault((metric, where, owner), []).append(points)
    return [
        _series(metric if metric in KNOWN else "other", where, owner, metric, points)
        for (metric, where, owner), points in parts.items()
    ]


class Columns:
    """The columns of some streams, each worked out when it is asked for.

    What `recorded_series` makes of a run in one go would be several times its size for many ranks.
    """

    def __init__(self, streams: Iterable[Stream], *, with_owner: bool) -> None:
        self._places: dict[Name, list[tuple[Stream, Mapping[tuple[str, str], np.ndarray]]]] = {}
        for stream in streams:
            by_column = np.ascontiguousarray(stream.values.T)  # (W, T), as wide as written
            columns = dict(zip(stream.columns, by_column, strict=True))
            for metric, where in columns:
                name = metric, where, stream.owner if with_owner else ""
                self._places.setdefault(name, []).append((stream, columns))

    def names(self) -> Iterable[Name]:
        return self._places.keys()

    def points(self, name: Name) -> Points:
        """The measurements of a column, by step; none where there is no such column."""
        metric, where, _ = name
        parts: list[Points] = [(np.empty(0, np.int64), np.empty(0))]
        for stream, columns in self._places.get(name, ()):
            values = columns[metric, where].astype(np.float64)
            is_measured = _is_measured(metric, where, values, columns)
            parts.append((stream.steps[is_measured], values[is_measured]))
        return _by_step(parts)


def series_of_points(name: Name, points: Points) -> Series:
    """The series of a recorded column."""
    metric, where, owner = name
    return _series(metric if metric in KNOWN else "other", where, owner, metric, [points])


def reported_series(
    events: Iterable[Mapping[str, Any]], recorded: Iterable[Series], *, with_owner: bool
) -> list[Series]:
    """The metrics that the script itself printed or logged.

    What was measured is better than what a script prints of it, which may be smoothed, rounded or
    summed: a printed loss is only the loss where none was measured.
    """
    measured = {series.metric for series in recorded if not series.where}
    found: dict[tuple[str, str], dict[int, float]] = {}
    for event in events:
        name, step, value = event.get("name"), event.get("step"), number(event.get("value"))
        if event.get("event") != "metric" or not isinstance(name, str) or value is None:
            continue
        if isinstance(step, int) and abs(step) < 2**63:
            owner = str(event.get("owner") or "") if with_owner else ""
            key = name[:NAME_LENGTH], owner
            found.setdefault(key, {})[step] = value  # reported again: the later one counts
    series = []
    for (name, owner), points in found.items():
        metric = canonical(name)
        steps, values = np.array(list(points), np.int64), np.array(list(points.values()))
        metric = "other" if metric in measured else metric
        series.append(_series(metric, "", owner, name, [(steps, values)]))
    return series


def number(value: object) -> float | None:
    """A number of an event; NaN and infinities come as strings. None: it is no number."""
    if isinstance(value, str):
        value = {"NaN": np.nan, "Infinity": np.inf, "-Infinity": -np.inf}.get(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer of 400 digits
        return None


def _measurements(stream: Stream) -> Iterable[tuple[tuple[str, str], Points]]:
    """Each column of a stream with its measured rows, where there are any."""
    by_column: Column = np.array(stream.values.T, dtype=np.float64, order="C")  # (W, T)
    columns = dict(zip(stream.columns, by_column, strict=True))
    for (metric, where), values in columns.items():
        if metric in COMPANIONS:
            continue
        is_measured = _is_measured(metric, where, values, columns)
        if is_measured.all():
            yield (metric, where), (stream.steps, values)
        elif is_measured.any():
            yield (metric, where), (stream.steps[is_measured], values[is_measured])


def _is_measured(
    metric: str, where: str, values: Column, columns: Mapping[tuple[str, str], Column]
) -> npt.NDArray[np.bool_]:
    """Which rows of a column are measurements: (T,)."""
    is_number = ~np.isnan(values)
    always = np.ones_like(is_number)
    calls = columns.get(("backward_calls", ""), np.zeros_like(values))
    if metric == "loss":
        return calls > 0
    if metric == "grad_norm":
        # NaN too where no parameter has a gradient: it counts beside numbers, not in their place.
        nan_counts = calls > 0 if is_number.any() else ~always
        return (values >= 0) | (~is_number & nan_counts)
    if metric == "param_grad_norm":  # -1 says something too, if the parameter was looked at
        return np.not_equal(columns.get(("param_norm", where), np.zeros_like(values)), -1)
    if metric in ("param_norm", "param_update_norm"):
        return np.not_equal(values, -1)
    if metric.startswith("activation_"):
        # The sample variance of a single sample is NaN, though nothing is wrong.
        count = columns.get(("activation_count", where))
        bad = columns.get(("activation_nonfinite", where))
        seen = always if count is None else count > 0
        nonfinite = always if bad is None else bad > 0
        return seen & (is_number | nonfinite)
    return is_number


def _series(metric: str, where: str, owner: str, name: str, parts: list[Points]) -> Series:
    steps, values = _by_step(parts)
    return Series(metric, steps, values, where, owner, "" if name == metric else name)


def _by_step(parts: list[Points]) -> Points:
    """The parts as one: by step, the last one where a step repeats."""
    steps = np.concatenate([steps for steps, _ in parts])
    values = np.concatenate([values for _, values in parts])
    if not (steps[1:] > steps[:-1]).all():  # not np.diff: it wraps at 2**63
        order = np.argsort(steps, kind="stable")
        steps, values = steps[order], values[order]
        is_last = np.append(steps[1:] > steps[:-1], True)
        steps, values = steps[is_last], values[is_last]
    return steps, values
