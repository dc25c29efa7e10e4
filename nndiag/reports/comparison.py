"""A comparison as lines of words with a role, for plain text and terminal.

A  runs/base/metrics.csv  healthy  1000 steps (0-999)
B  runs/lr3/metrics.csv   warning  1000 steps (0-999)

loss: B is lower by 0.119 ± 0.031 at step 999

4.2 |BAA                      both curves; = where they are the same

curves     loss      0.42 -> 0.301  B is lower by 0.119 ± 0.031
                     lower from step 300 on
findings   appeared  loss-spike  warning  loss, steps 419-441
layers     ...
settings   learning rate  0.1 -> 0.3
band       what ± covers
next       nndiag analyze runs/lr3/metrics.csv
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from nndiag.comparison.facts import Change, Comparison, CurveDifference, Pair, Side
from nndiag.comparison.facts import Outcome as Is
from nndiag.records import Severity
from nndiag.reports import comparison_wording as words
from nndiag.reports import wording
from nndiag.reports.comparison_curve import overlay
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
from nndiag.reports.wording import clean, padded, shortened

LAYERS_SHOWN = 5
LISTED = 6
_CHANGE = {
    Change.APPEARED: Role.WARNING,
    Change.WORSE: Role.WARNING,
    Change.GONE: Role.HEALTHY,
    Change.BETTER: Role.HEALTHY,
    Change.SAME: Role.DIM,
}


def report(
    comparison: Comparison,
    *,
    width: int = FIXED,
    ascii_only: bool = False,
    verbose: bool = False,
) -> list[Line]:
    """All that differs; of many runs their ranking, and the reference against the best."""
    width = max(NARROWEST, min(width, WIDEST))
    lines = [*_sides(comparison.sides, width)]
    if len(comparison.sides) > 2:
        lines += [BLANK, *_ranking(comparison, width)]
    for pair in _shown(comparison, verbose):
        lines.append(BLANK)
        if len(comparison.sides) > 2:
            best = "" if verbose else ", the best other run; all of them: --verbose"
            lines += [(Span(f"{pair.a.mark} against {pair.b.mark}{best}", Role.DIM),)]
        lines += _pair(pair, width, ascii_only, verbose)
    lines += [BLANK, *_end(comparison, width)]
    if ascii_only:
        lines = [tuple(Span(s.text.replace("±", "+-"), s.role) for s in line) for line in lines]
    return lines


def _shown(comparison: Comparison, verbose: bool) -> Sequence[Pair]:
    """Every pair, or of many the one with the best other run."""
    if verbose or len(comparison.pairs) == 1:
        return comparison.pairs
    order = [rank.mark for rank in comparison.ranking]
    others = [mark for mark in order if mark != comparison.sides[0].mark]
    if not others:
        return comparison.pairs[:1]
    return [pair for pair in comparison.pairs if pair.b.mark == others[0]]


def _sides(sides: Sequence[Side], width: int) -> Iterator[Line]:
    rows = [
        (words.side(side, i), diagnosis)
        for side in sides
        for i, diagnosis in enumerate(side.diagnoses)
    ]
    steps = [wording.steps_read(diagnosis.run) for _, diagnosis in rows]
    marks = max(len(mark) for mark, _ in rows)
    room = max(16, width - marks - 4 - 11 - max(map(len, steps)))
    paths = [shortened(clean(diagnosis.run.path), room) for _, diagnosis in rows]
    longest = max(map(wording.cells, paths))
    for (mark, diagnosis), path, read in zip(rows, paths, steps, strict=True):
        role = {"A": Role.CURVE, "B": Role.WARNING}.get(mark[:1], Role.STRONG)
        verdict = Span(str(diagnosis.verdict).ljust(10), VERDICT[diagnosis.verdict])
        yield (
            Span(mark.ljust(marks), role),
            Span("  "),
            Span(padded(path, longest), Role.STRONG),
            Span("  "),
            verdict,
            Span(read, Role.DIM),
        )


def _ranking(comparison: Comparison, width: int) -> Iterator[Line]:
    if not comparison.ranking:
        yield from wrapped([Span("no ranking: the runs have no curve and axis in common")], width)
        return
    at = words.at(comparison.ranking[0].at, comparison.ranked_unit)
    yield (Span(f"{comparison.ranked_by} at {at}, best first", Role.DIM),)
    names = {side.mark: _path(side) for side in comparison.sides}
    for place, rank in enumerate(comparison.ranking, start=1):
        level = words.rank(rank).ljust(22)
        is_reference = " (reference)" if rank.mark == comparison.sides[0].mark else ""
        path = shortened(names[rank.mark], max(12, width - 31 - len(is_reference)))
        yield (
            Span(f"{place}.".ljust(4)),
            Span(rank.mark.ljust(3), Role.STRONG),
            Span(level, Role.VALUE),
            Span(f" {path}{is_reference}"),
        )


def _path(side: Side) -> str:
    more = f" and {len(side.diagnoses) - 1} more" if side.is_several else ""
    return clean(side.diagnoses[0].run.path) + more


def _pair(pair: Pair, width: int, ascii_only: bool, verbose: bool) -> Iterator[Line]:
    yield from wrapped([Span(words.headline(pair), Role.STRONG)], width, hanging=3)
    is_same = bool(pair.curves) and pair.curves[0].difference.outcome is Is.IDENTICAL
    picture = [] if is_same else list(overlay(pair, min(72, width - 16), ascii_only))
    if picture:
        yield BLANK
        yield from picture
    yield BLANK
    yield from _curves(pair, width, verbose)
    yield from _findings(pair, width)
    yield from _layers(pair, width, verbose)
    yield from _settings(pair, width)
    notes = [*pair.notes, *(note for curve in pair.curves for note in curve.notes)]
    entries = [[Span(wording.told(note), Role.DIM)] for note in dict.fromkeys(notes)]
    yield from labelled("notes", entries, width)


def _curves(pair: Pair, width: int, verbose: bool) -> Iterator[Line]:
    shown = [c for c in pair.curves if verbose or c.metric != "other"] or pair.curves[:1]
    names = [shortened(words.name(curve), 24) for curve in shown]
    longest = max((wording.cells(name) for name in names), default=0)
    entries = []
    for curve, name in zip(shown, names, strict=True):
        entries.append([Span(padded(name, longest), Role.STRONG), *_verdict(pair, curve)])
        more = [words.way(pair, curve), words.reached(pair, curve)]
        if curve.metric in ("loss", "val_loss", "accuracy", "val_accuracy"):
            more.append(words.best(pair, curve))
        if curve.difference.outcome is not Is.IDENTICAL:
            indent = " " * (longest + 2)
            entries += [[Span(f"{indent}{text}", Role.DIM)] for text in more if text]
    yield from labelled("curves", entries, width, hanging=longest + 2)
    hidden = len(pair.curves) - len(shown)
    if hidden:
        said = f"{wording.counted(hidden, 'more curve')} of the log's own: --verbose"
        yield from labelled("", [[Span(said, Role.DIM)]], width)
    for mark, names_ in ((pair.a.mark, pair.only_a), (pair.b.mark, pair.only_b)):
        if names_:
            said = f"only in {mark}: {wording.listed(dict.fromkeys(names_), LISTED)}"
            yield from labelled("", [[Span(said, Role.DIM)]], width)


def _verdict(pair: Pair, curve: CurveDifference) -> list[Span]:
    better = words.is_better(curve)
    role = Role.PLAIN if better is None else Role.HEALTHY if better else Role.WARNING
    said = words.verdict(pair, curve)
    if curve.difference.outcome is Is.IDENTICAL:
        return [Span(f" {said}")]
    return [Span(f" {words.levels(curve, pair.unit)} "), Span(said, role)]


def _findings(pair: Pair, width: int) -> Iterator[Line]:
    entries = []
    for one in pair.findings:
        told = one.after if one.after is not None else one.before
        severity = told.severity if told is not None else Severity.INFO
        where = words.change(one, pair)
        entries.append(
            [
                Span(one.change.value.ljust(8), _CHANGE[one.change]),
                Span(clean(one.fingerprint.name), Role.STRONG),
                Span(f" {severity}", SEVERITY[severity]),
                *([Span(f" {where}")] if where else []),
            ]
        )
    if not entries:
        entries = [[Span("none on either side", Role.DIM)]]
    yield from labelled("findings", entries, width, hanging=9)


def _layers(pair: Pair, width: int, verbose: bool) -> Iterator[Line]:
    layers = pair.layers
    told = [one for one in layers.different if verbose or one.is_large]
    shown = told if verbose else told[:LAYERS_SHOWN]
    names = [shortened(clean(one.layer) or "(the model)", 32) for one in shown]
    longest = max(map(wording.cells, names), default=0)
    entries = [
        [Span(padded(name, longest), Role.STRONG), Span(f" {words.layer(pair, one)}")]
        for one, name in zip(shown, names, strict=True)
    ]
    rest = len(layers.different) - len(shown)
    if rest > 0:
        said = f"and {wording.counted(rest, 'smaller difference')} beyond noise: --verbose"
        entries.append([Span(said, Role.DIM)])
    if layers.compared and not entries:
        said = f"no difference beyond noise in {layers.compared} measures of layers"
        entries.append([Span(said, Role.DIM)])
    if layers.renamed:
        pairs = [f"{clean(was)} -> {clean(now)}" for was, now in layers.renamed]
        entries.append([Span(f"renamed: {wording.listed(pairs, LISTED)}")])
    for mark, names_ in ((pair.a.mark, layers.removed), (pair.b.mark, layers.added)):
        if names_:
            entries.append([Span(f"only in {mark}: {wording.listed(names_, LISTED)}")])
    yield from labelled("layers", entries, width)


def _settings(pair: Pair, width: int) -> Iterator[Line]:
    longest = max((wording.cells(clean(one.name)) for one in pair.settings), default=0)
    longest = min(longest, 32)
    entries = [
        [
            Span(padded(clean(one.name), longest), Role.STRONG),
            Span(f" {words.setting(one.a)} |"),
            Span(words.setting(one.b), Role.VALUE),
        ]
        for one in pair.settings
    ]
    if not entries:
        said = "both logs tell none"
        if pair.settings_compared:
            said = f"none of {pair.settings_compared} that both logs tell differs"
        entries = [[Span(said, Role.DIM)]]
    yield from labelled("settings", entries, width)


def _end(comparison: Comparison, width: int) -> Iterator[Line]:
    if band := words.meaning_of_band(comparison):
        yield from labelled("band", [[Span(band, Role.DIM)]], width, hanging=0)
    notes = [[Span(wording.told(note), Role.DIM)] for note in comparison.notes]
    yield from labelled("notes", notes, width)
    worst = next(
        (
            diagnosis
            for pair in comparison.pairs
            for one in pair.findings
            if one.change in (Change.APPEARED, Change.WORSE)
            for diagnosis in pair.b.diagnoses
            if one.after in diagnosis.findings
        ),
        None,
    )
    if worst is not None:
        command = wording.command(clean(worst.run.path))
        yield (Span("next".ljust(LABEL), Role.DIM), Span(command, Role.COMMAND))
    elif all(not side.is_several for side in comparison.sides) and len(comparison.sides) == 2:
        command = "nndiag compare A1 A2 A3 --with B1 B2 B3"
        said = Span(" seeds against seeds", Role.DIM)
        yield (Span("next".ljust(LABEL), Role.DIM), Span(command, Role.COMMAND), said)
