"""The findings so far, while the script still runs.

Each check-up is `nndiag analyze RUN --json` in a process of its own, at low priority: the very same
diagnosis as after the end. It cannot hold up the relay, and its fault costs nothing but its answer.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from nndiag.watcher import analysis_apart

FIRST_AFTER_S = 3.0
EVERY_S = 5.0  # our own choice: a person looks no oftener
SHARE = 0.05  # of one core at most: after a check-up of 1 s the next waits 20 s
NICENESS = 15


@dataclass(frozen=True, slots=True)
class Seen:
    """A finding as the report's JSON tells it."""

    name: str
    severity: str
    message: str = ""
    layers: tuple[str, ...] = ()
    step_start: int | None = None

    def matches(self, wanted: tuple[str, ...]) -> bool:
        """Whether a list of finding names and severities asks for it."""
        return self.name in wanted or self.severity in severities_from(wanted)


def severities_from(wanted: tuple[str, ...]) -> tuple[str, ...]:
    """The severities at or above those among `wanted`."""
    order = ("info", "warning", "critical")
    lowest = min((order.index(word) for word in wanted if word in order), default=len(order))
    return order[lowest:]


class Checkup:
    """Looks at a run again and again. Call `poll` often; it never waits."""

    def __init__(self, run: Path) -> None:
        self.findings: tuple[Seen, ...] = ()
        self.verdict = ""  # none yet
        self._run = run
        self._next = time.monotonic() + FIRST_AFTER_S
        self._began = 0.0
        self._child: subprocess.Popen[bytes] | None = None
        self._answer: IO[bytes] | None = None
        self._size = 0

    def poll(self) -> bool:
        """Start a check-up when it is time, take its answer when it is there; whether one came."""
        if self._child is None:
            if time.monotonic() >= self._next:
                self._start()
            return False
        if self._child.poll() is None:
            return False
        return self._take()

    def close(self) -> None:
        if self._child is not None:
            with contextlib.suppress(OSError):
                self._child.kill()
            self._child.wait()
            self._child = None
        if self._answer is not None:
            self._answer.close()

    def _start(self) -> None:
        size = sum(path.stat().st_size for path in self._run.glob("rank-*/*.arrows"))
        if size == self._size:  # nothing new to judge
            self._next = time.monotonic() + EVERY_S
            return
        self._size, self._began = size, time.monotonic()
        self._answer = tempfile.TemporaryFile()  # noqa: SIM115 - closed when it is read
        # The working directory is the run's: a `rich.py` beside the user's script is not for us.
        self._child = subprocess.Popen(
            analysis_apart.arguments(sys.executable, self._run),
            cwd=self._run,
            env=analysis_apart.environment(os.environ),
            stdin=subprocess.DEVNULL,
            stdout=self._answer,
            stderr=subprocess.DEVNULL,
            start_new_session=True,  # a Ctrl-C is for the script
            preexec_fn=_step_back,
        )

    def _take(self) -> bool:
        took = time.monotonic() - self._began
        self._next = time.monotonic() + max(EVERY_S, took / SHARE)
        self._child = None
        if self._answer is None:
            return False
        with self._answer as answer:
            answer.seek(0)
            judged = analysis_apart.first_run(answer.read())
        self._answer = None
        if not judged:
            return False
        self.verdict = str(judged.get("verdict", ""))
        self.findings = tuple(_seen(each) for each in judged.get("findings", ()))
        return True


def _step_back() -> None:
    os.nice(NICENESS)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])


def _seen(finding: dict[str, Any]) -> Seen:
    return Seen(
        name=str(finding.get("name", "")),
        severity=str(finding.get("severity", "")),
        message=str(finding.get("message", "")),
        layers=tuple(str(layer) for layer in finding.get("layers", ())),
        step_start=finding.get("step_start"),
    )
