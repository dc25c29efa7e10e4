"""Many runs on one screen: how they stand, the worst of them, what was left out.

    1000 runs  12 critical  85 warning  3 undecided  900 healthy
    ████▓▓▓▓▓▓▓▓░───────────────────────────────────────────────

    loss-plateau       41 runs  ██████████
    loss-spike         20 runs  █████

    the worst 20 of 97, in runs/sweep
    critical  lr-3/seed-1   ▇▃▂▁▁▁▁▁█  6000  2.31 -> 7.9  loss-divergence +1

    left out   9 files: no series in it looks like a loss

In a pipe there is no drawing, and each run has a line of its own: its verdict, the path that
`nndiag analyze` takes, its format, steps, loss and findings.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence

from nndiag.errors import NndiagError
from nndiag.records import Diagnosis, Severity, Verdict
from nndiag.reports import wording
from nndiag.reports.curve import spark
from nndiag.reports.left_out import left_out_lines
from nndiag.reports.lines import (
    BLANK,
    FIXED,
    LABEL,
    SEVERITY,
    VERDICT,
    Line,
    Role,
    Span,
    wrapped,
)
from nndiag.reports.wording import cells, clean, padded, shortened

FROM = 5  # runs: fewer are shown page by page
PAGES_SHOWN = 3  # of the worst runs, above the overview of a screen
WORST_SHOWN = 20  # runs in the table of a screen
NAMES_SHOWN = 10  # kinds of findings
NARROWEST, WIDEST = 64, 160  # columns; a table needs, and may have, more than a text
_SPARK = 12  # columns of a drawing
_READABLE = 32  # columns of a name
_LONGEST_PATH = 70  # columns that are filled up in a pipe
_BAR = {Verdict.CRITICAL: "█#", Verdict.WARNING: "▓*", Verdict.UNDECIDED: "░?"}
_REST = "─-"
_ORDER = (Verdict.CRITICAL, Verdict.WARNING, Verdict.UNDECIDED, Verdict.HEALTHY)


def worst_first(diagnoses: Sequence[Diagnosis]) -> list[Diagnosis]:
    """By verdict, then by how sure and how many the findings are; else in the given order."""

    def rank(diagnosis: Diagnosis) -> tuple[float, ...]:
        serious = [f for f in diagnosis.findings if f.severity > Severity.INFO]
        surest = max((f.confidence for f in serious), default=0.0)
        return _ORDER.index(diagnosis.verdict), -round(surest, 1), -len(serious)

    return sorted(diagnoses, key=rank)


def worst(diagnoses: Sequence[Diagnosis]) -> list[Diagnosis]:
    """The runs whose pages are shown unasked; the very worst last, next to the overview."""
    sick = [d for d in diagnoses if d.verdict in (Verdict.CRITICAL, Verdict.WARNING)]
    return worst_first(sick)[:PAGES_SHOWN][::-1]


def on_a_screen(
    diagnoses: Sequence[Diagnosis],
    *,
    skipped: Sequence[NndiagError] = (),
    unread: int = 0,
    width: int = FIXED,
    ascii_only: bool = False,
    verbose: bool = False,
) -> list[Line]:
    """How the runs stand, and the worst of them; with `verbose` all runs, and all left out."""
    width = max(NARROWEST, min(width, WIDEST))
    lines = [*_counts(diagnoses, unread, width, ascii_only), BLANK]
    if findings := list(_findings(diagnoses, width, ascii_only)):
        lines += [*findings, BLANK]
    lines += [*_table(diagnoses, width, ascii_only, verbose), BLANK]
    if left_out := list(left_out_lines(skipped, width, verbose)):
        lines += [*left_out, BLANK]
    return [*lines, *_next(diagnoses)]


def in_a_pipe(
    diagnoses: Sequence[Diagnosis],
    *,
    skipped: Sequence[NndiagError] = (),
    unread: int = 0,
    verbose: bool = False,
) -> list[Line]:
    """One line for each run, worst first, then what was left out. Nothing is cut off."""
    rows = [_row(diagnosis) for diagnosis in worst_first(diagnoses)]
    widths = [max(cells(row[column]) for row in rows) for column in range(len(rows[0]))]
    widths[1] = min(widths[1], _LONGEST_PATH)
    lines: list[Line] = [
        (Span("  ".join(padded(*cell) for cell in zip(row, widths, strict=True)).rstrip()),)
        for row in rows
    ]
    lines += [BLANK, (Span(wording.tally(diagnoses, unread)),)]
    if left_out := list(left_out_lines(skipped, 10_000, verbose)):
        lines += [BLANK, *left_out]
    return [*lines, BLANK, *_next(diagnoses)]


def _counts(
    diagnoses: Sequence[Diagnosis], unread: int, width: int, ascii_only: bool
) -> Iterator[Line]:
    """`1000 runs  12 critical  988 healthy`, and a bar of the same proportions."""
    counts = wording.verdict_counts(diagnoses)
    spans = [Span(wording.counted(len(diagnoses), "run"), Role.STRONG)]
    spans += [Span(f" {count} {verdict}", VERDICT[verdict]) for verdict, count in counts.items()]
    if unread:
        spans.append(Span(f" {unread} could not be read", Role.CRITICAL))
    yield from wrapped(spans, width)
    columns = min(60, width)
    rest = columns
    bar: list[Span] = []
    for verdict, count in counts.items():
        share = max(1, round(columns * count / len(diagnoses)))
        share = rest if verdict is list(counts)[-1] else min(share, rest - 1)
        bar.append(Span(_BAR.get(verdict, _REST)[ascii_only] * share, VERDICT[verdict]))
        rest -= share
    yield tuple(bar)


def _findings(diagnoses: Sequence[Diagnosis], width: int, ascii_only: bool) -> Iterator[Line]:
    """In how many runs each finding was made; remarks are not counted."""
    runs: Counter[str] = Counter()
    worst: dict[str, Severity] = {}
    for diagnosis in diagnoses:
        serious = [f for f in diagnosis.findings if f.severity > Severity.INFO]
        runs.update({finding.name for finding in serious})
        for finding in serious:
            worst[finding.name] = max(finding.severity, worst.get(finding.name, Severity.INFO))
    ranked = sorted(runs.items(), key=lambda item: (-item[1], item[0]))
    if not ranked:
        return
    column = max(cells(clean(name)) for name, _ in ranked) + 2
    digits = len(str(ranked[0][1]))
    room = max(1, min(30, width - column - digits - 8))
    for name, count in ranked[:NAMES_SHOWN]:
        bar = "█#"[ascii_only] * max(1, round(room * count / ranked[0][1]))
        yield (
            Span(padded(clean(name), column), Role.STRONG),
            Span(f"{count:>{digits}} {'run ' if count == 1 else 'runs'}  "),
            Span(bar, SEVERITY[worst[name]]),
        )
    if (rest := len(ranked) - NAMES_SHOWN) > 0:
        yield (Span(f"and {rest} more kinds of findings", Role.DIM),)


def _table(
    diagnoses: Sequence[Diagnosis], width: int, ascii_only: bool, verbose: bool
) -> Iterator[Line]:
    """The worst runs, one line each; healthy ones are only counted."""
    gap = "..." if ascii_only else "…"
    sick = [d for d in worst_first(diagnoses) if verbose or d.verdict is not Verdict.HEALTHY]
    shown = sick if verbose else sick[:WORST_SHOWN]
    if not shown:
        return
    parent, names = wording.short_names([diagnosis.run.path for diagnosis in shown])
    rows = [_cells(diagnosis, name) for diagnosis, name in zip(shown, names, strict=True)]
    header = ("verdict", "run", "", "steps", "last loss", "findings")
    widths = [max(cells(row[i]) for row in (header, *rows)) for i in range(6)]
    # The drawing takes what is left when names can be read; then names and findings share the rest.
    rest = width - widths[0] - widths[3] - widths[4] - 8
    spare = rest - min(widths[1], _READABLE) - min(widths[5], _READABLE) - 2
    widths[2] = 0 if ascii_only or spare < _SPARK // 2 else min(_SPARK, spare)
    rest -= widths[2] + 2 if widths[2] else 0
    widths[1] = min(widths[1], max(rest // 2, rest - widths[5]))
    room = max(8, rest - widths[1])
    where = f", in {shortened(clean(parent), width - 40, gap)}" if parent else ""
    if len(shown) < len(sick):
        yield (Span(f"the worst {len(shown)} of {len(sick)}{where}", Role.STRONG),)
    elif parent:
        yield (Span(f"{wording.counted(len(shown), 'run')}{where}", Role.STRONG),)
    yield tuple(_joined(header, widths, Role.DIM, Role.DIM))
    for diagnosis, row in zip(shown, rows, strict=True):
        loss = wording.main_loss(diagnosis.run)
        drawn = spark(loss, widths[2]) if loss is not None and widths[2] else ""
        run = shortened(row[1], widths[1], gap)
        told = (row[0], run, drawn, row[3], row[4], _fitting(row[5], room))
        yield tuple(_joined(told, widths, VERDICT[diagnosis.verdict], Role.STRONG))
    if rest := len(sick) - len(shown):
        yield (Span(f"and {rest} more: --verbose, or --json", Role.DIM),)


def _joined(row: Sequence[str], widths: Sequence[int], verdict: Role, name: Role) -> Iterator[Span]:
    """The columns of one line; numbers of steps stand under each other."""
    yield Span(padded(row[0], widths[0]), verdict)
    yield Span(f"  {padded(row[1], widths[1])}", name)
    if widths[2]:
        yield Span(f"  {padded(row[2], widths[2])}", Role.CURVE)
    rest = f"  {row[3].rjust(widths[3])}  {padded(row[4], widths[4])}  {row[5]}".rstrip()
    yield Span(rest, Role.DIM if name is Role.DIM else Role.PLAIN)


def _cells(diagnosis: Diagnosis, name: str) -> tuple[str, ...]:
    """verdict, run, (drawing), steps, last loss, findings"""
    recorded = wording.recorded_steps(diagnosis.run)
    loss = wording.main_loss(diagnosis.run)
    return (
        str(diagnosis.verdict),
        clean(name),
        "",
        str(recorded[2]) if recorded else "-",
        wording.number(float(loss.values[-1])) if loss is not None else "-",
        _in_short(diagnosis),
    )


def _in_short(diagnosis: Diagnosis) -> str:
    """Names of the findings, worst first; what keeps an undecided run from being judged."""
    if diagnosis.verdict is Verdict.UNDECIDED:
        return wording.told(wording.undecided_note(diagnosis).partition(": ")[2])
    serious = [f for f in diagnosis.findings if f.severity > Severity.INFO]
    return ", ".join(dict.fromkeys(clean(finding.name) for finding in serious))


def _fitting(text: str, width: int) -> str:
    """A list cut to whole names, with the number of those that are missing: `loss-spike +2`."""
    if cells(text) <= width:
        return text
    names = text.split(", ")
    for kept in range(len(names) - 1, 0, -1):
        short = f"{', '.join(names[:kept])} +{len(names) - kept}"
        if cells(short) <= width:
            return short
    return f"{text[: max(1, width - 3)].rstrip()}..."


def _row(diagnosis: Diagnosis) -> tuple[str, ...]:
    run = diagnosis.run
    recorded = wording.recorded_steps(run)
    loss = wording.main_loss(run)
    ends = [wording.number(float(loss.values[i])) for i in (0, -1)] if loss is not None else ["-"]
    return (
        str(diagnosis.verdict),
        clean(run.path),
        clean(run.format),
        wording.counted(recorded[2] if recorded else 0, "step"),
        f"loss {' -> '.join(ends)}",
        _in_short(diagnosis),
    )


def _next(diagnoses: Sequence[Diagnosis]) -> Iterator[Line]:
    """The page of the worst run, and what its worst finding means."""
    worst = worst_first(diagnoses)[0]
    commands = [wording.command(worst.run.path)]
    if worst.findings and worst.findings[0].severity > Severity.INFO:
        commands.append(f"nndiag explain {worst.findings[0].name}")
    for index, command in enumerate(commands):
        label = "next" if index == 0 else ""
        yield (Span(label.ljust(LABEL), Role.DIM), Span(clean(command), Role.COMMAND))
