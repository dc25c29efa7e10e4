"""Texts that make a regular expression work hard, made from the expression itself.

Backtracking costs most where a text goes on and on matching what may be repeated and then does not
match what has to follow. So for each repetition in a pattern: an example of what comes before it,
then what it repeats, again and again, and nothing after that.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from typing import Any

if sys.version_info >= (3, 11):
    from re import _constants as sre  # type: ignore[attr-defined]
    from re import _parser as parser  # type: ignore[attr-defined]
else:
    import sre_constants as sre  # type: ignore[no-redef]
    import sre_parse as parser  # type: ignore[no-redef]

# Repeated by themselves, for all patterns: what numbers, names, times and escapes are made of.
UNITS = (
    "a", "A", "1", " ", ".", "-", "+", "e", "n", "i", ",", ":", "/", '"', "[", "(", "_", "\t", "é",
    "{", "=", "%", "|", "\n", "\x1b[", "\x1b]", "1.", "1e", "1,", "1,111", "1:", "11:", "aA", "a1",
    ". ", "-1", "1/", "[[", "[1/", "a ", "a.", "a-", "\x1b[1;", "nan", "inf", "+.", "1e+", "loss ",
    "1 /", "1-11", "| ", " - ", "a=1 ", "a: 1, ", '"a": ',
)  # fmt: skip


def attacks(pattern: re.Pattern[Any], size: int) -> Iterator[str]:
    """Texts of about `size` characters."""
    for unit in UNITS:
        yield (unit * size)[:size]
    text = pattern.pattern if isinstance(pattern.pattern, str) else pattern.pattern.decode()
    flags = pattern.flags & ~re.UNICODE if isinstance(pattern.pattern, bytes) else pattern.flags
    for before, unit in set(_repetitions(parser.parse(text, flags & ~re.DEBUG), "")):
        if unit:
            yield before + (unit * size)[:size]
            yield (before + unit * 3) * (size // len(before + unit * 3))
            yield before + (unit * size)[:size] + "\0"


def _repetitions(parsed: Any, before: str) -> Iterator[tuple[str, str]]:
    """(example of what comes before, what is repeated) for each repetition."""
    for operation, argument in parsed:
        if operation in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            _, most, inner = argument
            if most > 8:
                for unit in {_example([(operation, (1, 1, inner))]), *_characters(inner)}:
                    yield before, unit
            yield from _repetitions(inner, before)
        elif operation is sre.SUBPATTERN:
            yield from _repetitions(argument[-1], before)
        elif operation is sre.BRANCH:
            for branch in argument[1]:
                yield from _repetitions(branch, before)
        before += _example([(operation, argument)])


def _characters(parsed: Any) -> set[str]:
    """Characters that a repeated class may stand for, one of each kind."""
    found = set()
    for operation, argument in parsed:
        if operation is sre.IN:
            wanted = re.compile(_class(argument))
            found |= {c for c in "a1_ .-+,:/=[|\t" if wanted.fullmatch(c)}
        elif operation is sre.ANY:
            found |= set("a1 |:,")
    return found


def _class(items: Any) -> str:
    """The source of a character class."""
    parts = []
    for kind, value in items:
        if kind is sre.NEGATE:
            parts.append("^")
        elif kind is sre.LITERAL:
            parts.append(re.escape(chr(value)) if chr(value) != "^" else "\\^")
        elif kind is sre.RANGE:
            parts.append(f"{re.escape(chr(value[0]))}-{re.escape(chr(value[1]))}")
        elif kind is sre.CATEGORY:
            parts.append(_CATEGORIES[str(value)])
    return f"[{''.join(parts)}]"


_CATEGORIES = {
    "CATEGORY_DIGIT": r"\d", "CATEGORY_NOT_DIGIT": r"\D", "CATEGORY_SPACE": r"\s",
    "CATEGORY_NOT_SPACE": r"\S", "CATEGORY_WORD": r"\w", "CATEGORY_NOT_WORD": r"\W",
}  # fmt: skip


def _example(parsed: Any) -> str:
    """A short text that this part of a pattern matches."""
    text = ""
    for operation, argument in parsed:
        if operation is sre.LITERAL:
            text += chr(argument)
        elif operation is sre.NOT_LITERAL:
            text += "b" if argument == ord("a") else "a"
        elif operation is sre.ANY:
            text += "a"
        elif operation is sre.IN:
            wanted = re.compile(_class(argument))
            text += next((c for c in map(chr, range(32, 0x250)) if wanted.fullmatch(c)), "")
        elif operation is sre.BRANCH:
            text += _example(argument[1][0])
        elif operation is sre.SUBPATTERN:
            text += _example(argument[-1])
        elif operation in (sre.MAX_REPEAT, sre.MIN_REPEAT):
            text += _example(argument[2]) * argument[0]
    return text
