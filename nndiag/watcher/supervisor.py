"""Starts the user's own command with our bootstrap in front of it, and ends as it ended.

The command gets our standard streams themselves, no pipes; its process group is ours. So a
terminal's Ctrl-C and Ctrl-Z, redirections, `input()` and a full pipe work as without us. Signals
that reach us alone are passed on. Should we be killed, the training goes on.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import NoReturn, Protocol

from nndiag.errors import CannotStart
from nndiag.watcher.command import Command

BOOTSTRAP = Path(__file__).parent / "bootstrap"
RUN_VARIABLE = (
    "NNDIAG_RUN"  # says to the bootstrap, and to a nested watch, that this run is watched
)
SETTINGS_VARIABLE = "NNDIAG_SETTINGS"

# What a person, a shell or a scheduler sends to one process; Slurm asks for a requeue by SIGUSR1.
FORWARDED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
TICK_S = 1.0  # how often something else than the child's end is looked at

Tick = Callable[["subprocess.Popen[bytes]"], None]


@dataclass(frozen=True, slots=True)
class WatchSettings:
    """What the observer in the training process is told."""

    every: int | str = "auto"  # optimizer steps between layer statistics
    overhead_percent: float = 2.0
    max_steps: int | None = None
    stop_on: tuple[str, ...] = ()
    compiled: str = "hidden"  # or eager, traced: how layers inside torch.compile are seen
    attribute: str = ""  # a method of Captum, or auto; "": none
    wandb: bool = False  # mirror into the script's own W&B run

    def as_dict(self) -> dict[str, object]:
        return {**asdict(self), "stop_on": list(self.stop_on)}


@dataclass(frozen=True, slots=True)
class Ending:
    """How the command ended: by a status, or by a signal."""

    status: int | None
    signal: int | None
    seconds: float

    @classmethod
    def of(cls, returncode: int, seconds: float) -> Ending:
        """From the return code as `subprocess` has it: negative for a signal."""
        if returncode < 0:
            return cls(None, -returncode, seconds)
        return cls(returncode, None, seconds)

    @property
    def succeeded(self) -> bool:
        return self.status == 0


class Runner(Protocol):
    """A way to run a command to its end: `run` below, or the relay of the live view."""

    def __call__(self, command: Command, environment: Mapping[str, str], tick: Tick) -> Ending: ...


def watched_environment(
    environment: Mapping[str, str], run: Path, settings: WatchSettings
) -> dict[str, str]:
    """`environment` with what our bootstrap needs to be found and to know its run."""
    # No empty part: Python takes that for the working directory.
    path = [str(BOOTSTRAP), *filter(None, [environment.get("PYTHONPATH")])]
    told = settings.as_dict()
    if settings.wandb:  # then the process has a diagnosis made, by the interpreter that has numpy
        told["python"] = sys.executable
    return {
        **environment,
        "PYTHONPATH": os.pathsep.join(path),
        RUN_VARIABLE: str(run),
        SETTINGS_VARIABLE: json.dumps(told),
    }


def become(command: Command, environment: Mapping[str, str]) -> NoReturn:
    """Be the command from here on, in this very process: nothing of us is left."""
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execvpe(command.argv[0], command.argv, dict(environment))
    except OSError as error:
        raise cannot_start(command, error) from None


def run(command: Command, environment: Mapping[str, str], tick: Tick) -> Ending:
    """Start the command, pass signals on, wait for its end. `tick` is called about every second."""
    with _mailbox() as mailbox:
        began = time.monotonic()
        child = start(command, environment, before_exec=mailbox.undo)
        while child.poll() is None:
            for number in mailbox.wait(child, TICK_S):
                child.send_signal(number)
            tick(child)
        return Ending.of(child.returncode, time.monotonic() - began)


def start(
    command: Command,
    environment: Mapping[str, str],
    *,
    before_exec: Callable[[], None] | None = None,
    stdin: int | None = None,
    stdout: int | None = None,
    new_session: bool = False,
) -> subprocess.Popen[bytes]:
    """The command as a child of ours. Raises `CannotStart`."""
    try:
        return subprocess.Popen(
            command.argv,
            env=dict(environment),
            stdin=stdin,
            stdout=stdout,
            stderr=stdout,
            close_fds=False,  # what the shell handed to us (3<data) is meant for the script
            preexec_fn=before_exec,
            start_new_session=new_session,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise cannot_start(command, error) from None


def cannot_start(command: Command, error: Exception) -> CannotStart:
    reason = getattr(error, "strerror", None) or str(error)
    return CannotStart(where=command.argv[0], what=f"could not be started: {reason}")


def end_by(number: int) -> NoReturn:
    """Die by the signal that the script died by, so that a shell or a scheduler sees the same."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))  # the core worth reading is the script's
    with contextlib.suppress(OSError, ValueError):  # SIGKILL has no handler
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {number})
    os.kill(os.getpid(), number)
    os._exit(128 + number)  # a signal that does not kill here; 128+n is how shells write it


def not_ignored() -> list[signal.Signals]:
    """The signals to pass on. What `nohup` or the shell ignores stays ignored, here and there."""
    return [number for number in FORWARDED if signal.getsignal(number) is not signal.SIG_IGN]


@contextlib.contextmanager
def forwarding(send: Callable[[int], None]) -> Iterator[None]:
    """While it lasts, a signal to us calls `send` at once."""

    def receive(number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            send(number)

    before = {number: signal.signal(number, receive) for number in not_ignored()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class _Mailbox(Protocol):
    def undo(self) -> None: ...
    def wait(self, child: subprocess.Popen[bytes], seconds: float) -> list[int]: ...


class _BlockedSignals:
    """Signals that are blocked and taken one by one, which tells who sent them."""

    def __init__(self) -> None:
        self._numbers = {*not_ignored(), signal.SIGCHLD}
        self._before = signal.pthread_sigmask(signal.SIG_BLOCK, self._numbers)

    def undo(self) -> None:
        signal.pthread_sigmask(signal.SIG_SETMASK, self._before)

    def wait(self, child: subprocess.Popen[bytes], seconds: float) -> list[int]:
        came = signal.sigtimedwait(self._numbers, seconds)
        if came is None or came.si_signo == signal.SIGCHLD:
            return []
        # The kernel speaks for the terminal, and tells every process of the group: the child too.
        from_terminal = came.si_code > 0
        return [] if from_terminal else [came.si_signo]


class _HandledSignals:
    """The same where signals cannot be waited for (macOS), so that nobody knows who sent them."""

    def __init__(self) -> None:
        self._came: list[int] = []
        self._handlers = contextlib.ExitStack()
        self._handlers.enter_context(forwarding(self._came.append))

    def undo(self) -> None:
        """Nothing: `exec` forgets handlers by itself."""

    def wait(self, child: subprocess.Popen[bytes], seconds: float) -> list[int]:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(seconds)
        came = [self._came.pop(0) for _ in range(len(self._came))]
        if _is_in_foreground():  # then Ctrl-C was for the whole group
            came = [number for number in came if number not in (signal.SIGINT, signal.SIGQUIT)]
        return came


def _is_in_foreground() -> bool:
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)


@contextlib.contextmanager
def _mailbox() -> Iterator[_Mailbox]:
    if not hasattr(signal, "sigtimedwait"):
        handled = _HandledSignals()
        with handled._handlers:
            yield handled
        return
    blocked = _BlockedSignals()
    try:
        yield blocked
    finally:
        # Nobody is left to pass a late Ctrl-C on to; it must not kill us before the report either.
        while signal.sigtimedwait(blocked._numbers, 0) is not None:
            pass
        blocked.undo()
