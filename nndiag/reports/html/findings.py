"""Findings as the page shows them: in words, and with the curve that they were seen in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from nndiag.records import Evidence, Finding, Number, Remedy, Run
from nndiag.reports import wording
from nndiag.reports.html import courses, layers, sketches
from nndiag.reports.html.courses import Axis
from nndiag.reports.html.layers import Layers
from nndiag.reports.html.marks import marks
from nndiag.reports.html.sketches import Drawn, Sketch

LAYERS_DRAWN = 4  # lines in the sketch of a finding


@dataclass(frozen=True, slots=True)
class FindingView:
    """One finding as the page shows it."""

    number: int
    finding: Finding
    anchor: str
    where: str
    steps: str
    message: str
    evidence: tuple[tuple[str, str, str], ...]  # name, measured, limit
    remedies: tuple[RemedyView, ...]
    symptoms: tuple[SymptomView, ...]
    layers: tuple[str, ...]
    curve: Sketch | None
    curve_of: str
    start: float | None = None  # of the range to zoom to, as the page counts steps
    end: float | None = None
    heat: str = ""  # the heat map that shows it
    row: int | None = None


@dataclass(frozen=True, slots=True)
class RemedyView:
    """What to change, from what, to what, and why."""

    name: str
    setting: str
    old: str
    new: str
    advice: str


@dataclass(frozen=True, slots=True)
class SymptomView:
    """A finding that another one explains."""

    name: str
    where: str
    message: str


def finding_view(
    finding: Finding, number: int, anchor: str, run: Run, axis: Axis | None, found: Layers | None
) -> FindingView:
    view = FindingView(
        number=number,
        finding=finding,
        anchor=f"{anchor}-finding-{number}",
        where=wording.place(finding),
        steps=wording.step_range(finding),
        message=wording.sentence(finding.message),
        evidence=tuple(_evidence(one) for one in finding.evidence),
        remedies=tuple(_remedies(finding.remedies)),
        symptoms=tuple(
            SymptomView(s.name, wording.place(s), wording.sentence(s.message))
            for s in finding.symptoms
        ),
        layers=finding.layers,
        curve=None,
        curve_of="",
    )
    return view if axis is None else _with_curve(view, run, axis, found)


def _with_curve(view: FindingView, run: Run, axis: Axis, found: Layers | None) -> FindingView:
    """The view with its own curve, its event marked, and the range that a click zooms to."""
    finding = view.finding
    mark = next(iter(marks([finding])), None)
    heat = layers.measure_of(finding, found) if found else None
    title, lines, row = "", [], None
    if heat is not None and found is not None:
        placed = [(layer, found.row(layer)) for layer in finding.layers]
        rows = [(layer, at) for layer, at in placed if at is not None and len(heat.series[at])]
        lines = [Drawn(layer, heat.series[at]) for layer, at in rows[:LAYERS_DRAWN]]
        title, row = heat.measure.title, rows[0][1] if rows else None
    if not lines:
        heat = None
        title, lines = _whole_run(finding, run)
    window = sketches.window_around(mark, axis) if mark else None
    drawing = sketches.sketch(
        lines, axis, [mark] if mark else [], window=window, title=f"{title}: {view.steps}"
    )
    return replace(
        view,
        curve=drawing,
        curve_of=title,
        start=axis.place(window[0]) if window else None,
        end=axis.place(window[1]) if window else None,
        heat=heat.measure.key if heat else "",
        row=row,
    )


def _whole_run(finding: Finding, run: Run) -> tuple[str, list[Drawn]]:
    """The series of the whole run that a finding is about, with those it is read beside."""
    metrics = [
        s.metric for s in run.series if not s.where and finding.series in (s.label, s.metric)
    ]
    kinds = [kind for kind in courses.KINDS if metrics and metrics[0] in kind[2]]
    if metrics[:1] == ["other"]:
        kinds = [("", finding.series, ("other",), True)]
    kinds.append(courses.KINDS[0])
    for _, title, wanted, _ in kinds:
        lines = [
            Drawn(courses.label(s), s, s.metric == "clip_threshold")
            for metric in wanted
            for s in run.series_of(metric)
            if not s.where and len(s)
            if finding.owner in ("", s.owner) or not s.owner
            if metric != "other" or s.label == finding.series
        ]
        if lines:
            return title, lines[:LAYERS_DRAWN]
    return "", []


def _evidence(evidence: Evidence) -> tuple[str, str, str]:
    limit = "" if evidence.limit is None else wording.number(evidence.limit)
    return evidence.name.replace("_", " "), wording.number(evidence.measured), limit


def _remedies(remedies: Sequence[Remedy]) -> Iterator[RemedyView]:
    for rank, remedy in enumerate(remedies):
        before = remedies[rank - 1] if rank else None
        yield RemedyView(
            name=remedy.name,
            setting=remedy.setting if remedy.new is not None else "",
            old=_value(remedy.old),
            new=_value(remedy.new),
            advice=wording.advice(remedy, before),
        )


def _value(given: Number | str | None) -> str:
    return "" if given is None else wording.number(given)
