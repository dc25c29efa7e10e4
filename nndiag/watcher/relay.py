"""Runs the command on a terminal of its own, and draws the live view under what it writes there.

Keys go to the script, its bytes to the screen, whatever happens to the view: a fault in drawing
ends the drawing. The price of a pseudo-terminal is that the script is hung up when we are killed,
which is why only a person's own terminal gets one.
"""

from __future__ import annotations

import contextlib
import errno
import os
import pty
import select
import signal
import subprocess
import termios
import time
import tty
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, Protocol

from nndiag.watcher.command import Command
from nndiag.watcher.screen import Output, Screen
from nndiag.watcher.supervisor import Ending, Tick, forwarding, start
from nndiag.watcher.terminal import STDIN, STDOUT, control, set_window_size, window_size

DRAW_EVERY_S = 0.25
PAINT_EVERY_S = 2.0  # all of the view, should something have damaged it
VIEW_AFTER_S = 0.7  # a script that ends sooner is not bothered with a view
HELD_S = 0.05  # how long half an escape sequence waits for its other half
TICK_S = 0.5
POLL_S = 0.1
DRAIN_S = 5.0
READ_BYTES = 1 << 16


class View(Protocol):
    """What is drawn."""

    def lines(self, columns: int, rows: int) -> Sequence[str]:
        """The newest state as `rows` lines of text and colours, none wider than `columns`."""


def run_on_terminal(
    command: Command, environment: Mapping[str, str], tick: Tick, view: View
) -> Ending:
    """Start the command on a new pseudo-terminal, relay until it ends. Our terminal is restored."""
    relay = _Relay(view, tick)
    began = time.monotonic()
    with relay.child_of(command, environment) as child:
        try:
            relay.loop(child)
        except Exception:  # a fault of ours must not hang the script up: go on with less
            relay.stop_drawing()
            relay.loop(child)
    return Ending.of(child.returncode, time.monotonic() - began)


