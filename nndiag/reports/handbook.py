"""What nndiag knows, to be read: the page of one finding, and the table of all."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from nndiag.reports.lines import BLANK, FIXED, Line, Role, Span, wrapped
from nndiag.reports.wording import number


def finding_page(
    name: str, page: str, thresholds: Mapping[str, object], width: int = FIXED
) -> Iterator[Line]:
    """A detector's docstring with its headings set off, then its thresholds and how to set them."""
    yield (Span(name, Role.STRONG),)
    yield BLANK
    for line in page.splitlines():
        yield from _docstring_line(line, width)
    if thresholds:
        yield BLANK
        yield (Span("Settings", Role.STRONG),)
        yield (Span(f"    [tool.nndiag.thresholds.{name}]", Role.DIM),)
        for field, value in thresholds.items():
            yield (Span(f"    {field} = {_toml(value)}"),)


def rules_table(headlines: Mapping[str, str], width: int = FIXED) -> Iterator[Line]:
    """Each finding with the first sentence of its page."""
    column = max(map(len, headlines), default=0) + 2
    for name, headline in headlines.items():
        first, *others = wrapped([Span(headline)], width, indent=column)
        yield (Span(name.ljust(column), Role.STRONG), *first[1:])
        yield from others


def _docstring_line(line: str, width: int) -> Iterable[Line]:
    if not line.strip():
        return [BLANK]
    indent = len(line) - len(line.lstrip())
    if indent == 0 and line[0].isupper() and len(line) < 30 and not line.endswith("."):
        return [(Span(line, Role.STRONG),)]
    if len(line) <= width:
        return [(Span(line),)]
    return wrapped([Span(line.strip())], width, indent=indent, hanging=indent + 2)


def _toml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return number(value) if isinstance(value, int | float) else repr(value)
