"""What a search of a folder left out, counted by reason: a hundred files are a few lines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from nndiag.errors import NndiagError
from nndiag.reports import wording
from nndiag.reports.lines import Line, Role, Span, labelled
from nndiag.reports.wording import clean

REASONS_SHOWN = 8
EXAMPLES = 3  # files for each reason
NAME_IT = "name it: "  # advice that can be followed for a file that a search has found
# What differs between two reasons of one kind: names, paths, numbers.
_DETAIL = re.compile(r"'[^']*'|\"[^\"]*\"|\S*[/#]\S*|\d[\d.]*")


def left_out_lines(
    skipped: Sequence[NndiagError], width: int, verbose: bool = False
) -> Iterator[Line]:
    """What a search left out: counted by reason, or with `verbose` file by file."""
    if verbose:
        told = [f"{clean(one.where)}: {wording.told(one.what)}" for one in skipped]
        yield from labelled("left out", [[Span(text, Role.DIM)] for text in told], width)
        return
    groups: dict[str, list[NndiagError]] = {}
    for one in skipped:
        groups.setdefault(_DETAIL.sub("...", one.what), []).append(one)
    ordered = sorted(groups.values(), key=len, reverse=True)
    entries: list[list[Span]] = []
    if len(skipped) > EXAMPLES:
        total = f"{wording.counted(len(skipped), 'file')}; each one: --verbose, or --json"
        entries.append([Span(total, Role.DIM)])
    digits = len(str(len(ordered[0]))) if ordered else 0
    for group in ordered[:REASONS_SHOWN]:
        entries += _reason(group, digits)
    if rest := sum(map(len, ordered[REASONS_SHOWN:])):
        entries.append([Span(f"{rest:>{digits}} for other reasons", Role.DIM)])
    yield from labelled("left out", entries, width)


def _reason(group: Sequence[NndiagError], digits: int) -> Iterator[list[Span]]:
    """How many were left out for one reason, some of them, and what can be done about the first."""
    first = group[0]
    if len(group) == 1:
        yield [Span(f"{clean(first.where)}: {wording.told(first.what)}", Role.DIM)]
    else:
        same = all(one.what == first.what for one in group)
        what = wording.told(first.what if same else _DETAIL.sub("...", first.what))
        _, names = wording.short_names([one.where for one in group])
        listed = wording.listed(names, EXAMPLES)
        yield [Span(f"{len(group):>{digits}} {what}: {listed}", Role.DIM)]
    if first.do.startswith(NAME_IT):
        yield [Span(f"{' ' * digits} {clean(first.do)}", Role.DIM)]
