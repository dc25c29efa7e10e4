"""Curves as SVG: beside each finding, on paper, and where no script runs.

A sketch holds numbers and short texts only; the template draws it. No colour: a class says what
a line is, the style of the page how it looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nndiag.records import Series
from nndiag.reports import wording
from nndiag.reports.html.courses import Axis, is_logarithmic
from nndiag.reports.html.marks import Mark
from nndiag.thinning import at, offsets, thinned

_MOST = 1e300  # beyond it a value is as good as infinite, and a range could not be computed


@dataclass(frozen=True, slots=True)
class Paper:
    """Size of a drawing in its own units, and the room for its labels."""

    width: int
    height: int
    left: int = 44
    bottom: int = 16
    top: int = 6

    @property
    def plot_width(self) -> int:
        return self.width - self.left

    @property
    def plot_height(self) -> int:
        return self.height - self.bottom - self.top


SMALL = Paper(340, 112)
WIDE = Paper(1000, 230, left=60, bottom=20)
FLAT = Paper(1000, 110, left=60, bottom=20)


@dataclass(frozen=True, slots=True)
class Band:
    """A step range that is set off."""

    x: float
    width: float
    severity: str
    label: str
    is_short: bool  # a long one would only tint everything


@dataclass(frozen=True, slots=True)
class Stroke:
    """One line of a sketch."""

    path: str  # of an SVG `d`
    number: int  # which colour of lines
    label: str
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class Label:
    """A number at an axis."""

    x: float
    y: float
    text: str
    anchor: str = "end"


@dataclass(frozen=True, slots=True)
class Sketch:
    """A drawing: what it shows in words, its lines, its bands, what is not finite."""

    title: str
    paper: Paper
    strokes: tuple[Stroke, ...]
    bands: tuple[Band, ...]
    broken: tuple[tuple[float, float], ...]  # points of marks for NaN and infinity
    labels: tuple[Label, ...]


@dataclass(frozen=True, slots=True)
class Drawn:
    """A series to be drawn, with its name."""

    label: str
    series: Series
    dashed: bool = False


@dataclass(frozen=True, slots=True)
class _Scales:
    """Step and value to a place on paper."""

    paper: Paper
    origin: int
    low_x: float
    high_x: float
    low_y: float
    high_y: float
    logarithmic: bool

    def x(self, steps: np.ndarray) -> np.ndarray:
        span = max(self.high_x - self.low_x, 1e-9)
        share = (offsets(steps, self.origin) - self.low_x) / span
        place: np.ndarray = self.paper.left + share * self.paper.plot_width
        return place

    def y(self, values: np.ndarray) -> np.ndarray:
        told: np.ndarray = np.log10(values) if self.logarithmic else values
        scaled = told / 2 - self.low_y / 2  # halves: the range of two large values may overflow
        span = self.high_y / 2 - self.low_y / 2
        share = scaled / span if span > 0 else np.full(values.shape, 0.5)
        place: np.ndarray = self.paper.top + (1 - share) * self.paper.plot_height
        return place


def sketch(
    lines: Sequence[Drawn],
    axis: Axis,
    marks: Sequence[Mark] = (),
    *,
    paper: Paper = SMALL,
    window: tuple[int, int] | None = None,
    title: str = "",
) -> Sketch | None:
    """The lines between the steps of `window`, by default all; None where nothing is finite."""
    first, last = window or (axis.first, axis.last)
    buckets = paper.width // 3
    cut = [
        Drawn(o.label, thinned(_between(o.series, first, last), buckets), o.dashed) for o in lines
    ]
    values = [_drawable(one.series.values) for one in cut]
    filled = [one for one in values if one.size]
    if not filled:
        return None
    logarithmic = is_logarithmic([at(o.series, np.abs(o.series.values) < _MOST) for o in cut])
    lowest, highest = min(v.min() for v in filled), max(v.max() for v in filled)
    low, high = (np.log10(lowest), np.log10(highest)) if logarithmic else (lowest, highest)
    ends = axis.place(first), axis.place(last)
    scales = _Scales(paper, axis.origin, *ends, float(low), float(high), logarithmic)
    return Sketch(
        title=title,
        paper=paper,
        strokes=tuple(_stroke(one, i, scales) for i, one in enumerate(cut)),
        bands=tuple(_band(mark, scales, axis) for mark in marks if mark.overlaps(first, last)),
        broken=tuple(point for one in cut for point in _broken(one.series, scales))[:80],
        labels=_labels(scales, lowest, highest, (first, last)),
    )


def window_around(mark: Mark, axis: Axis) -> tuple[int, int]:
    """The steps to show of a run so that a short event is seen with what came before and after."""
    start, end = mark.within(axis)
    margin = max(int(1.5 * (end - start)), (axis.last - axis.first) // 12, 1)
    return max(axis.first, start - margin), min(axis.last, end + margin)


def _between(series: Series, first: int, last: int) -> Series:
    start = int(np.searchsorted(series.steps, first, side="left"))
    end = int(np.searchsorted(series.steps, last, side="right"))
    return at(series, np.arange(start, max(start, end)))


def _drawable(values: np.ndarray) -> np.ndarray:
    kept: np.ndarray = values[np.abs(values) < _MOST]  # NaN is not
    return kept


def _stroke(one: Drawn, number: int, scales: _Scales) -> Stroke:
    """Line for line between values that are finite; a lone point is a dot."""
    good = np.abs(one.series.values) < _MOST
    with np.errstate(all="ignore"):
        xs = scales.x(one.series.steps)
        ys = scales.y(np.where(good, one.series.values, np.nan))
    parts = []
    starts = True
    for x, y, fits in zip(xs.tolist(), ys.tolist(), good.tolist(), strict=True):
        if fits:
            parts.append(f"{'M' if starts else 'L'}{x:.1f} {y:.1f}")
        starts = not fits
    path = "".join(parts)
    return Stroke(_dotted(path), number, wording.clean(one.label), one.dashed)


def _dotted(path: str) -> str:
    """A `M` that no `L` follows draws nothing; with `h0` and a round cap it is a dot."""
    pieces = path.split("M")[1:]
    return "".join(f"M{piece}" + ("" if "L" in piece else "h0") for piece in pieces)


def _band(mark: Mark, scales: _Scales, axis: Axis) -> Band:
    start, end = (
        float(np.clip(x, scales.paper.left, scales.paper.width))
        for x in scales.x(np.array(mark.within(axis), dtype=np.int64))
    )
    width = max(end - start, 2.0)
    left = min(start, scales.paper.width - width)
    is_short = width < 0.7 * scales.paper.plot_width
    return Band(round(left, 1), round(width, 1), mark.severity, mark.label, is_short)


def _broken(series: Series, scales: _Scales) -> list[tuple[float, float]]:
    """Where marks of NaN and infinity stand: at the top of the drawing."""
    bad = series.steps[~np.isfinite(series.values)]
    return [(round(x, 1), float(scales.paper.top)) for x in scales.x(bad).tolist()]


def _labels(
    scales: _Scales, lowest: float, highest: float, ends: tuple[int, int]
) -> tuple[Label, ...]:
    paper = scales.paper
    base = paper.height - paper.bottom
    values = [(paper.top + 8, highest)] + ([(base, lowest)] if highest > lowest else [])
    told = [Label(paper.left - 6, y, wording.number(float(f"{v:.3g}"))) for y, v in values]
    step_row = paper.height - 3
    told.append(Label(paper.left, step_row, str(ends[0]), "start"))
    if ends[1] > ends[0]:
        told.append(Label(paper.width, step_row, f"step {ends[1]}"))
    return tuple(told)
