"""Questions to the terminal: is there one to draw on, and how large is it?"""

from __future__ import annotations

import contextlib
import fcntl
import os
import struct
import sys
import termios
from collections.abc import Mapping

STDIN, STDOUT, STDERR = 0, 1, 2


def can_be_drawn_on(environment: Mapping[str, str]) -> bool:
    """Whether there is a terminal for a view, and a person before it."""
    if environment.get("TERM", "dumb") == "dumb" or "NO_COLOR" in environment:
        return False
    if any(environment.get(name) for name in ("CI", "GITHUB_ACTIONS", "JPY_PARENT_PID")):
        return False
    if any(environment.get(name) == "0" for name in ("TTY_INTERACTIVE", "TTY_COMPATIBLE")):
        return False
    try:
        if not (os.isatty(STDOUT) and os.isatty(STDERR)):
            return False
        if os.fstat(STDOUT).st_rdev != os.fstat(STDERR).st_rdev:
            return False
        "\u256d\u2581\u00b7".encode(sys.stdout.encoding or "ascii")
        # In the background a look at the terminal's settings would stop us.
        return os.tcgetpgrp(STDOUT) == os.getpgrp()
    except (OSError, UnicodeEncodeError, LookupError):
        return False


def control(slave: int) -> None:
    """In the child: make this the controlling terminal of its new session."""
    fcntl.ioctl(slave, termios.TIOCSCTTY, 0)


def window_size(fd: int) -> tuple[int, int]:
    """(rows, columns)"""
    try:
        columns, rows = os.get_terminal_size(fd)
    except OSError:
        return 24, 80
    return rows or 24, columns or 80


def set_window_size(fd: int, rows: int, columns: int) -> None:
    with contextlib.suppress(OSError):
        fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
