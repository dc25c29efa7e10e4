"""Series of the whole run as tracks that lie under one another on one step axis."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nndiag.records import Run, Series
from nndiag.reports import wording
from nndiag.reports.curve import LOG_FROM
from nndiag.reports.html.packing import packed
from nndiag.thinning import offsets, thinned, without_repeats

EXACT_STEPS = 2**53  # beyond it a browser's numbers are no longer whole
OTHERS_SHOWN = 16  # series without a meaning to us
LINES_SHOWN = 12  # in one track
LOSS_BUCKETS = 2048  # each has up to three points: enough to zoom into a fiftieth of a long run
_BUCKETS = 640

# key, title, metrics, whether it is drawn unasked
KINDS = (
    ("loss", "Loss", ("loss", "val_loss"), True),
    ("lr", "Learning rate", ("lr",), True),
    ("grad_norm", "Gradient norm", ("grad_norm", "clip_threshold"), True),
    ("accuracy", "Accuracy", ("accuracy", "val_accuracy"), False),
    ("update_ratio", "Update / weight", ("update_ratio",), False),
    ("cosine", "Update \u00b7 gradient", ("update_gradient_cosine",), False),
    ("loss_scale", "Loss scale", ("loss_scale",), False),
    ("step_time", "Step time, s", ("step_time_s",), False),
)
_DASHED = ("clip_threshold",)
_SHORT = {"val_loss": "val", "loss": "train", "val_accuracy": "val", "accuracy": "train"}


@dataclass(frozen=True, slots=True)
class Axis:
    """The steps that all tracks and heat maps of a run share."""

    origin: int  # what the numbers on the page are relative to: 0 unless steps are huge
    first: int
    last: int

    def place(self, step: int) -> float:
        """A step as the page counts it, not outside of the axis."""
        return float(min(max(step, self.first), self.last) - self.origin)


@dataclass(frozen=True, slots=True)
class Line:
    """One series of a track."""

    label: str
    series: Series  # thinned; `recorded` counts the points of the log
    dashed: bool = False
    thinned: bool = False  # points were left out that are not on the line between their neighbours


@dataclass(frozen=True, slots=True)
class Track:
    """Series with one value axis."""

    key: str
    title: str
    lines: tuple[Line, ...]
    logarithmic: bool  # unless a reader chooses otherwise
    shown: bool
    note: str = ""

    @property
    def is_thinned(self) -> bool:
        return any(line.thinned for line in self.lines)


def axis(run: Run) -> Axis | None:
    """From the first to the last step of any series; None where no series has a point."""
    filled = [series for series in run.series if len(series)]
    if not filled:
        return None
    first = min(int(series.steps[0]) for series in filled)
    last = max(int(series.steps[-1]) for series in filled)
    is_exact = max(abs(first), abs(last)) < EXACT_STEPS and first >= 0
    return Axis(0 if is_exact else first, first, last)


def tracks(run: Run, share: float = 1.0) -> tuple[Track, ...]:
    """Every series of the whole run that has a point, known kinds first; `share` of the buckets."""
    found = [_track(run, key, title, metrics, shown, share) for key, title, metrics, shown in KINDS]
    others = [s for s in run.series_of("other") if not s.where and len(s)]
    found += [
        Track(f"other-{i}", _other(s), (_line(s, _BUCKETS * share),), is_logarithmic([s]), False)
        for i, s in enumerate(others[:OTHERS_SHOWN])
    ]
    return tuple(track for track in found if track.lines)


def _other(series: Series) -> str:
    """The title of a series that means nothing to us, told from ours even where names are equal."""
    known = {name for _, title, metrics, _ in KINDS for name in (title.lower(), *metrics)}
    return f"{label(series)}, as logged" if series.label.lower() in known else label(series)


def _track(
    run: Run, key: str, title: str, metrics: Sequence[str], shown: bool, share: float
) -> Track:
    series = [s for m in metrics for s in run.series_of(m) if not s.where and len(s)]
    buckets = share * (LOSS_BUCKETS if key == "loss" else _BUCKETS)
    note = clipped(run) if key == "grad_norm" else ""
    if (rest := len(series) - LINES_SHOWN) > 0:
        note = f"{note}; {rest} more series not drawn".lstrip("; ")
    lines = tuple(_line(s, buckets) for s in series[:LINES_SHOWN])
    return Track(key, title, lines, is_logarithmic(series), shown, note)


def label(series: Series) -> str:
    """What a line is called beside others of its track."""
    name = _SHORT.get(series.metric, series.metric.replace("_", " "))
    own = series.label if series.metric == "other" else name
    return f"{own}, {series.owner}" if series.owner else own


def _line(series: Series, buckets: float) -> Line:
    fewer = thinned(series, max(32, int(buckets)))
    left_out = len(fewer) < fewer.recorded
    return Line(label(series), without_repeats(fewer), series.metric in _DASHED, left_out)


def is_logarithmic(series: Sequence[Series]) -> bool:
    """Whether the values are positive and reach over more than a decade or so."""
    finite = [s.values[np.isfinite(s.values)] for s in series]
    filled = [values for values in finite if values.size]
    if not filled:
        return False
    lowest = min(float(values.min()) for values in filled)
    highest = max(float(values.max()) for values in filled)
    return lowest > 0 and highest / LOG_FROM >= lowest


def clipped(run: Run) -> str:
    """At how many steps the gradient norm was above the threshold; "" without a threshold."""
    told = []
    for threshold in run.series_of("clip_threshold"):
        norm = run.companion("grad_norm", threshold)
        if norm is None:
            continue
        _, of_norm, of_limit = np.intersect1d(norm.steps, threshold.steps, return_indices=True)
        if of_norm.size:
            over = norm.values[of_norm] > threshold.values[of_limit]
            owner = f", {threshold.owner}" if threshold.owner else ""
            share = f"{over.mean() * 100:.1f}".removesuffix(".0")
            told.append(f"clipped at {over.sum()} of {over.size} steps ({share} %){owner}")
    return "; ".join(told)


def as_data(found: Sequence[Track], axis: Axis) -> list[dict[str, object]]:
    """The tracks as the script of the page takes them."""
    return [
        {
            "key": track.key,
            "title": wording.shortened(wording.clean(track.title)[:400], 60),
            "log": track.logarithmic,
            "shown": track.shown,
            "lines": list(_lines_data(track, axis)),
        }
        for track in found
    ]


def _lines_data(track: Track, axis: Axis) -> Iterator[dict[str, object]]:
    for line in track.lines:
        yield {
            "label": wording.shortened(wording.clean(line.label)[:400], 60),
            "dashed": line.dashed,
            "whole": len(line.series) == line.series.recorded,
            "x": packed(offsets(line.series.steps, axis.origin)),
            "y": packed(line.series.values),
        }
