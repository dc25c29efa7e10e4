"""A report on a terminal, in colour. The only report that knows rich.

Texts are handed to rich as `Text`, never as markup: a layer named "[red]" stays a layer.
Only the eight basic colours are used, which every theme, dark or light, maps to readable ones.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TextIO

from rich.console import Console
from rich.text import Text

from nndiag.reports.lines import Line, Role

STYLE = {
    Role.PLAIN: "",
    Role.DIM: "dim",
    Role.STRONG: "bold",
    Role.VALUE: "bold",
    Role.COMMAND: "bold cyan",
    Role.CURVE: "cyan",
    Role.EVENT: "bold red",
    Role.HEALTHY: "bold green",
    Role.INFO: "cyan",
    Role.WARNING: "bold yellow",
    Role.CRITICAL: "bold red",
    Role.UNDECIDED: "bold magenta",
}


def console(stream: TextIO) -> Console:
    """A console that obeys NO_COLOR and FORCE_COLOR, and adds nothing of its own to the text."""
    return Console(file=stream, highlight=False, markup=False, emoji=False, soft_wrap=True)


def show(lines: Iterable[Line], stream: TextIO) -> None:
    """Print the lines in colour, as far as `stream` and the environment allow it."""
    printer = console(stream)
    for line in lines:
        text = Text(end="\n")
        for span in line:
            text.append(span.text, style=STYLE[span.role] or None)
        printer.print(text)
