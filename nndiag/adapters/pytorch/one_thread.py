"""The thread whose training is observed. What a step shows is kept in one place, for one thread.

Where several threads train at once (trials of a search, agents), one is observed and the others
are let alone: their numbers would get mixed up. A thread that took over from one that ended or fell
idle is observed instead.
"""

from __future__ import annotations

import sys
import threading
from _thread import get_ident
from collections.abc import Callable
from time import perf_counter as _clock  # bound here: a script may patch time
from types import FrameType
from typing import Any

import torch

from nndiag.adapters.pytorch.quiet import in_backward, leave_to_python

# A thread that waits for nobody trains no more after this; our own choice.
IDLE_S = 5.0
IDLE_GAPS = 3.0  # times its longest pause
AWAITING = {
    ("threading", "join"),
    ("concurrent.futures._base", "result"),
    ("concurrent.futures._base", "wait"),
    ("concurrent.futures._base", "as_completed"),
    ("concurrent.futures.thread", "shutdown"),
}
AT_ONCE = "several threads train at the same time: only one of them was observed"


class OneThread:
    """Chooses the thread, and says whether an event comes from another one.

    Asked before the guard: inside of it one thread would keep another one's events out.
    """

    def __init__(self, guard: Callable[[Callable[..., None]], Callable[..., None]]) -> None:
        self._failed = guard(_raise)  # counts as a fault of ours
        self.news: list[str] = []  # to be noted
        self.changed = False  # another thread was chosen: the step under way was another's
        self._chosen = 0
        self._trained = False  # it made a backward call
        self._stepped = False  # and a step after it
        self._known: set[int] = set()  # threads that made a backward call
        self._seen_s = 0.0  # when it made a backward call or a step
        self._gap_s = 0.0  # its longest pause
        self._left_out = 0  # their steps since this one was chosen
        self._told = False

    def only(
        self, function: Callable[..., None], ask: Callable[[], bool] | None = None
    ) -> Callable[..., None]:
        """`function`, called for events of the chosen thread only: those that `ask` leaves in."""
        ask = ask or self.is_other

        def entry(*args: Any, **kwargs: Any) -> None:
            if torch.compiler.is_compiling():  # first: anything else would be traced
                return
            try:
                leaves_out = ask()
            except Exception as error:
                self._failed(error)
                return
            if not leaves_out:
                function(*args, **kwargs)

        return leave_to_python(entry)

    def is_other(self) -> bool:
        """Whether this is another thread than the chosen one, and none of torch's own."""
        thread = get_ident()
        if not self._chosen:
            self._choose(thread)
        if thread == self._chosen:
            return False
        return not (in_backward() and not _is_pythons(thread))

    def leaves_out_backward(self) -> bool:
        """A backward call begins: whether to leave it out.

        A thread that begins to train while the chosen one is between two steps is chosen instead:
        most often that one waits for it. Of several at once each can do so only once.
        """
        if self.is_other():
            is_new = get_ident() not in self._known
            self._known.add(get_ident())
            if self._trained and not (is_new and self._stepped) and not self._is_over():
                return True
            if self._left_out:
                self.news.append(f"training moved to another thread: {self._left_out} steps lost")
            self._choose(get_ident())
            self.changed = True
        if get_ident() == self._chosen:
            self._known.add(self._chosen)
            self._trained, self._stepped = True, False
            self._seen()
        return False

    def leaves_out_step(self) -> bool:
        """An optimizer's step begins. Some threads step for those that call backward."""
        if get_ident() == self._chosen:
            self._stepped = True
            self._seen()
        elif get_ident() in self._known and self.is_other():
            self._left_out += 1
            return True
        return False

    def _choose(self, thread: int) -> None:
        self._chosen, self._stepped = thread, False
        self._seen_s, self._gap_s, self._left_out = _clock(), 0.0, 0

    def _seen(self) -> None:
        now = _clock()
        self._gap_s = max(self._gap_s, now - self._seen_s)
        self._seen_s = now
        if self._left_out and not self._told:
            self._told = True
            self.news.append(AT_ONCE)

    def _is_over(self) -> bool:
        """Whether the chosen thread has ended, or trains no more."""
        frame = sys._current_frames().get(self._chosen)
        if frame is None or _awaits_a_thread(frame):
            return True
        return _clock() - self._seen_s > max(IDLE_S, IDLE_GAPS * self._gap_s)


def _raise(error: Exception) -> None:
    raise error


def _awaits_a_thread(frame: FrameType | None, depth: int = 4) -> bool:
    """Whether a thread sits in `Thread.join`, or in what waits for the result of a future."""
    while frame is not None and depth:
        if (frame.f_globals.get("__name__"), frame.f_code.co_name) in AWAITING:
            return True
        frame, depth = frame.f_back, depth - 1
    return False


def _is_pythons(thread: int) -> bool:
    """Whether Python started the thread: autograd has some of its own for each device."""
    known = threading._active.get(thread)  # type: ignore[attr-defined]
    return known is not None and not isinstance(known, threading._DummyThread)
