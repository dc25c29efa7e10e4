"""Two curves over each other, drawn with letters: readable without colours and in any encoding."""

from __future__ import annotations

import math
from collections.abc import Iterator

from nndiag.comparison.facts import Drawn, Pair
from nndiag.reports.comparison_wording import at
from nndiag.reports.curve import LOG_FROM
from nndiag.reports.lines import Line, Role, Span
from nndiag.reports.wording import clean, number

ROWS = 8
BOTH = "="  # where the two are in one cell


def overlay(pair: Pair, columns: int, ascii_only: bool) -> Iterator[Line]:
    """Both curves on one scale, as far as each goes; nothing where they cannot be drawn."""
    drawn = pair.drawn
    if drawn is None:
        return
    of_a, of_b = _fitted(drawn.a, columns), _fitted(drawn.b, columns)
    finite = [value for value in (*of_a, *of_b) if math.isfinite(value)]
    if len(finite) < 4:
        return
    lowest, highest = min(finite), max(finite)
    logarithmic = lowest > 0 and highest >= LOG_FROM * lowest
    scale = math.log10 if logarithmic else float
    bottom, top = scale(lowest), scale(highest)
    span = top - bottom
    if not math.isfinite(span) or span <= 1e-300:
        return
    grid = [[" "] * len(of_a) for _ in range(ROWS)]
    letters = pair.a.mark[0], pair.b.mark[0]
    roles = {letters[0]: Role.CURVE, letters[1]: Role.WARNING}
    for letter, values in zip(letters, (of_a, of_b), strict=True):
        for column, value in enumerate(values):
            if math.isfinite(value):
                row = round((top - scale(value)) / span * (ROWS - 1))
                here = grid[row][column]
                grid[row][column] = letter if here in (" ", letter) else BOTH
    wall, corner, floor = ("|", "+", "-") if ascii_only else ("\u2502", "\u2514", "\u2500")
    labels = [""] * ROWS
    for row in (0, ROWS // 2, ROWS - 1):
        share = top - span * row / (ROWS - 1)
        labels[row] = number(float(f"{10**share if logarithmic else share:.3g}"))
    width = max(map(len, labels))
    for label, cells in zip(labels, grid, strict=True):
        yield (Span(f"{label.rjust(width)} {wall}", Role.DIM), *_coloured("".join(cells), roles))
    yield (Span(f"{' ' * width} {corner}{floor * len(of_a)}", Role.DIM),)
    yield (Span(f"{' ' * width}  {_axis(drawn, pair.unit, len(of_a), logarithmic)}", Role.DIM),)


def _fitted(values: tuple[float, ...], columns: int) -> list[float]:
    """At most `columns` of the values, evenly."""
    if len(values) <= columns:
        return list(values)
    return [values[int(i * len(values) / columns)] for i in range(columns)]


def _axis(drawn: Drawn, unit: str, columns: int, logarithmic: bool) -> str:
    first, last = at(drawn.start, unit), at(drawn.end, unit)
    label = clean(drawn.label) + (", log scale" if logarithmic else "")
    room = columns - len(first) - len(last)
    return f"{first}{label[: max(0, room - 2)].center(room)}{last}"


def _coloured(row: str, roles: dict[str, Role]) -> Iterator[Span]:
    row = row.rstrip()
    start = 0
    for end in range(1, len(row) + 1):
        if end == len(row) or row[end] != row[start]:
            yield Span(row[start:end], roles.get(row[start], Role.PLAIN))
            start = end
