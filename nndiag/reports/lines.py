"""Lines of words, each with a role: what a layout is made of, and how it is wrapped."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from nndiag.records import Severity, Verdict

NARROWEST, WIDEST = 40, 120  # columns; longer lines are hard to read
FIXED = 100  # columns where no screen gives a width: a log looks the same tomorrow
LABEL = 11  # columns of "evidence", "remedies", "not judged"


class Role(Enum):
    """What a word is."""

    PLAIN = auto()
    DIM = auto()  # less important
    STRONG = auto()  # a name to remember
    VALUE = auto()  # a number to act on
    COMMAND = auto()  # to be typed
    CURVE = auto()
    EVENT = auto()  # the part of the curve that a finding is about
    HEALTHY = auto()
    INFO = auto()
    WARNING = auto()
    CRITICAL = auto()
    UNDECIDED = auto()


SEVERITY = {
    Severity.INFO: Role.INFO,
    Severity.WARNING: Role.WARNING,
    Severity.CRITICAL: Role.CRITICAL,
}
VERDICT = {
    Verdict.HEALTHY: Role.HEALTHY,
    Verdict.WARNING: Role.WARNING,
    Verdict.CRITICAL: Role.CRITICAL,
    Verdict.UNDECIDED: Role.UNDECIDED,
}


@dataclass(frozen=True, slots=True)
class Span:
    """Some text of one role."""

    text: str
    role: Role = Role.PLAIN


Line = tuple[Span, ...]
BLANK: Line = ()


def wrapped(
    spans: Iterable[Span], width: int, *, indent: int = 0, hanging: int | None = None
) -> list[Line]:
    """Spans, one space between them, broken at spaces; words are never cut.

    The first line starts at column `indent`, the others at `hanging`.
    """
    hanging = indent if hanging is None else hanging
    lines: list[Line] = []
    words: list[Span] = []
    column = indent
    for span in spans:
        for text in span.text.split(" "):
            if words and column + 1 + len(text) > width:
                lines.append(_joined(words, indent if not lines else hanging))
                words, column = [], hanging
            column += len(text) + (1 if words else 0)
            words.append(Span(text, span.role))
    if words:
        lines.append(_joined(words, indent if not lines else hanging))
    return lines


def _joined(words: list[Span], indent: int) -> Line:
    """Words to spans again: neighbours of one role become one span."""
    spans = [Span(" " * indent)] if indent else []
    for index, word in enumerate(words):
        same = index > 0 and spans[-1].role is word.role
        if same:
            spans[-1] = Span(f"{spans[-1].text} {word.text}", word.role)
        else:
            spans += [Span(" ")] * (index > 0) + [word]
    return tuple(spans)


def labelled(
    label: str, entries: Sequence[list[Span]], width: int, *, indent: int = 0, hanging: int = 2
) -> Iterator[Line]:
    """Entries one under another, the label in front of the first."""
    column = indent + LABEL
    for index, entry in enumerate(entries):
        shown = label.ljust(LABEL) if index == 0 else " " * LABEL
        first, *others = wrapped(entry, width, indent=column, hanging=column + hanging)
        yield (Span(" " * indent), Span(shown, Role.DIM), *first[1:])
        yield from others
