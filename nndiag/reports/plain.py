"""A report as plain text: for a pipe, a file, a dumb terminal."""

from __future__ import annotations

from collections.abc import Iterable

from nndiag.reports.lines import Line


def text(lines: Iterable[Line]) -> str:
    """The lines without their roles, nothing but spaces and printable characters."""
    return "".join("".join(span.text for span in line).rstrip() + "\n" for line in lines)
