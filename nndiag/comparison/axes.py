"""On which axis the curves of runs can be laid over each other.

By step, as the logs count them; by seconds, where step times are recorded; by progress, the share
of each run's own way. Steps of one log and epochs of another are never taken for the same.

Shapes: T points of a series.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nndiag.records import Run, Series

Array = np.ndarray

ALIGN = ("step", "time", "progress")
UNITS = {"time": "s", "progress": "share"}
LEAST_SHARE = 0.02  # of the longer run that must be common, or the steps may not be the same thing
# What readers say of an axis that is no count of optimizer steps, see readers/tables/axis.py.
_EPOCHS = "one point per epoch: steps are"
_ROWS = "no column counts steps"


@dataclass(frozen=True, slots=True)
class Course:
    """The finite points of a series on the axis of the comparison."""

    x_T: Array  # float64, increasing
    y_T: Array
    broken_from: float | None = None  # from there to its end nothing is finite


def step_unit(run: Run) -> str:
    """What the steps of a run count: "step", "epoch", or "row" where the log does not say."""
    if any(note.startswith(_EPOCHS) for note in run.notes) or run.format.startswith("keras"):
        return "epoch"
    return "row" if any(note.startswith(_ROWS) for note in run.notes) else "step"


class Axis:
    """The way from a run's steps to the places on the axis."""

    def __init__(self, run: Run, align: str) -> None:
        self.run, self.align = run, align
        self._clock = clock(run)
        ends = [(s.steps[0], s.steps[-1]) for s in run.series if len(s) and not s.where]
        self._first = float(min((first for first, _ in ends), default=0))
        self._last = float(max((last for _, last in ends), default=1))

    def places(self, steps_T: Array) -> Array:
        """(T,) steps -> (T,) places."""
        steps_T = np.asarray(steps_T, dtype=np.float64)
        if self.align == "progress":
            return (steps_T - self._first) / max(1.0, self._last - self._first)
        if self.align == "time":
            known, seconds = self._clock if self._clock is not None else (steps_T, steps_T)
            return np.asarray(np.interp(steps_T, known, seconds))
        return steps_T

    def seconds(self, place: float) -> float | None:
        """Seconds from the start to a place; None where no step times are recorded."""
        if self._clock is None or self.align != "step":
            return place if self.align == "time" else None
        known, seconds = self._clock
        return float(np.interp(place, known, seconds))

    def course(self, series: Series) -> Course:
        finite = np.isfinite(series.values) & (np.abs(series.values) < 1e300)
        x_T = self.places(series.steps)
        broken = None
        if not finite.all() and not finite[-1]:
            last = int(np.flatnonzero(finite)[-1]) if finite.any() else -1
            broken = float(x_T[last + 1])
        x_T, y_T = x_T[finite], series.values[finite]
        if x_T.size > 1:
            kept = np.append(True, np.diff(x_T) > 0)
            x_T, y_T = x_T[kept], y_T[kept]
        return Course(x_T, y_T, broken)


def clock(run: Run) -> tuple[Array, Array] | None:
    """(steps, seconds since the first): step times added up, a median where one is missing."""
    series = run.one("step_time_s")
    if series is None:
        return None
    fine = np.isfinite(series.values) & (series.values >= 0)
    if fine.sum() < 2:
        return None
    steps, times = series.steps[fine].astype(np.float64), series.values[fine]
    missing = np.diff(steps) - 1.0
    return steps, np.append(0.0, np.cumsum(times[1:] + missing * float(np.median(times))))


def why_not(runs: Sequence[Run], align: str) -> str:
    """Why these runs have no common axis; "" where they have one."""
    if align == "time":
        lacking = [run.path for run in runs if clock(run) is None]
        return f"no step times are recorded in {lacking[0]}" if lacking else ""
    if align == "progress":
        return ""
    units = {step_unit(run) for run in runs}
    if len(units) > 1:
        words = {"row": "values counted from 0", "epoch": "epochs", "step": "steps"}
        said = " and ".join(words[unit] for unit in sorted(units))
        return f"their axes differ, {said}: they cannot be aligned"
    spans = [_span(run) for run in runs]
    start, end = max(a for a, _ in spans), min(b for _, b in spans)
    if end <= start:
        return "they have no steps in common"
    longest = max(b - a for a, b in spans)
    if end - start < LEAST_SHARE * longest:
        return (
            f"only {100 * (end - start) / longest:.2g} % of the longer run is common: "
            "the steps may not count the same"
        )
    return ""


def _span(run: Run) -> tuple[float, float]:
    """First and last step of the loss, else of the longest series."""
    series = [s for s in run.series_of("loss") if len(s)]
    series = series or [s for s in run.series if len(s) and not s.where]
    if not series:
        return 0.0, 0.0
    return float(min(s.steps[0] for s in series)), float(max(s.steps[-1] for s in series))
