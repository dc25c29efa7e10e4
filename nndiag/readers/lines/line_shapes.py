"""Printed lines that differ in their digits alone: read by a pattern that was learnt from one.

`numbers_in` works for any line, and slowly. A log prints the same line a million times with other
numbers, so after some of them we ask `numbers_in` what each number of it does: we replace it by
others, long and short, and look what changes. A number that comes out as itself, or not at all,
may vary in the pattern; any other stays as it is. So the pattern gives what `numbers_in` gives.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from nndiag.readers.tables.row_batches import Shape

Pairs = list[tuple[str, float]]
Alike = tuple[Shape | None, list[tuple[str, ...]], int]

SEEN = 16  # lines that are alike before we learn from one: it costs as much as reading 200
MOST_SHAPES = 24  # patterns that are tried; the one that fitted last comes first
MOST_ALIKE = 4096  # kinds of lines that are counted
MOST_LESSONS = 200  # of a log: each takes some milliseconds
MOST_NUMBERS = 40  # in a line
LONGEST = 800  # characters of a line: with the longest numbers still far below MAX_LINE

_TOKEN = re.compile(r"(?:(?<![^\s=:(\['\"|,])-)?[0-9]+(?:\.[0-9]+)?(?:[eE][-+]?[0-9]+)?")
_WHOLE = r"[0-9]{1,15}"
_REAL = r"[0-9]{1,15}(?:\.[0-9]{1,20}(?:[eE][-+]?[0-9]{1,3})?|[eE][-+]?[0-9]{1,3})"
_WHOLES = ("7310", "4", "21", "0", "538", "2026", "98765", "12345678", "123456789012345")
_REALS = (
    "0.4375", "7.0", "12.5", "340.125", "1234.5678", "1e-05", "2.5e+10", "3.25E-7",
    "98765432109876.01234567890123456789",
)  # fmt: skip
_SIGNED = (*_REALS, "-0.5625", "-1e-07", "-1234.56789")


@dataclass(frozen=True, slots=True)
class _Slot:
    """A number of the line that may vary."""

    pattern: str
    probes: Sequence[str]
    feeds: tuple[int, ...]  # the pairs whose value it is; none where it is not looked at


@dataclass(frozen=True, slots=True)
class Learnt:
    """Lines of one shape, and what to do with them."""

    pattern: re.Pattern[str]  # of a whole line with its end; the groups are the cells of `shape`
    shape: Shape | None  # None: such a line is passed over


class LineShapes:
    """The shapes of the lines of one log.

    `parse` is `numbers_in`; `wanted` says which of the pairs of a line are to be kept, by their
    names alone.
    """

    def __init__(
        self, parse: Callable[[str], Pairs], wanted: Callable[[Sequence[str]], Sequence[int]]
    ) -> None:
        self._parse, self._wanted = parse, wanted
        self._learnt: list[Learnt] = []
        self._alike: Counter[str] = Counter()
        self._lessons = 0

    def lines_at(self, text: str, at: int) -> Alike | None:
        """The lines of one known shape that begin at `at`: it, the cells of each, where they end.

        None if the line there is of no shape that we know, or has no end.
        """
        for i, one in enumerate(self._learnt):
            found = one.pattern.match(text, at)
            if found:
                if i:
                    self._learnt.insert(0, self._learnt.pop(i))
                cells, end = [found.groups()], found.end()
                next_line = one.pattern.scanner(text, end).match  # type: ignore[attr-defined]
                for found in iter(next_line, None):
                    cells.append(found.groups())
                    end = found.end()
                return one.shape, cells, end
        return None

    def learn_from(self, line: str) -> None:
        """Look at a line of no known shape."""
        if self._lessons >= MOST_LESSONS or len(line) > LONGEST:
            return
        alike, numbers = _TOKEN.subn("0", line)
        if not 0 < numbers <= MOST_NUMBERS:
            return
        count = self._alike[alike] = self._alike[alike] + 1
        # lines that are alike may still differ: 1 and 1.0, nan; so there is another lesson later
        if count >= SEEN and count.bit_count() == 1:
            self._lessons += 1
            learnt = _learnt_from(line, self._parse, self._wanted)
            if learnt is not None:
                self._learnt.insert(0, learnt)
                del self._learnt[MOST_SHAPES:]
        elif len(self._alike) > MOST_ALIKE:
            self._alike.clear()


def _learnt_from(
    line: str,
    parse: Callable[[str], Pairs],
    wanted: Callable[[Sequence[str]], Sequence[int]],
) -> Learnt | None:
    """What one line teaches; None if its numbers do not do alone and together what we think."""
    lesson = _Lesson(line, parse)
    slots = [lesson.slot(i) for i in range(len(lesson.spans))]
    if any(slot and len(slot.feeds) > 1 for slot in slots) or not lesson.holds_for(slots):
        return None
    names = [name for name, _ in lesson.pairs]
    kept = [pair for pair in wanted(names) if pair == names.index(names[pair])]
    pattern, at = "", 0
    order: list[int] = []  # the pair of each cell
    for (start, end), slot in zip(lesson.spans, slots, strict=True):
        if slot is None:
            continue
        is_kept = bool(slot.feeds) and slot.feeds[0] in kept
        group = f"({slot.pattern})" if is_kept else f"(?:{slot.pattern})"
        pattern += re.escape(line[at:start]) + group
        order += slot.feeds if is_kept else ()
        at = end
    whole = re.compile(pattern + re.escape(line[at:]) + "\n")
    # NaN, and what we do not dare to let vary
    fixed = [pair for pair in kept if pair not in order]
    constants = [lesson.pairs[pair][1] for pair in fixed]
    order += fixed
    named = [names[pair] for pair in order]
    return Learnt(whole, Shape(named, constants=constants, places=order) if order else None)


class _Lesson:
    """A line, and what comes of it when some of its numbers are others."""

    def __init__(self, line: str, parse: Callable[[str], Pairs]) -> None:
        self.line, self.parse = line, parse
        self.spans = [match.span() for match in _TOKEN.finditer(line)]
        self.pairs = parse(line)

    def slot(self, i: int) -> _Slot | None:
        """How the i-th number may vary; None if it must not."""
        text = self.line[slice(*self.spans[i])]
        digits = len(text)
        if not text.isdigit():
            choices: list[tuple[str, Sequence[str]]] = [(_REAL, _REALS)]
            if text.startswith("-") or _may_have_sign(self.line, self.spans[i][0]):
                choices.insert(0, (f"-?{_REAL}", _SIGNED))
        else:
            # of a date or a clock only the number of its digits is fixed
            same = tuple(str(n)[-digits:].zfill(digits) for n in (12, 59, 731, 1000, 987654))
            choices = [(_WHOLE, _WHOLES), (f"[0-9]{{{digits}}}", same)]
        for pattern, probes in choices:
            feeds = self._feeds(i, probes[0])
            slot = None if feeds is None else _Slot(pattern, probes, feeds)
            if (
                slot
                and re.fullmatch(pattern, text)
                and all(self._is_so({i: (slot, probe)}) for probe in probes)
            ):
                return slot
        return None

    def _feeds(self, i: int, probe: str) -> tuple[int, ...] | None:
        """The pairs that change with the i-th number, if they become it."""
        found = self.parse(self._with({i: probe}))
        if [name for name, _ in found] != [name for name, _ in self.pairs]:
            return None
        changed = [j for j, pair in enumerate(found) if repr(pair) != repr(self.pairs[j])]
        return tuple(changed) if all(found[j][1] == float(probe) for j in changed) else None

    def holds_for(self, slots: Sequence[_Slot | None]) -> bool:
        """Numbers that vary together do what each of them does alone."""
        free = [(i, slot) for i, slot in enumerate(slots) if slot]
        return all(
            self._is_so({i: (slot, probe) for (i, slot), probe in zip(free, probes, strict=True)})
            for probes in _trials([slot.probes for _, slot in free])
        )

    def _is_so(self, changes: dict[int, tuple[_Slot, str]]) -> bool:
        expected = list(self.pairs)
        for slot, probe in changes.values():
            for pair in slot.feeds:
                expected[pair] = (expected[pair][0], float(probe))
        found = self.parse(self._with({i: probe for i, (_, probe) in changes.items()}))
        return repr(found) == repr(expected)

    def _with(self, changes: dict[int, str]) -> str:
        line = self.line
        for i in sorted(changes, reverse=True):
            start, end = self.spans[i]
            line = line[:start] + changes[i] + line[end:]
        return line


def _may_have_sign(line: str, start: int) -> bool:
    return start == 0 or line[start - 1] in " \t=:(['\"|,"


def _trials(probes: Sequence[Sequence[str]]) -> Iterator[list[str]]:
    """Texts for all slots at once: all short, all long, neighbours of any lengths, and a mix."""
    yield [min(own, key=len) for own in probes]
    yield [max(own, key=len) for own in probes]
    mix = random.Random(0)
    for i in range(len(probes) - 1):
        for left in probes[i]:
            for right in mix.sample(list(probes[i + 1]), 3):
                trial = [own[0] for own in probes]
                trial[i : i + 2] = [left, right]
                yield trial
    for _ in range(20):
        yield [mix.choice(own) for own in probes]
