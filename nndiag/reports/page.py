"""A report as lines of words with a role: the one layout that plain text and terminal share.

    CRITICAL  runs/resnet   1240 steps (0-1239)
    2 findings: loss-spike, dead-relu
    loss 2.31 -> 7.9, 12 layers, read as nndiag

    7.9 |                  ...        the curve, each finding's steps marked under it

    1  loss-spike  critical  loss, steps 612-640
       what was seen, with its numbers
       evidence   the numbers that prove it
       remedies   1. lower-clip  clip_grad_norm_.max_norm 10 -> 0.8
                     what to do, and why
       symptoms   what follows from it

    not judged    detectors that could not, and why
    blind to      what a log of this format never shows
    notes         what was read or left out
    next          nndiag explain loss-spike

No colour here: a `Role` says what a word is, the terminal report says how that looks.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nndiag.errors import NndiagError
from nndiag.records import Diagnosis, Finding, Remedy, Severity, Verdict
from nndiag.reports import wording
from nndiag.reports.curve import Curve, Mark, draw
from nndiag.reports.left_out import left_out_lines
from nndiag.reports.lines import (
    BLANK,
    FIXED,
    LABEL,
    NARROWEST,
    SEVERITY,
    VERDICT,
    WIDEST,
    Line,
    Role,
    Span,
    labelled,
    wrapped,
)
from nndiag.reports.wording import clean

ERRORS_SHOWN = 20
CURVE_FROM = 10  # points; fewer are no curve
REMEDIES_SHOWN = 3  # the rest is named only: a list of seven is no advice
_INDENT = 3


def report(
    diagnoses: Sequence[Diagnosis],
    *,
    skipped: Sequence[NndiagError] = (),
    unread: int = 0,
    width: int = FIXED,
    ascii_only: bool = False,
    verbose: bool = False,
) -> list[Line]:
    """All that is said of a few runs, page by page; of many, `overview` says how they stand.

    `skipped` are files of a searched folder that were left out; `unread` paths could not be read.
    """
    width = max(NARROWEST, min(width, WIDEST))
    lines: list[Line] = []
    several = len(diagnoses) > 1
    for diagnosis in diagnoses:
        is_calm = several and not verbose and diagnosis.verdict is Verdict.HEALTHY
        lines += [*page(diagnosis, width, ascii_only, is_calm=is_calm), BLANK]
    if left_out := list(left_out_lines(skipped, width, verbose)):
        lines += [*left_out, BLANK]
    if several or (diagnoses and unread):
        lines += [(Span(wording.tally(diagnoses, unread)),), BLANK]
    lines += _next(diagnoses)
    while lines and not lines[-1]:
        lines.pop()
    return lines


def page(
    diagnosis: Diagnosis, width: int = FIXED, ascii_only: bool = False, *, is_calm: bool = False
) -> Iterator[Line]:
    """All that is said of one run; of one that `is_calm` only its first lines."""
    yield from _header(diagnosis, width)
    if not is_calm:
        yield from _body(diagnosis, width, ascii_only)


def pages(
    diagnoses: Sequence[Diagnosis], width: int = FIXED, ascii_only: bool = False
) -> list[Line]:
    """Run after run, with a blank line after each."""
    width = max(NARROWEST, min(width, WIDEST))
    return [line for d in diagnoses for line in (*page(d, width, ascii_only), BLANK)]


def error_lines(errors: Sequence[NndiagError], width: int = WIDEST) -> list[Line]:
    """`where: what`, and indented what to do; the same advice is not given twice."""
    lines: list[Line] = []
    given = {""}
    for error in errors[:ERRORS_SHOWN]:
        told = [Span(f"{clean(error.where)}:", Role.STRONG), Span(wording.told(error.what))]
        lines += wrapped(told, width, hanging=2)
        if error.do not in given:
            given.add(error.do)
            lines += wrapped([Span(clean(error.do))], width, indent=2, hanging=4)
    if (rest := len(errors) - ERRORS_SHOWN) > 0:
        lines.append((Span(f"and {wording.counted(rest, 'more error')}; --json lists all"),))
    return lines


def _header(diagnosis: Diagnosis, width: int) -> list[Line]:
    run = diagnosis.run
    verdict = Span(str(diagnosis.verdict).upper(), VERDICT[diagnosis.verdict])
    first = [verdict, Span(f" {clean(run.path)}", Role.STRONG), Span(f" {wording.steps_read(run)}")]
    layers = f", {wording.counted(len(run.layers), 'layer')}" if run.layers else ""
    read = Span(f"{wording.loss_read(run)}{layers}, read as {clean(run.format)}", Role.DIM)
    return [
        *wrapped(first, width, hanging=_INDENT),
        *wrapped([Span(wording.verdict_line(diagnosis))], width, hanging=_INDENT),
        *wrapped([read], width, hanging=_INDENT),
    ]


def _body(diagnosis: Diagnosis, width: int, ascii_only: bool) -> Iterator[Line]:
    drawing = list(_curve(diagnosis, width, ascii_only))
    if drawing:
        yield BLANK
        yield from drawing
    yield from finding_lines(diagnosis, width)
    notes = [note for note in diagnosis.notes if note != wording.undecided_note(diagnosis)]
    rest = [
        *_abstained(diagnosis, width),
        *_blind(diagnosis, width),
        *labelled("notes", [[Span(wording.told(note), Role.DIM)] for note in notes], width),
    ]
    if rest:
        yield BLANK
        yield from rest


def finding_lines(diagnosis: Diagnosis, width: int) -> Iterator[Line]:
    """Every finding with its evidence, remedies and symptoms, a blank line before each."""
    for index, finding in enumerate(diagnosis.findings, start=1):
        yield BLANK
        yield from _finding(finding, index, width)


def _abstained(diagnosis: Diagnosis, width: int) -> Iterator[Line]:
    """One entry for each reason: twelve detectors that all need layers are one line."""
    by_reason: dict[str, list[str]] = {}
    for abstention in diagnosis.abstained:
        by_reason.setdefault(wording.told(abstention.reason), []).append(abstention.name)
    entries = [
        [Span(f"{wording.listed(names, most=3)}:", Role.DIM), Span(reason, Role.DIM)]
        for reason, names in by_reason.items()
    ]
    yield from labelled("not judged", entries, width)


def _blind(diagnosis: Diagnosis, width: int) -> Iterator[Line]:
    """What a log of this kind never shows: there, silence is no health. A healthy run says so."""
    if (blind := diagnosis.run.blind) and diagnosis.verdict is not Verdict.HEALTHY:
        said = f"{wording.listed(blind, most=9)}: a log of this format would not show it"
        yield from labelled("blind to", [[Span(said, Role.DIM)]], width)


def _finding(finding: Finding, index: int, width: int) -> Iterator[Line]:
    where = ", ".join(filter(None, (wording.place(finding), wording.step_range(finding))))
    head = [
        Span(str(index).ljust(_INDENT - 1), Role.EVENT),
        Span(clean(finding.name), Role.STRONG),
        Span(f" {finding.severity}", SEVERITY[finding.severity]),
        *([Span("known", Role.DIM)] if finding.known else []),
        *([Span(f" {where}")] if where else []),
        Span(f" confidence {finding.confidence:.0%}", Role.DIM),
    ]
    yield from wrapped(head, width, hanging=_INDENT)
    yield from wrapped([Span(wording.sentence(finding.message))], width, indent=_INDENT)
    if finding.evidence:
        proof = ", ".join(wording.evidence_item(item) for item in finding.evidence)
        yield from labelled("evidence", [[Span(proof)]], width, indent=_INDENT, hanging=0)
    yield from _remedies(finding.remedies, width)
    symptoms = [_symptom(symptom) for symptom in finding.symptoms]
    yield from labelled("symptoms", symptoms, width, indent=_INDENT)


def _remedies(remedies: Sequence[Remedy], width: int) -> Iterator[Line]:
    """Each remedy in two parts: what to set to what, and under it the advice with its reason."""
    for rank, remedy in enumerate(remedies[:REMEDIES_SHOWN], start=1):
        head = [Span(f"{rank}."), Span(clean(remedy.name), Role.STRONG)]
        if change := wording.change(remedy):
            head.append(Span(f" {change}", Role.VALUE))
        label = "remedies" if rank == 1 else ""
        yield from labelled(label, [head], width, indent=_INDENT, hanging=3)
        advice = wording.advice(remedy, before=remedies[rank - 2] if rank > 1 else None)
        yield from wrapped([Span(advice)], width, indent=_INDENT + LABEL + 3)
    if rest := [remedy.name for remedy in remedies[REMEDIES_SHOWN:]]:
        others = Span(f"then {wording.listed(rest, most=9)}", Role.DIM)
        yield from labelled("", [[others]], width, indent=_INDENT)


def _symptom(symptom: Finding) -> list[Span]:
    return [Span(clean(symptom.name), Role.STRONG), Span(f" {wording.sentence(symptom.message)}")]


def _curve(diagnosis: Diagnosis, width: int, ascii_only: bool) -> Iterator[Line]:
    series = wording.main_loss(diagnosis.run)
    marks = [
        Mark(
            str(index),
            start=finding.step_start,
            end=finding.step_start if finding.step_end is None else finding.step_end,
            seen_in_curve=not finding.layers,
        )
        for index, finding in enumerate(diagnosis.findings[:9], start=1)
        if finding.step_start is not None
    ]
    margin = 16  # the value labels and the axis
    columns = min(72, width - margin)
    if series is None or len(series) < CURVE_FROM:
        return
    curve = draw(series, columns=columns, marks=marks, ascii_only=ascii_only)
    if curve is None:
        return
    wall, corner, floor = ("|", "+", "-") if ascii_only else ("\u2502", "\u2514", "\u2500")
    for label, row in zip(curve.labels, curve.rows, strict=True):
        yield (Span(f"{label} {wall}", Role.DIM), *_coloured(row, curve))
    left = " " * len(curve.labels[0])
    yield (Span(f"{left} {corner}{floor * columns}", Role.DIM),)
    for line in curve.marks:
        yield (Span(f"{left}  "), Span(line, Role.EVENT))
    yield (Span(f"{left}  {_step_axis(curve, clean(series.label), columns)}", Role.DIM),)


def _step_axis(curve: Curve, label: str, columns: int) -> str:
    """First step, name of the series, last step: spread over the width of the curve."""
    first, last = str(curve.first_step), f"step {curve.last_step}"
    name = label + (", log scale" if curve.logarithmic else "")
    room = columns - len(first) - len(last)
    return f"{first}{name[: max(0, room - 2)].center(room)}{last}"


def _coloured(row: str, curve: Curve) -> Iterator[Span]:
    """A row of the curve, cut where a marked step range starts or ends."""
    start = 0
    row = row.rstrip()
    for end in range(1, len(row) + 1):
        if end == len(row) or curve.marked[end] != curve.marked[start]:
            yield Span(row[start:end], Role.EVENT if curve.marked[start] else Role.CURVE)
            start = end


def _next(diagnoses: Sequence[Diagnosis]) -> Iterator[Line]:
    """The command to run next: the page of the worst finding."""
    worst = max(
        (finding for diagnosis in diagnoses for finding in diagnosis.findings[:1]),
        key=lambda finding: finding.severity,
        default=None,
    )
    if worst is not None and worst.severity > Severity.INFO:
        command = f"nndiag explain {clean(worst.name)}"
        yield (Span("next".ljust(LABEL), Role.DIM), Span(command, Role.COMMAND))
