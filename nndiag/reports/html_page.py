"""The report as one HTML page: nothing to install, nothing to load, opened from disk.

    header     verdict, path, steps, what was read; of several runs a table, worst first
    curves     loss, learning rate, gradient norm and whatever was logged, on one step axis
    findings   each with its evidence, its remedies and its own curve
    layers     a heat map: a row for each layer, a column for some steps
    about      what was not judged, notes, environment, how to get the same again

All text is in the page as such and can be read without a script. Text from a log passes
`wording.clean` in one place, `_shown`, and is escaped by the template engine after that.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import jinja2
import numpy as np
from markupsafe import Markup

from nndiag import __version__
from nndiag.errors import NndiagError
from nndiag.gate import COULD_NOT, FAILED, PASSED, Gate
from nndiag.records import Attribution, Diagnosis, Finding, Series, Severity, Verdict
from nndiag.reports import wording
from nndiag.reports.html import assets, courses, sketches
from nndiag.reports.html import attributions as drawn
from nndiag.reports.html.sections import Section
from nndiag.reports.html.sketches import Drawn, Paper, Sketch
from nndiag.reports.html.views import run_view
from nndiag.reports.left_out import left_out_lines
from nndiag.reports.overview import worst_first
from nndiag.reports.plain import text as plain_text

MOST_BYTES = 2_000_000
RUNS_IN_FULL = 24  # of several, if there is room; those beyond have a row in the table
_SHARE = 0.3  # of what is left of the room for each of several runs: the worst has most
_LEAST_SHARE = 0.04
ROWS_SHOWN = 1000
SPARKS_SHOWN = 300
ERRORS_SHOWN = 50
LAYERS_LISTED = 12  # of a finding; all of them are marked in the heat map
LONGEST = 600  # characters of one text from a log
_ROOM_FOR_REST = 150_000  # bytes: style, script, errors
_SPARK = Paper(110, 22, left=2, bottom=3, top=3)
_ORDER = (Verdict.CRITICAL, Verdict.WARNING, Verdict.UNDECIDED, Verdict.HEALTHY)
_GATE = {PASSED: "passed", FAILED: "failed", COULD_NOT: "could not judge all"}


@dataclass(frozen=True, slots=True)
class Row:
    """One run in the table."""

    verdict: str
    rank: int  # 0: worst
    name: str
    anchor: str  # "" where the page does not show the run in full
    curve: Sketch | None
    last_loss: str
    last_loss_order: float
    steps: int
    findings: str


@dataclass(frozen=True, slots=True)
class Page:
    """All that the page says besides its runs."""

    title: str
    tally: str
    gate: str
    rows: tuple[Row, ...]
    row_notes: tuple[str, ...]
    errors: tuple[tuple[str, str, str], ...]
    left_out: tuple[str, ...]


def text(
    diagnoses: Sequence[Diagnosis],
    errors: Sequence[NndiagError] = (),
    *,
    skipped: Sequence[NndiagError] = (),
    gate: Gate | None = None,
    unfinished: int = 0,
    sections: Mapping[str, Sequence[Section]] | None = None,
) -> str:
    """The page. The same diagnoses give the same text.

    `sections`: by the path of a run, what is to be shown after its layers. A run whose `Run` is an
    outline (outline.py) is shown with what is left of it.
    """
    ordered = worst_first(diagnoses)
    _, names = wording.short_names([one.run.path for one in ordered])
    rows = [_row(one, name, i) for i, (one, name) in enumerate(zip(ordered, names, strict=True))]
    runs = _runs_in_full(ordered, names, rows, sections or {})
    several = len(ordered) > 1
    page = Page(
        title=_title(ordered),
        tally=wording.tally(diagnoses, len(errors)),
        gate=_GATE[gate.status(diagnoses, len(errors))] if gate is not None else "",
        rows=tuple(_anchored(rows, len(runs))) if several else (),
        row_notes=tuple(_row_notes(ordered, len(runs), unfinished)) if several else (),
        errors=tuple((one.where, one.what, one.do) for one in errors[:ERRORS_SHOWN]),
        left_out=tuple(plain_text(left_out_lines(skipped, 10_000)).splitlines()),
    )
    return _template("page.html").render(
        page=page,
        runs=runs,
        policy=Markup(assets.policy()),
        style=Markup(assets.style()),
        script=Markup(assets.script()),
        version=__version__,
    )


def attribution_section(attributions: Sequence[Attribution]) -> Section:
    """A section for `text`: what was attributed in a run."""
    body = _template("attributions.html").render(
        shown=drawn.shown(attributions), width=drawn.BATCH_WIDTH, height=drawn.BATCH_HEIGHT
    )
    return Section("attributions", "Attributions", Markup(body))


def in_full(diagnoses: Sequence[Diagnosis]) -> list[Diagnosis]:
    """Those of several runs that a page may show in full: the worst ones."""
    return worst_first(diagnoses)[:RUNS_IN_FULL]


def _runs_in_full(
    ordered: Sequence[Diagnosis],
    names: Sequence[str],
    rows: Sequence[Row],
    sections: Mapping[str, Sequence[Section]],
) -> list[Markup]:
    """The worst runs, as many as fit; the first one in any case."""
    several = len(ordered) > 1
    table = sum(_bytes_of(row) for row in rows[:ROWS_SHOWN]) if several else 0
    whole = MOST_BYTES - _ROOM_FOR_REST
    room = whole - table
    made: list[Markup] = []
    for index, diagnosis in enumerate(ordered[:RUNS_IN_FULL]):
        added = sections.get(diagnosis.run.path, ())
        free = room - sum(len(one.body) for one in added)
        view = run_view(
            diagnosis,
            anchor=f"run-{index + 1}",
            name=names[index] if several else diagnosis.run.path,
            share=max(_LEAST_SHARE, (_SHARE if several else 1.0) * free / whole),
            sections=added,
        )
        one = Markup(
            _template("run.html").render(run=view, page_has_several=several, is_open=index == 0)
        )
        room -= len(one.encode())
        if made and room < 0:
            break
        made.append(one)
    return made


def _bytes_of(row: Row) -> int:
    drawn = sum(len(stroke.path) for stroke in row.curve.strokes) if row.curve else 0
    return 420 + drawn + 2 * len(row.name) + len(row.findings)


def _row(diagnosis: Diagnosis, name: str, index: int) -> Row:
    loss = wording.main_loss(diagnosis.run)
    recorded = wording.recorded_steps(diagnosis.run)
    last = float(loss.values[-1]) if loss is not None else float("nan")
    return Row(
        verdict=str(diagnosis.verdict),
        rank=index,
        name=name,
        anchor="",
        curve=_spark(diagnosis, loss) if loss is not None and index < SPARKS_SHOWN else None,
        last_loss=wording.number(last) if loss is not None else "-",
        # what is not finite sorts as the largest: it is the worst
        last_loss_order=last if np.isfinite(last) else 1e308,
        steps=recorded[2] if recorded else 0,
        findings=_in_short(diagnosis),
    )


def _anchored(rows: Sequence[Row], shown: int) -> list[Row]:
    return [
        replace(row, anchor=f"run-{i + 1}") if i < shown else row
        for i, row in enumerate(rows[:ROWS_SHOWN])
    ]


def _spark(diagnosis: Diagnosis, loss: Series) -> Sketch | None:
    axis = courses.axis(diagnosis.run)
    if axis is None:
        return None
    return sketches.sketch([Drawn("loss", loss)], axis, paper=_SPARK)


def _in_short(diagnosis: Diagnosis) -> str:
    if diagnosis.verdict is Verdict.UNDECIDED:
        return wording.told(wording.undecided_note(diagnosis).partition(": ")[2])
    serious = [f for f in diagnosis.findings if f.severity > Severity.INFO]
    return wording.listed(dict.fromkeys(_name(finding) for finding in serious), most=6)


def _name(finding: Finding) -> str:
    return f"{finding.name} (known)" if finding.known else finding.name


def _row_notes(ordered: Sequence[Diagnosis], shown: int, unfinished: int) -> list[str]:
    notes = []
    if shown < len(ordered):
        notes.append(
            f"The worst {shown} of {len(ordered)} runs are shown in full, as the page stays below "
            f"{MOST_BYTES // 10**6} MB; any other one: nndiag report PATH -o FILE.html"
        )
    if (rest := len(ordered) - ROWS_SHOWN) > 0:
        notes.append(f"{wording.counted(rest, 'more run')}: nndiag analyze --json lists all.")
    if unfinished:
        notes.append(f"Interrupted: {wording.counted(unfinished, 'run')} not analysed.")
    return notes


def _title(ordered: Sequence[Diagnosis]) -> str:
    if len(ordered) == 1:
        return f"{ordered[0].verdict}: {ordered[0].run.path} - nndiag"
    return f"{wording.tally(ordered, 0)} - nndiag"


def _shown(value: object) -> object:
    """The one door of this page for text: cleaned and bounded, unless it is markup of ours."""
    if isinstance(value, Markup | int | float):
        return value
    cleaned = wording.clean(value)
    return _cut(cleaned) if len(cleaned) > LONGEST else cleaned


def _cut(cleaned: str) -> str:
    return f"{cleaned[: LONGEST - 101]}\u2026{cleaned[-100:]}"


def _layer_list(names: Sequence[str]) -> str:
    cut = [wording.shortened(wording.clean(name)[:400], 60) for name in names]
    return wording.listed(cut, most=LAYERS_LISTED)


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        finalize=_shown,
        loader=jinja2.FunctionLoader(assets.read),
        auto_reload=False,
    )
    environment.filters["layer_list"] = _layer_list
    return environment


def _template(name: str) -> jinja2.Template:
    return _environment().get_template(name)
