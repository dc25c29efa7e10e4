"""The lower edge of the terminal, kept free for the live view while the script writes above it.

The terminal itself does the work: a scroll region ends above the view, and the script's bytes go
through untouched, so that tqdm, colours, `input()` and unfinished lines are what they always are.
Nothing here writes: each method gives the bytes that do it.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

SAVE, RESTORE = b"\x1b7", b"\x1b8"  # cursor and colours
BEGIN, END = b"\x1b[?2026h", b"\x1b[?2026l"  # shown at once, by terminals that know it
ROWS_FOR_SCRIPT = 8  # at least; a lower terminal has no view
NARROWEST = 50

# What a script writes that takes the screen for itself: the alternate screen, a scroll region, a
# reset, addressing (but "home", with which `clear` begins), or the one place for a saved cursor.
TAKES_OVER = re.compile(
    rb"\x1b(?:\[\?(?:1049|1047|47)h|\[[0-9]*;?[0-9]*r|c|7|\[s|\[[0-9]+d|"
    rb"\[(?!1;1[Hf])[0-9]+(?:;[0-9]*)?[Hf])"
)
# The start of a sequence or of a character, with the rest still to come.
UNFINISHED = re.compile(
    rb"(?:\x1b(?:\[[0-?]*[ -/]*|[()*+#% ]|[\]P][^\x07\x1b]{0,200}\x1b?)?"
    rb"|[\xc2-\xdf]|[\xe0-\xef][\x80-\xbf]?|[\xf0-\xf4][\x80-\xbf]{0,2})\Z"
)
LONGEST_UNFINISHED = 256  # bytes


class Output:
    """The script's bytes on their way: never cut where we draw, never past a take-over."""

    def __init__(self) -> None:
        self.takes_over = False
        self._held = b""

    def pass_on(self, chunk: bytes) -> bytes:
        """What can be written now; `takes_over` once the script wants the screen for itself."""
        chunk = self._held + chunk
        self._held = b""
        if self.takes_over:
            return chunk
        if b"\x1b" in chunk and TAKES_OVER.search(chunk):
            self.takes_over = True
            return chunk
        start = max(0, len(chunk) - LONGEST_UNFINISHED)
        unfinished = UNFINISHED.search(chunk, start)
        if unfinished is not None:
            self._held = chunk[unfinished.start() :]
            chunk = chunk[: unfinished.start()]
        return chunk

    def rest(self) -> bytes:
        """What was held back: to be written when nothing more comes for a moment."""
        held, self._held = self._held, b""
        return held


class Screen:
    """The rows of the view on a terminal of `rows` by `columns`."""

    def __init__(self, rows: int, columns: int) -> None:
        self.is_open = False
        self._shown: list[bytes] = []
        self._resize(rows, columns)

    def _resize(self, rows: int, columns: int) -> None:
        self.rows, self.columns = rows, columns
        self.height = 12 if rows >= 34 else 9

    @property
    def fits(self) -> bool:
        return self.rows >= self.height + ROWS_FOR_SCRIPT and self.columns >= NARROWEST

    @property
    def rows_for_script(self) -> int:
        return self.rows - self.height if self.fits else self.rows

    def open(self) -> bytes:
        """Free the lower rows, by scrolling if need be, and fence them off."""
        if self.is_open or not self.fits:
            return b""
        self.is_open, self._shown = True, []
        room = b"\n" * self.height + b"\x1b[%dA" % self.height
        return room + SAVE + b"\x1b[1;%dr" % self.rows_for_script + RESTORE

    def close(self) -> bytes:
        """Give the rows back, empty. The cursor stays behind the script's last character."""
        if not self.is_open:
            return b""
        self.is_open = False
        return SAVE + b"\x1b[0m\x1b[r\x1b[%d;1H\x1b[J" % (self.rows_for_script + 1) + RESTORE

    def resize(self, rows: int, columns: int) -> bytes:
        """Open again on a terminal of another size, which may have moved what it showed."""
        was_open, self.is_open = self.is_open, False
        self._resize(rows, columns)
        if not was_open:
            return b""
        # The view lies somewhere below the cursor: clear from the next line on.
        clear = SAVE + b"\x1b[0m\x1b[r" + RESTORE + SAVE + b"\r\x1b[1B\x1b[J" + RESTORE
        return clear + self.open()

    def draw(self, lines: Sequence[str], *, everything: bool = False) -> bytes:
        """Paint the view: the lines that differ from those shown, or all of them."""
        if not self.is_open:
            return b""
        encoded = [line.encode("utf-8", "replace") for line in lines[: self.height]]
        encoded += [b""] * (self.height - len(encoded))
        shown = self._shown if not everything and self._shown else [None] * self.height
        painted = b"".join(
            b"\x1b[%d;1H\x1b[0m\x1b[2K%s" % (self.rows_for_script + 1 + index, line)
            for index, (line, old) in enumerate(zip(encoded, shown, strict=True))
            if line != old
        )
        self._shown = encoded
        return BEGIN + SAVE + painted + b"\x1b[0m" + RESTORE + END if painted else b""
