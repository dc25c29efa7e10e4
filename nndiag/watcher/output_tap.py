"""Reads the metrics that a script prints, as it prints them.

Validation losses pass through no hook; scripts print them. The stream object stays the same: only
its `write` is looked up on the instance first, and that is ours, which hands on every character.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TextIO

from nndiag.vocabulary import canonical, numbers_in

MAX_LINE = 4096  # characters of one line that are looked at
MAX_TEXT = 1 << 16  # and of one write
Wrap = Callable[[Callable[..., Any]], Callable[..., Any]]
KEPT = ("val_loss", "val_accuracy", "accuracy", "loss", "epoch")


class OutputTap:
    """Listens to one text stream and reports (name, value) of what is printed on it."""

    def __init__(self, stream: TextIO, report: Callable[[str, float], None]) -> None:
        self._stream = stream
        self._report = report
        self._line = ""
        self._write = stream.write

    def install(self, guard: Wrap, exempt: Wrap) -> None:
        """Begin to listen. `exempt` has compilers leave a function of ours alone."""
        listen = guard(self._listen)
        write = self._write

        def write_and_listen(*text: Any) -> Any:
            written = write(*text)
            listen(*text)
            return written

        # A stream of another kind may take no attributes: then it stays unheard.
        with contextlib.suppress(AttributeError):
            self._stream.write = exempt(write_and_listen)  # type: ignore[method-assign]

    def _listen(self, text: Any) -> None:
        if not isinstance(text, str):
            return
        text = text[-MAX_TEXT:]
        if "\n" not in text and "\r" not in text:
            self._line = (self._line + text)[:MAX_LINE]
            return
        *lines, self._line = (self._line + text).replace("\r", "\n").split("\n")
        self._line = self._line[:MAX_LINE]
        for line in lines[-50:]:
            for name, value in numbers_in(line[:MAX_LINE]):
                if canonical(name) in KEPT:
                    self._report(name, value)
