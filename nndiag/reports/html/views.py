"""What the templates show of a run: words, sketches and packed data, ready to be laid out.

Text from a log passes `wording.clean` when a template prints it (html_page), not here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from markupsafe import Markup

from nndiag.records import Diagnosis, Optimizer, Run
from nndiag.reports import wording
from nndiag.reports.html import courses, layers, picture, sketches
from nndiag.reports.html.courses import Axis, Track
from nndiag.reports.html.findings import FindingView, finding_view
from nndiag.reports.html.layers import Layers
from nndiag.reports.html.marks import Mark, marks
from nndiag.reports.html.packing import json_block
from nndiag.reports.html.sections import Section
from nndiag.reports.html.sketches import Drawn, Sketch

MOST_FINDINGS = 100  # of a run; a run with more has one cause that is not understood


@dataclass(frozen=True, slots=True)
class Figure:
    """A drawing for paper, with what it shows."""

    title: str
    note: str
    sketch: Sketch


@dataclass(frozen=True, slots=True)
class HeatFigure:
    """A heat map for paper: a picture of all rows, with the names that there is room for."""

    title: str
    address: str
    rows: int
    labels: tuple[tuple[int, str], ...]


@dataclass(frozen=True, slots=True)
class RunView:
    """One run in full."""

    anchor: str
    name: str
    diagnosis: Diagnosis
    verdict_line: str
    steps: str
    loss: str
    findings: tuple[FindingView, ...]
    findings_left_out: int
    tracks: tuple[Track, ...]
    figures: tuple[Figure, ...]
    layers: Layers | None
    heat_figure: HeatFigure | None
    abstained: tuple[tuple[str, str], ...]  # names, reason
    notes: tuple[str, ...]
    environment: tuple[tuple[str, str], ...]
    command: str
    thinning: tuple[str, ...]
    data: Markup
    sections: tuple[Section, ...] = ()


def run_view(
    diagnosis: Diagnosis,
    *,
    anchor: str,
    name: str,
    share: float = 1.0,
    sections: Sequence[Section] = (),
) -> RunView:
    """All that is shown of a run; `share` of the points and cells that a page of one run has."""
    run = diagnosis.run
    shown = diagnosis.findings[:MOST_FINDINGS]
    axis = courses.axis(run)
    found_tracks = courses.tracks(run, share**0.5) if axis else ()  # curves need little room
    named = [layer for finding in shown for layer in finding.layers]
    room = int(layers.CELLS_BYTES * share)
    found_layers = layers.layers(run, named, axis, room) if axis else None
    findings = tuple(
        finding_view(one, number, anchor, run, axis, found_layers)
        for number, one in enumerate(shown, start=1)
    )
    return RunView(
        anchor=anchor,
        name=name,
        diagnosis=diagnosis,
        verdict_line=wording.verdict_line(diagnosis),
        steps=wording.steps_read(run),
        loss=wording.loss_read(run),
        findings=findings,
        findings_left_out=len(diagnosis.findings) - len(shown),
        tracks=found_tracks,
        figures=tuple(_figures(found_tracks, axis, marks(shown))) if axis else (),
        layers=found_layers,
        heat_figure=_heat_figure(found_layers, named) if found_layers else None,
        abstained=tuple(_abstained(diagnosis)),
        notes=tuple(n for n in diagnosis.notes if n != wording.undecided_note(diagnosis)),
        environment=tuple(_environment(run)),
        command=wording.command(run.path),
        thinning=tuple(_thinning(found_tracks, found_layers)),
        data=_data(axis, found_tracks, found_layers, findings),
        sections=tuple(sections),
    )


def _figures(found: Sequence[Track], axis: Axis, marked: Sequence[Mark]) -> Iterator[Figure]:
    for track in found:
        paper = sketches.WIDE if track.key == "loss" else sketches.FLAT
        lines = [Drawn(line.label, line.series, line.dashed) for line in track.lines]
        told = marked if track.key == "loss" else ()
        drawing = sketches.sketch(lines, axis, told, paper=paper, title=track.title)
        if track.shown and drawing is not None:
            yield Figure(track.title, track.note, drawing)


def _heat_figure(found: Layers, named: Sequence[str]) -> HeatFigure:
    """The first heat map; of many layers only the first, the last and those with a finding."""
    heat = found.maps[0]
    measured = [row for row, series in enumerate(heat.series) if len(series)]
    names = [found.names[row] for row in measured]
    count = len(names)
    wanted = {0, count - 1, *(i for i, name in enumerate(names) if name in set(named))}
    labels, free = [], -1.0
    for row in range(count) if count <= 40 else sorted(wanted):
        place = row * 40 / max(count, 40)
        if place >= free:  # names may not lie on each other
            labels.append((row, wording.shortened(wording.clean(names[row])[:400], 34)))
            free = place + 1
    address = picture.address(heat, np.array(measured))
    return HeatFigure(heat.measure.title, address, count, tuple(labels))


def _abstained(diagnosis: Diagnosis) -> Iterator[tuple[str, str]]:
    by_reason: dict[str, list[str]] = {}
    for one in diagnosis.abstained:
        by_reason.setdefault(wording.told(one.reason), []).append(one.name)
    for reason, names in by_reason.items():
        yield wording.listed(names, most=40), reason


def _environment(run: Run) -> Iterator[tuple[str, str]]:
    yield "read as", run.format
    yield from run.environment
    for optimizer in run.optimizers:
        yield optimizer.owner or optimizer.kind, _settings(optimizer)


def _settings(optimizer: Optimizer) -> str:
    told = [f"{name} {wording.number(value)}" for name, value in optimizer.settings]
    return ", ".join([*told, wording.counted(optimizer.steps, "step")])


def _thinning(found: Sequence[Track], rows: Layers | None) -> Iterator[str]:
    """What was left out so that the page stays small, and what of it is still there."""
    if any(track.is_thinned for track in found):
        most = max(line.series.recorded for track in found for line in track.lines)
        yield (
            f"Curves are drawn from fewer points than the {most} that were logged: of each range "
            "of steps the lowest value, the highest, and the first that is NaN or infinite. "
            "Every peak is there at its own step; nothing is averaged."
        )
    if rows is None:
        return
    if any(one.is_thinned for one in rows.maps):
        columns = max(int(one.grid.starts.size) for one in rows.maps)
        yield (
            f"Heat maps have at most {columns} columns. A cell holds the lowest and the highest "
            "value of its steps and whether one was NaN or infinite; it is never a mean."
        )
    if rows.left_out:
        yield (
            f"{rows.left_out} of {rows.left_out + len(rows.names)} layers have no row: "
            "those named by findings are shown, then the first."
        )


def _data(
    axis: Axis | None, found: Sequence[Track], rows: Layers | None, findings: Sequence[FindingView]
) -> Markup:
    if axis is None:
        return json_block(None)
    marked: dict[str, list[int]] = {}
    for view in findings:
        for layer in view.layers:
            marked.setdefault(layer, []).append(view.number)
    ranges = [
        {
            "label": mark.label,
            "severity": mark.severity,
            "start": axis.place(mark.within(axis)[0]),
            "end": axis.place(mark.within(axis)[1]),
        }
        for mark in marks([view.finding for view in findings])
    ]
    return json_block(
        {
            "origin": str(axis.origin),
            "first": float(axis.first - axis.origin),
            "last": float(axis.last - axis.origin),
            "tracks": courses.as_data(found, axis),
            "marks": ranges,
            "layers": layers.as_data(rows, marked, axis) if rows else None,
        }
    )
