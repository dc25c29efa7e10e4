"""Runs a command until its training has made some steps, then ends it with all that it started.

The script stops itself after its last step, as under `--max-steps`. What is left to do here is to
keep its output, to end it where it does not stop (a time limit, a Ctrl-C, a process that waits for
others), and to see that nothing of it goes on: DataLoader workers, ranks, servers.
"""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from nndiag.watcher import supervisor
from nndiag.watcher.command import Command
from nndiag.watcher.supervisor import RUN_VARIABLE, Ending
from nndiag.watcher.tail import RunTail

POLL_S = 0.05
LOOK_S = 0.25  # how often the journal is looked at
# Time to end after the last step. A training that waits for its own helper processes never does.
GRACE_S = 10.0
TRACE_S = 3.0  # to say where it was, after an interrupt
END_S = 3.0  # to end after SIGTERM
VANISH_S = 0.5  # helpers of multiprocessing outlive their parent by a moment

Seen = Callable[[int, float], None]  # told the number of steps and the newest loss


@dataclass(frozen=True, slots=True)
class FirstSteps:
    """How it went."""

    ending: Ending
    steps: int  # of the optimizer that made most
    reached: bool  # it made all steps that were asked for
    timed_out: bool = False
    lingered: bool = False  # it did not end after its last step, and was ended
    interrupted: int = 0  # the signal that we were asked to end by; 0: none
    left_behind: int = 0  # processes that had outlived the script, and were ended

    @property
    def failed(self) -> bool:
        """The script itself went wrong, before it was stopped."""
        ours = self.reached or self.timed_out or self.interrupted
        return not ours and not self.ending.succeeded


def run(
    command: Command,
    environment: Mapping[str, str],
    *,
    run_dir: Path,
    steps: int,
    timeout_s: float,
    output: BinaryIO,
    seen: Seen = lambda step, loss: None,
) -> FirstSteps:
    """Run the command until it has made `steps` steps; its output goes to `output`.

    Raises `CannotStart`. When this returns, no process of the command is left.
    """
    asked: list[int] = []  # signals that want us to end
    began = time.monotonic()
    with supervisor.forwarding(asked.append):
        child = supervisor.start(
            command, environment, stdin=_keyboard(), stdout=output.fileno(), new_session=True
        )
        tail = _Tail(run_dir, seen)
        timed_out = lingered = False
        try:
            done_at = 0.0  # when the last step was seen
            while child.poll() is None and not asked:
                now = time.monotonic()
                if tail.look(now) >= steps:
                    done_at = done_at or now
                timed_out = not done_at and now - began > timeout_s
                lingered = done_at > 0 and now - done_at > GRACE_S
                if timed_out or lingered:
                    break
                time.sleep(POLL_S)
            if timed_out and not tail.steps:  # its traceback tells where it waits
                _end(child, signal.SIGINT, TRACE_S)
        finally:
            _end(child, signal.SIGTERM, END_S)
            left = _end_rest(child.pid, run_dir)
    made = tail.look(last=True)
    ending = Ending.of(child.returncode, time.monotonic() - began)
    number = asked[0] if asked else 0
    return FirstSteps(
        ending,
        made,
        reached=made >= steps,
        timed_out=timed_out,
        lingered=lingered,
        interrupted=number,
        left_behind=left,
    )


class _Tail:
    """How many steps the journal holds."""

    def __init__(self, run_dir: Path, seen: Seen) -> None:
        self.steps = 0
        self._tail = RunTail(run_dir)
        self._seen = seen
        self._next = 0.0

    def look(self, now: float = 0.0, *, last: bool = False) -> int:
        if not last and now < self._next:
            return self.steps
        self._next = now + LOOK_S
        with contextlib.suppress(OSError, ValueError, KeyError, AssertionError):
            self._tail.refresh()
        newest = max(self._tail.optimizers.values(), key=lambda one: one.step, default=None)
        if newest is not None:
            self.steps = newest.step + 1
        if not last:
            self._seen(self.steps, newest.loss.last if newest is not None else math.nan)
        return self.steps


def _keyboard() -> int | None:
    """What the script reads: our own input, but not a person's keys: its question is not shown."""
    with contextlib.suppress(OSError):
        if not os.isatty(0):
            return None
    return subprocess.DEVNULL


def _end(child: subprocess.Popen[bytes], number: int, patience_s: float) -> None:
    """Ask the command and its process group to end; make them, if that was SIGTERM."""
    if child.poll() is not None:
        return
    _signal_group(child.pid, number)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(patience_s)
        return
    if number == signal.SIGTERM:
        _signal_group(child.pid, signal.SIGKILL)
        child.wait()


def _end_rest(group: int, run_dir: Path) -> int:
    """End what the command has left behind; how many processes that were."""
    if not os.path.isdir("/proc/self"):  # then the group is all that we know
        _signal_group(group, signal.SIGTERM)
        return 0
    rest = _rest_after(run_dir, VANISH_S)
    for number, patience_s in ((signal.SIGTERM, END_S), (signal.SIGKILL, END_S)):
        for pid in _descendants(run_dir):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        if not _rest_after(run_dir, patience_s):
            break
    return rest


def _rest_after(run_dir: Path, patience_s: float) -> int:
    """Wait until no process of the run is left; how many are after that time."""
    until = time.monotonic() + patience_s
    while rest := len(list(_descendants(run_dir))):
        if time.monotonic() > until:
            break
        time.sleep(POLL_S)
    return rest


def _descendants(run_dir: Path) -> Iterator[int]:
    """Processes that are part of this run: their environment names its directory."""
    mark = f"\0{RUN_VARIABLE}={run_dir}\0".encode()
    with contextlib.suppress(OSError):
        for entry in os.scandir("/proc"):
            if not entry.name.isdecimal():
                continue
            with contextlib.suppress(OSError), open(f"/proc/{entry.name}/environ", "rb") as file:
                if mark in b"\0" + file.read() and int(entry.name) != os.getpid():
                    yield int(entry.name)


def _signal_group(group: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)
