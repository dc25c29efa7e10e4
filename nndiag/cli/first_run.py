"""What `preflight` does between its options and its exit status: run, read, judge, show."""

from __future__ import annotations

import contextlib
import os
import shlex
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from nndiag.errors import BadUsage, CannotStart, NndiagError
from nndiag.watcher import first_steps, launchers, supervisor
from nndiag.watcher.command import Command
from nndiag.watcher.first_steps import FirstSteps
from nndiag.watcher.run_directory import RunDirectory
from nndiag.watcher.supervisor import WatchSettings

if TYPE_CHECKING:
    from nndiag.detectors.base import Detector
    from nndiag.gate import Gate
    from nndiag.preflight.first_look import FirstLook
    from nndiag.records import Diagnosis, Run
    from nndiag.reports.checklist import Trial

SHOWN_LINES, SHOWN_BYTES = 40, 16_000  # of a failed script's output
NO_STEP = "give it the arguments that make it train with torch.optim, for one step at least"
# What the observation itself is the reason of, and what we have done to the script.
OURS = ("watching took", "the script was ended by", "the script ended with SystemExit")


@dataclass(frozen=True, slots=True)
class Request:
    """What was asked for."""

    command: Command
    steps: int
    timeout_s: float
    run_dir: Path | None
    show_output: bool
    format: str | None
    arguments: tuple[str, ...] = ()  # what stood after our own options


@dataclass(frozen=True, slots=True)
class Seen:
    """What came of it: a first look, an error, or both where a script failed on its way."""

    look: FirstLook | None
    trial: Trial | None
    errors: tuple[NndiagError, ...] = ()
    signal: int = 0  # that we were asked to end by; 0: none

    @property
    def diagnoses(self) -> tuple[Diagnosis, ...]:
        return (self.look.diagnosis,) if self.look is not None else ()


def refuse_nested() -> None:
    """Raise `BadUsage` inside a watched run, and in a rank of a launcher."""
    if os.environ.get(supervisor.RUN_VARIABLE):
        raise BadUsage(where="nndiag preflight", what="runs already inside a watched script")
    if launcher := launchers.launcher_of(os.environ):
        raise BadUsage(
            where="nndiag preflight",
            what=f"was started by {launcher}, once for each rank",
            do="start it once, in front: nndiag preflight -- torchrun ... SCRIPT",
        )


def observe(request: Request, asked: Sequence[Detector]) -> Seen:
    """Run the first steps and judge them. Raises `CannotStart`."""
    command = request.command
    if command.blinded_by:
        raise CannotStart(
            where=command.label,
            what=f"nothing can be observed: {command.blinded_by} keeps Python from loading us",
        )
    settings = WatchSettings(every=1, max_steps=request.steps)
    with _directory(request, settings) as directory, tempfile.TemporaryFile() as output:
        try:
            with _progress(request) as progress:
                went = first_steps.run(
                    command,
                    supervisor.watched_environment(os.environ, directory.path, settings),
                    run_dir=directory.path,
                    steps=request.steps,
                    timeout_s=request.timeout_s,
                    output=sys.stderr.buffer if request.show_output else output,
                    seen=progress,
                )
        except BaseException:
            directory.discard()
            raise
        if went.interrupted:
            return Seen(None, None, signal=went.interrupted)
        stopped = not went.failed
        with contextlib.suppress(OSError):
            status, number = (0, None) if stopped else (went.ending.status, went.ending.signal)
            directory.close(status=status, signal=number, seconds=went.ending.seconds)
        error = _error(request, went, directory)
        if error is not None and not request.show_output:
            _show_tail(output)
        if not directory.stepped():
            return Seen(None, None, (error,) if error is not None else ())
        return _judged(request, went, directory, asked, error)


def show(seen: Seen, gate: Gate, format: str | None, output: Path | None) -> None:
    """Print the report, or write it to a file; errors last, where they are seen."""
    from nndiag.cli import output as out
    from nndiag.preflight import first_look
    from nndiag.reports import checklist, json_report, page, plain
    from nndiag.reports.lines import FIXED

    look, trial = seen.look, seen.trial
    if look is None or trial is None:
        if format == "json":
            out.write(json_report.text((), seen.errors, gate=gate), output)
        else:
            out.show_lines(page.error_lines(seen.errors), sys.stderr)
        return
    if format == "json":
        text = checklist.json_text(look.diagnosis, look.checks, trial, gate, seen.errors)
        out.write(text, output)
    elif format not in (None, "rich"):
        asked = out.rules_asked(gate.settings)
        rules = [rule for rule in asked if rule.name not in first_look.LEFT_OUT]
        shown = out.document(format, seen.diagnoses, seen.errors, gate=gate, rules=rules)
        out.write(shown, output)
    else:
        lines = checklist.report(
            look.diagnosis,
            look.checks,
            trial,
            gate,
            width=FIXED if output else out.screen_width(sys.stdout, format),
            ascii_only=output is None and not out.can_draw(sys.stdout),
        )
        if output is not None:
            out.write(plain.text(lines), output)
        else:
            out.show_lines(lines, sys.stdout, format)
            sys.stdout.flush()
    if format != "json":
        out.show_lines(page.error_lines(seen.errors), sys.stderr)
    if out.in_github_actions():
        from nndiag.analysis import Analysis
        from nndiag.cli.check import tell_github

        tell_github(gate, Analysis(seen.diagnoses), format, output)


