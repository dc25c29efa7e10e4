"""compare(sides): each side against the reference, and all by their final level.

>>> compare([Side("A", (before,)), Side("B", (after,))])
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from nndiag.comparison import axes
from nndiag.comparison.axes import Axis
from nndiag.comparison.curve_pairs import METRICS, curve_differences, drawn, lacking
from nndiag.comparison.facts import CONFIDENCE, Comparison, Layers, Pair, Rank, Side
from nndiag.comparison.findings import finding_changes
from nndiag.comparison.layers import compare_layers
from nndiag.comparison.levels import end_window, level, mean_level
from nndiag.comparison.run_settings import different_settings
from nndiag.curves.student_t import two_sided
from nndiag.records import Run, Series

RANKED_BY = ("val_loss", "loss")  # the first that every run has


def compare(sides: Sequence[Side], align: str = "step") -> Comparison:
    """What differs between the first side and each other one; of three or more, their ranking.

    Pure: the same runs give the same comparison.
    """
    reference, *others = sides
    pairs = tuple(compare_pair(reference, other, align) for other in others)
    ranking: tuple[Rank, ...] = ()
    metric = unit = ""
    if len(sides) > 2:
        ranking, metric, unit = _ranking(sides, align)
    return Comparison(tuple(sides), pairs, ranking, metric, unit or "step")


def compare_pair(a: Side, b: Side, align: str = "step") -> Pair:
    runs_a, runs_b = [d.run for d in a.diagnoses], [d.run for d in b.diagnoses]
    reason = axes.why_not([*runs_a, *runs_b], align)
    axes_a, axes_b = [Axis(run, align) for run in runs_a], [Axis(run, align) for run in runs_b]
    settings, compared = different_settings(runs_a, runs_b)
    curves = () if reason else tuple(curve_differences(axes_a, axes_b, (a.mark, b.mark)))
    return Pair(
        a=a,
        b=b,
        align=align,
        unit=axes.UNITS.get(align, axes.step_unit(runs_a[0])),
        findings=finding_changes(a.diagnoses, b.diagnoses),
        curves=curves,
        only_a=lacking(axes_a, axes_b),
        only_b=lacking(axes_b, axes_a),
        layers=Layers() if reason else compare_layers(axes_a, axes_b),
        settings=settings,
        settings_compared=compared,
        drawn=drawn(curves[0], axes_a, axes_b) if curves else None,
        not_comparable=reason,
        notes=() if reason else tuple(_left_out(a, b, align)),
    )


def _left_out(a: Side, b: Side, align: str) -> list[str]:
    """What of the longer side has no counterpart."""
    if align == "progress":
        return []
    ends = {}
    for side in (a, b):
        spans = [
            (axis.places(loss.steps[:1])[0], axis.places(loss.steps[-1:])[0])
            for diagnosis in side.diagnoses
            if (loss := main_series(diagnosis.run)) is not None
            for axis in [Axis(diagnosis.run, align)]
        ]
        if not spans:
            return []
        ends[side.mark] = max(s for s, _ in spans), min(e for _, e in spans)
    unit = "s" if align == "time" else axes.step_unit(a.diagnoses[0].run)
    start, end = max(s for s, _ in ends.values()), min(e for _, e in ends.values())
    told = []
    for mark, (first, last) in ends.items():
        if last - end > 0.01 * max(1.0, end - start):
            told.append(f"left out: {mark} after {unit} {end:.6g}, to {last:.6g}")
        if start - first > 0.01 * max(1.0, end - start):
            told.append(f"left out: {mark} before {unit} {start:.6g}, from {first:.6g}")
    return told


def main_series(run: Run) -> Series | None:
    """The curve that stands for a run: its longest loss, else its validation loss."""
    for metric in ("loss", "val_loss"):
        found = [series for series in run.series_of(metric) if len(series)]
        if found:
            return max(found, key=lambda series: series.recorded)
    return None


def _ranking(sides: Sequence[Side], align: str) -> tuple[tuple[Rank, ...], str, str]:
    """All sides by their level at the end that all of them reached, best first."""
    runs = [diagnosis.run for side in sides for diagnosis in side.diagnoses]
    if axes.why_not(runs, align):
        return (), "", ""
    metric = next((m for m in RANKED_BY if all(any(r.series_of(m)) for r in runs)), "")
    if not metric:
        return (), "", ""
    better = METRICS[metric][0]
    courses = []
    for side in sides:
        own = []
        for diagnosis in side.diagnoses:
            series = max(diagnosis.run.series_of(metric), key=lambda one: one.recorded)
            own.append(Axis(diagnosis.run, align).course(series))
        courses.append(own)
    # A run that broke has no final level, and must not shorten the comparison of the others.
    sound = [own for own in courses if all(c.x_T.size and c.broken_from is None for c in own)]
    every = [course for own in sound for course in own]
    start = max((float(course.x_T[0]) for course in every), default=math.nan)
    end = min((float(course.x_T[-1]) for course in every), default=math.nan)
    if not end > start:
        return (), "", ""
    window = end_window(every, start, end)
    ranks = []
    for side, own in zip(sides, courses, strict=True):
        if not any(own is one for one in sound):
            ranks.append(Rank(side.mark, math.nan, math.nan, end))
            continue
        here = mean_level(own, window) if len(own) > 1 else level(own[0], window)
        band = math.nan
        if math.isfinite(here.error):
            band = here.error * two_sided(1.0 - CONFIDENCE, here.freedom)
        ranks.append(Rank(side.mark, here.value, band, end))
    sign = 1.0 if better == "lower" else -1.0
    ranks.sort(key=lambda one: (math.isnan(one.level), sign * one.level))
    return tuple(ranks), metric, axes.UNITS.get(align, axes.step_unit(runs[0]))