class _Relay:
    def __init__(self, view: View, tick: Tick) -> None:
        self._view = view
        self._tick = tick
        self._has_keys = os.isatty(STDIN)
        self._screen = Screen(*window_size(STDOUT))
        self._output = Output()
        self._keys = b""  # typed, not taken by the script yet
        self._at_line_start = True
        self._resized = False
        self._can_draw = True
        self._terminal_gone = False
        self._master = -1
        self._settings: list[Any] | None = None  # of our terminal, before
        now = time.monotonic()
        self._began_s = self._heard_s = self._ticked_s = self._drawn_s = self._painted_s = now

    @contextlib.contextmanager
    def child_of(
        self, command: Command, environment: Mapping[str, str]
    ) -> Iterator[subprocess.Popen[bytes]]:
        """The command on its terminal, ours in raw mode; afterwards all is as it was."""
        self._master, slave = pty.openpty()
        if self._has_keys:
            self._settings = termios.tcgetattr(STDIN)
            termios.tcsetattr(
                slave, termios.TCSANOW, self._settings
            )  # the same erase key, the same echo
        set_window_size(slave, self._screen.rows_for_script, self._screen.columns)
        try:
            child = start(
                command,
                environment,
                stdin=slave if self._has_keys else None,
                stdout=slave,
                new_session=True,
                # its controlling terminal, so that Ctrl-C arrives as SIGINT
                before_exec=lambda: control(slave),
            )
        except BaseException:
            os.close(self._master)
            raise
        finally:
            os.close(slave)
        os.set_blocking(self._master, False)

        def send(number: int) -> None:
            # What a terminal would send goes to all that the script started, the rest to it alone.
            if number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
                os.killpg(child.pid, number)
            else:
                child.send_signal(number)

        resize = signal.signal(signal.SIGWINCH, self._on_resize)
        try:
            with forwarding(send):
                self._raw()
                yield child
        finally:
            self._write(self._screen.close() + (b"" if self._at_line_start else b"\r\n"))
            self._restore()
            signal.signal(signal.SIGWINCH, resize)
            os.close(self._master)

    def loop(self, child: subprocess.Popen[bytes]) -> None:
        """Until the script has ended and all that it wrote is on the screen."""
        ends = [self._master, *([STDIN] if self._has_keys else [])]
        until = None  # then something that outlives the script is not listened to any more
        while True:
            ended = child.poll() is not None  # before the look: what it wrote last comes after this
            if ended and until is None:
                until = time.monotonic() + DRAIN_S
            readable = self._wait(ends, POLL_S)
            if self._master in readable and not self._take_output():
                ends.remove(self._master)
            if STDIN in readable and not self._take_keys(child):
                ends.remove(STDIN)
            self._send_keys()
            if until and (self._master not in readable or time.monotonic() > until):
                self._write(self._output.rest())
                return
            if self._master not in ends and not ended:  # it closed its streams and lives on
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(TICK_S)
            self._do_what_is_due(child, time.monotonic())

    def _do_what_is_due(self, child: subprocess.Popen[bytes], now: float) -> None:
        if now - self._heard_s > HELD_S:
            self._write(self._output.rest())
        if self._resized:
            self._fit()
        if now - self._ticked_s >= TICK_S:
            self._ticked_s = now
            self._tick(child)
        if now - self._drawn_s >= DRAW_EVERY_S and now - self._began_s >= VIEW_AFTER_S:
            self._drawn_s = now
            everything = now - self._painted_s >= PAINT_EVERY_S
            if everything:
                self._painted_s = now
            self._draw(everything)

    # -- the script's output

    def _take_output(self) -> bool:
        """Show what the script wrote; False when nobody can write there any more."""
        try:
            chunk = os.read(self._master, READ_BYTES)
        except BlockingIOError:
            return True
        except OSError as error:
            if error.errno == errno.EIO:  # Linux: the last writer has gone
                return False
            raise
        if chunk:
            self._heard_s = time.monotonic()
            self._show(chunk)
        return bool(chunk)

    def _show(self, chunk: bytes) -> None:
        passed = self._output.pass_on(chunk)
        if self._output.takes_over and self._can_draw:
            self.stop_drawing()
        self._write(passed)
        if passed:
            self._at_line_start = passed.endswith(b"\n")

    def _write(self, content: bytes) -> None:
        """All of it on the screen; nowhere, once our terminal has gone."""
        rest = memoryview(content)
        while rest and not self._terminal_gone:
            try:
                rest = rest[os.write(STDOUT, rest) :]
            except BlockingIOError:
                select.select([], [STDOUT], [])
            except OSError:
                self._terminal_gone = True

    # -- the view

    def _draw(self, everything: bool) -> None:
        if not self._can_draw or self._terminal_gone:
            return
        try:
            opened = self._screen.open()
            if self._screen.is_open:
                lines = self._view.lines(self._screen.columns, self._screen.height)
                self._write(opened + self._screen.draw(lines, everything=everything))
        except Exception:  # a view is worth less than the run under it
            self.stop_drawing()

    def stop_drawing(self) -> None:
        """Give the whole screen to the script, for the rest of the run."""
        self._can_draw = False
        self._write(self._screen.close())
        set_window_size(self._master, self._screen.rows, self._screen.columns)

    def _on_resize(self, number: int, frame: FrameType | None) -> None:
        self._resized = True

    def _fit(self) -> None:
        self._resized = False
        rows, columns = window_size(STDOUT)
        self._write(self._screen.resize(rows, columns))
        rows = self._screen.rows_for_script if self._can_draw else rows
        set_window_size(self._master, rows, columns)  # the kernel tells the script

    # -- keys

    def _take_keys(self, child: subprocess.Popen[bytes]) -> bool:
        """Take what was typed; False when nothing can come any more."""
        try:
            typed = os.read(STDIN, 4096)
        except (BlockingIOError, InterruptedError):
            return True
        except OSError:
            typed = b""
        if not typed:
            return False
        suspend = self._suspend_key()
        if suspend and suspend in typed:
            typed = typed.replace(suspend, b"")
            self._suspend(child)
        self._keys += typed
        return True

    def _send_keys(self) -> None:
        if self._keys:
            with contextlib.suppress(OSError):  # full: the script is not reading; later
                self._keys = self._keys[os.write(self._master, self._keys) :]

    def _suspend_key(self) -> bytes:
        """The key that suspends, if the script's terminal takes it for that; Ctrl-Z."""
        try:
            settings = termios.tcgetattr(self._master)
        except termios.error:
            return b""
        key = settings[6][termios.VSUSP]
        return (
            key if settings[3] & termios.ISIG and isinstance(key, bytes) and key != b"\0" else b""
        )

    def _suspend(self, child: subprocess.Popen[bytes]) -> None:
        """Stop the script and ourselves, give the shell its terminal; go on when it says so."""
        os.killpg(child.pid, signal.SIGSTOP)  # no shell stands behind its session: SIGTSTP is lost
        was_open = self._screen.is_open
        self._write(self._screen.close())
        self._restore()
        os.killpg(os.getpgrp(), signal.SIGTSTP)
        # Here the shell has continued us.
        self._raw()
        self._screen = Screen(*window_size(STDOUT))
        if was_open:
            self._write(self._screen.open())
        os.killpg(child.pid, signal.SIGCONT)

    # -- our terminal

    def _raw(self) -> None:
        if self._settings is not None:
            tty.setraw(STDIN, termios.TCSADRAIN)

    def _restore(self) -> None:
        if self._settings is not None:
            with contextlib.suppress(termios.error):
                termios.tcsetattr(STDIN, termios.TCSADRAIN, self._settings)

    def _wait(self, open_ends: list[int], seconds: float) -> list[int]:
        if not open_ends:
            return []
        writers = [self._master] if self._keys else []
        readable, _, _ = select.select(open_ends, writers, [], seconds)
        return readable