@contextlib.contextmanager
def _directory(request: Request, settings: WatchSettings) -> Iterator[RunDirectory]:
    """Where the run is recorded: a place that goes away, unless one was asked for."""
    from nndiag.cli.watching import directory_for

    temporary = request.run_dir is None
    path = Path(tempfile.mkdtemp(prefix="nndiag-preflight-")) if temporary else request.run_dir
    try:
        yield directory_for(request.command, settings, path)
    finally:
        if temporary and path is not None:
            shutil.rmtree(path, ignore_errors=True)


def _error(request: Request, went: FirstSteps, directory: RunDirectory) -> NndiagError | None:
    """What went wrong with the script itself; None where the checks can speak."""
    from nndiag.cli import watching

    where = request.command.label
    if went.failed:
        after = f"after {went.steps} steps" if went.steps else "before its first optimizer step"
        ending = went.ending
        how = (
            f"ended by {watching.signal_name(ending.signal)}"
            if ending.signal is not None
            else f"failed with exit status {ending.status}"
        )
        return NndiagError(where=where, what=f"{how} {after}")
    if went.steps or directory.stepped():
        return None
    if went.timed_out:
        return NndiagError(
            where=where,
            what=f"no optimizer step within {request.timeout_s:g} s, and was stopped",
            do="give it more time with --timeout SECONDS, or less to do before its first step",
        )
    reason = watching.nothing_recorded(directory, request.command)
    return NndiagError(where=where, what=reason, do=NO_STEP)


def _judged(
    request: Request,
    went: FirstSteps,
    directory: RunDirectory,
    asked: Sequence[Detector],
    error: NndiagError | None,
) -> Seen:
    from nndiag.errors import UnreadableLog
    from nndiag.preflight import first_look
    from nndiag.readers import run_directory as reader
    from nndiag.reports.checklist import Trial

    try:
        run = reader.read(directory.path)
    except UnreadableLog as problem:
        told = NndiagError(where=request.command.label, what=problem.what, do=problem.do)
        return Seen(None, None, (error or told,))
    look = first_look.look(_named(run, request), asked)
    why = "failed" if went.failed else "time" if went.timed_out else "itself"
    trial = Trial(
        script=request.command.label,
        asked=request.steps,
        made=went.steps,
        seconds=went.ending.seconds,
        why="stopped" if went.reached else why,
        notes=tuple(_notes(request, went)),
        arguments=shlex.join(request.arguments),
    )
    return Seen(look, trial, (error,) if error is not None else ())


def _named(run: Run, request: Request) -> Run:
    """The run as a person knows it: by its script, not by a place that is gone."""
    from nndiag.cli.watching import shortest

    path = shortest(request.run_dir) if request.run_dir is not None else request.command.label
    notes = tuple(note for note in run.notes if not note.startswith(OURS))
    return replace(run, path=str(path), notes=notes)


def _notes(request: Request, went: FirstSteps) -> Iterator[str]:
    if went.timed_out:
        yield f"stopped after {request.timeout_s:g} s (--timeout), before step {request.steps}"
    elif not went.reached and not went.failed:
        yield f"the script ended by itself after {went.steps} of {request.steps} steps"
    if went.lingered:
        yield f"the script did not end after step {went.steps} and was ended"
    if went.left_behind:
        count = went.left_behind
        yield f"{count} process{'es' if count > 1 else ''} of the script had to be ended"
    if request.run_dir is not None:
        from nndiag.cli.watching import shortest

        yield f"recorded in {shortest(request.run_dir)}"


def end_as_asked(number: int) -> None:
    """End by the signal that was sent to us: Ctrl-C, or a scheduler's."""
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    supervisor.end_by(number)


def _show_tail(output: BinaryIO) -> None:
    """The last lines of the script's output, on standard error."""
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - SHOWN_BYTES))
    lines = output.read().decode("utf-8", "replace").rstrip().splitlines()
    if not lines:
        return
    left_out = len(lines) > SHOWN_LINES or size > SHOWN_BYTES
    told = "the last of the script's output:" if left_out else "the script's output:"
    print(told, file=sys.stderr)
    for line in lines[-SHOWN_LINES:]:
        print(f"  {_on_screen(line)}", file=sys.stderr)
    print(file=sys.stderr)


def _on_screen(line: str) -> str:
    """A line as a terminal would have shown it in the end, without control characters."""
    from nndiag.reports.wording import clean

    shown = line.rpartition("\r")[2].rstrip()
    text = shown.lstrip(" ")
    return " " * (len(shown) - len(text)) + clean(text)


class _Progress:
    """One line on a terminal while the script runs, taken away at its end."""

    def __init__(self, label: str, steps: int, width: int) -> None:
        self._label, self._steps, self._width = label, steps, width
        self._began = time.monotonic()
        self._drawn = False

    def __call__(self, step: int, loss: float) -> None:
        from nndiag.reports.wording import clean, number

        at = f"step {step} of {self._steps}, loss {number(loss)}" if step else "no step yet"
        seconds = time.monotonic() - self._began
        text = f"{clean(self._label)}: {at}, {seconds:.0f} s"
        self._draw(text[: self._width - 1])

    def clear(self) -> None:
        if self._drawn:
            self._draw("")

    def _draw(self, text: str) -> None:
        self._drawn = True
        with contextlib.suppress(OSError, ValueError):
            print(f"\r\x1b[2K{text}", end="", file=sys.stderr, flush=True)


@contextlib.contextmanager
def _progress(request: Request) -> Iterator[first_steps.Seen]:
    from nndiag.cli.output import is_drawable, screen_width

    if request.show_output or not is_drawable(sys.stderr):
        yield lambda step, loss: None
        return
    progress = _Progress(request.command.label, request.steps, screen_width(sys.stderr))
    try:
        yield progress
    finally:
        progress.clear()
