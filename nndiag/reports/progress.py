"""One line on a terminal while many runs are analysed; it goes when they are done.

    analysing  412 of 1000  ━━━━━━━━━╸──────────────  12 critical  85 warning  40 s left

It appears only if the work takes a while, and says nothing that comes from a log.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from typing import TextIO

from rich.live import Live
from rich.text import Text

from nndiag.records import Verdict
from nndiag.reports.lines import FIXED, VERDICT
from nndiag.reports.terminal import STYLE, console

AFTER_S = 0.5  # less is no wait
REFRESHED = 8  # times a second
_BAR = 24  # columns
_SURE_FROM = 3  # runs done before the rest can be estimated
_SHOWN = (Verdict.CRITICAL, Verdict.WARNING, Verdict.UNDECIDED, Verdict.HEALTHY)


class ProgressLine:
    """Counts what is found and judged; as a context it draws that on a terminal."""

    def __init__(self, stream: TextIO, *, ascii_only: bool = False) -> None:
        self._stream = stream
        self._glyphs = "#-" if ascii_only else "━─"
        self._sources = 0
        self._words: Counter[str] = Counter()
        self._began = time.monotonic()
        self._first = 0.0  # when the judging began
        self._live: Live | None = None
        self._lock = threading.Lock()
        self._timer = threading.Timer(AFTER_S, self._appear)
        self._timer.daemon = True

    def __enter__(self) -> ProgressLine:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()
        with self._lock:
            if self._live is not None:
                self._live.stop()
            self._live = None
            self._sources = -1  # a timer that fires now has nothing to show

    def found(self, sources: int) -> None:
        self._sources = sources
        self._first = time.monotonic()

    def judged(self, word: str) -> None:
        self._words[word] += 1

    def _appear(self) -> None:
        with self._lock:
            if self._sources < 0:
                return
            screen = console(self._stream)
            self._live = Live(
                console=screen,
                get_renderable=lambda: self.line(screen.width),
                refresh_per_second=REFRESHED,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._live.start()

    def line(self, width: int = FIXED) -> Text:
        """The line as it stands now, in `width` columns: the bar takes what the words leave."""
        done = sum(self._words.values())
        if not done:
            elapsed = time.monotonic() - self._began
            return Text(f"reading  {_counted(self._sources)} found  {elapsed:.0f} s"[:width])
        words = Text()
        for verdict in _SHOWN:
            if count := self._words[str(verdict)]:
                words.append(f"  {count} {verdict}", style=STYLE[VERDICT[verdict]])
        if count := self._words["unread"]:
            words.append(f"  {count} unread", style="dim")
        if _SURE_FROM <= done < self._sources:
            left = (time.monotonic() - self._first) / done * (self._sources - done)
            words.append(f"  {_duration(left)} left", style="dim")
        told = f"{done} of {self._sources}"
        if len(told) + len(words) + 12 < width:
            told = f"analysing  {told}"
        text = Text(told, no_wrap=True, overflow="ellipsis")
        room = min(_BAR, width - len(text) - len(words) - 3)
        if room > 3:
            full = room * done // max(self._sources, 1)
            text.append(f"  {self._glyphs[0] * full}", style="cyan")
            text.append(self._glyphs[1] * (room - full), style="dim")
        return text.append_text(words)


def _counted(sources: int) -> str:
    return "1 log" if sources == 1 else f"{sources} logs"


def _duration(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:.0f} h"
