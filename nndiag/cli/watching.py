"""From a command to its ending, with all that is said on the way: shared by `watch` and `demo`.

Everything is said on standard error, in lines that begin with `nndiag:` while the script runs. What
goes wrong before the start is an error; afterwards nothing of ours changes how the script ends.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import typer

from nndiag.cli import wandb_ending
from nndiag.errors import MissingLibrary
from nndiag.watcher import attributing, launchers, run_directory, supervisor
from nndiag.watcher.checkup import Checkup
from nndiag.watcher.command import Command
from nndiag.watcher.run_directory import RunDirectory
from nndiag.watcher.supervisor import Ending, WatchSettings

if TYPE_CHECKING:
    from nndiag.records import Attribution, Diagnosis

FOUND = 1  # exit status under --fail-on


def run(
    command: Command,
    settings: WatchSettings,
    *,
    run_dir: Path | None = None,
    live: bool | None = None,
    fail_on: tuple[str, ...] = (),
) -> Ending:
    """Run the command under observation and report; how it ended.

    Raises `CannotStart` as long as nothing has been run. Does not return where a launcher or
    another watch owns this process: then it becomes the command.
    """
    if os.environ.get(supervisor.RUN_VARIABLE):
        _say("already inside a watched run: this part is recorded there")
        supervisor.become(command, os.environ)
    if launchers.launcher_of(os.environ):
        _become_rank(command, settings, run_dir)
    if settings.wandb and (warning := wandb_ending.check(command.argv[0])):
        _say(warning)
    directory = directory_for(command, settings, run_dir)
    _say(f"recording to {shortest(directory.path)}")
    if command.blinded_by:
        _say(f"{command.blinded_by} keeps Python from loading us: nothing will be observed")
    watched = _Watched(command, settings, directory)
    try:
        ending = watched.run(live)
    except BaseException:
        directory.discard()
        raise
    return _after(watched, ending, fail_on)


def need_captum(command: Command) -> None:
    """Raise `MissingLibrary` if the script will run where captum is not. Another Python is asked
    when it runs: it says so in the notes then."""
    if command.argv[0] == sys.executable and attributing.missing():
        raise MissingLibrary(command="nndiag watch --attribute", library="captum", extra="captum")


def end_as(ending: Ending) -> NoReturn:
    """End this process as the script ended."""
    if ending.signal is not None:
        supervisor.end_by(ending.signal)
    raise typer.Exit(ending.status or 0)


def finding_names(option: str, given: str | None) -> tuple[str, ...]:
    """The severities and findings of `NAME,...`. Raises `BadUsage` for one that does not exist."""
    if given is None:
        return ()
    from nndiag.cli import planned
    from nndiag.detectors import catalogue
    from nndiag.settings import SEVERITIES, unknown

    known = (*SEVERITIES, *catalogue.names())
    names = tuple(name.strip() for name in given.split(",") if name.strip())
    for name in names:
        if name in planned.FINDINGS and name not in known:
            raise planned.not_built_yet(f"{option} {name}")
        if name not in known:
            raise unknown("finding", name, known, option)
    return names


def failing_names(given: str | None) -> tuple[str, ...]:
    """What fails the run: `--fail-on`, else what the project's settings say, else nothing."""
    if given is not None:
        return finding_names("--fail-on", given)
    from nndiag.settings import load_settings

    settings = load_settings()
    if not settings.fail_on_given:
        return ()
    return finding_names(f"{settings.source}, fail-on", ",".join(settings.fail_on))


class _Watched:
    """A command, its run directory, and the eye that is kept on it."""

    def __init__(self, command: Command, settings: WatchSettings, directory: RunDirectory) -> None:
        self.command = command
        self.directory = directory
        self.attributes = bool(settings.attribute)
        self.stopped_by = ""  # the finding that --stop-on stopped it for
        self.wants_wandb = settings.wandb
        self.diagnoses: tuple[Diagnosis, ...] = ()  # once it has ended
        self._settings = settings
        self._checkup: Checkup | None = None

    def run(self, live: bool | None) -> Ending:
        """Start it and wait, with a live view where there is a terminal for one."""
        environment = supervisor.watched_environment(
            os.environ, self.directory.path, self._settings
        )
        drawn = _wants_view(live)
        if drawn or self._settings.stop_on:
            self._checkup = Checkup(self.directory.path)
        try:
            if drawn and self._checkup is not None:
                from nndiag.watcher.live import LiveView
                from nndiag.watcher.relay import run_on_terminal

                view = LiveView(self.directory.path, self.command.label, self._checkup)
                return run_on_terminal(self.command, environment, self._tick, view)
            return supervisor.run(self.command, environment, self._tick)
        finally:
            if self._checkup is not None:
                self._checkup.close()

    def _tick(self, child: subprocess.Popen[bytes]) -> None:
        """Look at the findings so far, and stop the script where it was asked for."""
        if self._checkup is None:
            return
        try:
            if not self._checkup.poll() or self.stopped_by:
                return
            wanted = self._settings.stop_on
            found = [each for each in self._checkup.findings if each.matches(wanted)]
            if found:
                self.stopped_by = found[0].name
                child.terminate()
        except Exception:  # no room for a process, a run directory that is gone: not the script's
            self._checkup = None


def _become_rank(command: Command, settings: WatchSettings, run_dir: Path | None) -> NoReturn:
    """One of several processes of a launcher: record, and leave display and report to others."""
    name = launchers.shared_run_name(command.stem, os.environ)
    directory = run_directory.make(
        run_dir,
        stem=name,
        script=command.label,
        settings=settings.as_dict(),
        arguments=command.argv[1:],
        shared=True,
    )
    if launchers.rank_of(os.environ) == 0:
        shown = shortest(directory.path)
        export = f", nndiag export {shown} --to wandb" if settings.wandb else ""
        _say(f"recording to {shown}; afterwards: nndiag analyze {shown}{export}")
    environment = supervisor.watched_environment(os.environ, directory.path, settings)
    supervisor.become(command, environment)


def directory_for(command: Command, settings: WatchSettings, run_dir: Path | None) -> RunDirectory:
    """Where a run of `command` is recorded: in `run_dir`, or in a new directory."""
    return run_directory.make(
        run_dir,
        stem=command.stem,
        script=command.label,
        settings=settings.as_dict(),
        arguments=command.argv[1:],
    )


def _wants_view(live: bool | None) -> bool:
    if live is False or os.name != "posix":
        return False
    from nndiag.watcher.terminal import can_be_drawn_on

    possible = can_be_drawn_on(os.environ)
    if live and not possible:
        _say("--live needs a terminal that can be drawn on: going on without")
    return possible


def _after(watched: _Watched, ending: Ending, fail_on: tuple[str, ...]) -> Ending:
    """Close the run and report. Whatever fails here, the ending stays the script's."""
    path = shortest(watched.directory.path)
    fails = False
    try:
        _close(watched.directory, ending)
        fails = _tell(watched, ending, fail_on)
    except (Exception, KeyboardInterrupt) as error:
        _say(f"no report ({_reason(error)}); to try again: nndiag analyze {path}")
    try:
        if watched.wants_wandb:
            for line in wandb_ending.lines(watched.directory.path, path, watched.diagnoses):
                _say(line)
    except (Exception, KeyboardInterrupt) as error:
        again = f"nndiag export {path} --to wandb"
        _say(f"W&B: not done ({_reason(error)}); to try again: {again}")
    return Ending(FOUND, None, ending.seconds) if fails and ending.succeeded else ending


def _reason(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}".rstrip(": ")


def _close(directory: RunDirectory, ending: Ending) -> None:
    try:
        directory.close(status=ending.status, signal=ending.signal, seconds=ending.seconds)
    except (TimeoutError, FileNotFoundError):
        raise  # it would hang whoever reads from it now, or is gone
    except OSError as error:  # a full disk: what is on it can be read
        _say(f"the end of the run could not be recorded: {error.strerror or error}")


def _tell(watched: _Watched, ending: Ending, fail_on: tuple[str, ...]) -> bool:
    """Say how it ended and what was found; whether a finding is among those that fail the run."""
    if watched.stopped_by:
        _say(f"stopped the script: {watched.stopped_by} (--stop-on)")
    elif ending.signal is not None:
        _say(f"the script was ended by {signal_name(ending.signal)}")
    if reason := nothing_recorded(watched.directory, watched.command):
        _say(reason)
        return False
    from nndiag import analysis

    path = shortest(watched.directory.path)
    result = analysis.analyze(path)
    for error in result.errors:
        _say(f"{error.where}: {error.what}")
    _show(result.diagnoses)
    if watched.attributes:
        _show_attributions(path, result.diagnoses)
    _say(f"the report again: nndiag analyze {path}")
    watched.diagnoses = result.diagnoses
    return _fails(result.diagnoses, fail_on)


def nothing_recorded(directory: RunDirectory, command: Command) -> str:
    """Why there is nothing to judge, in one line; empty where there is."""
    if directory.stepped():
        return ""
    if failures := directory.failures():
        return f"could not observe the script: {failures[0]}"
    if directory.attached():
        return "the script imported torch, but no optimizer made a step: nothing to diagnose"
    if command.blinded_by:
        return f"nothing was observed: {command.blinded_by} keeps Python from loading us"
    reason = "the script never imported torch: nothing to diagnose"
    if command.argv[0] != sys.executable:
        reason += " (or it ran under python -E, -I or -S, which keep us out)"
    return reason


def _show(diagnoses: tuple[Diagnosis, ...]) -> None:
    from nndiag.cli.output import screen_width, show_lines
    from nndiag.reports import page

    can_draw = (sys.stderr.encoding or "").lower().replace("-", "") == "utf8"
    width = screen_width(sys.stderr)
    print(file=sys.stderr)
    show_lines(page.report(diagnoses, width=width, ascii_only=not can_draw), sys.stderr)
    print(file=sys.stderr)


def _show_attributions(path: str, diagnoses: tuple[Diagnosis, ...]) -> None:
    """Those of the batches that a finding is about, and of the last one."""
    from nndiag.cli import attributing as attributing_again
    from nndiag.cli.output import can_draw, screen_width, show_lines
    from nndiag.readers.attributions import attributions_of
    from nndiag.reports import attribution, attribution_facts

    def is_telling(one: Attribution) -> bool:
        carried = attribution_facts.carriers(one)
        return carried is not None and carried.stand_out

    found, errors = attributions_of(path)
    findings = [finding for diagnosis in diagnoses for finding in diagnosis.findings]
    shown = [one for one in found if attribution_facts.belongs_to(one, findings)]
    ids = set(map(id, shown))  # arrays cannot be compared
    beside = sorted({one.step for one in found if id(one) not in ids and is_telling(one)})
    if shown:
        lines = attribution.report(
            shown, width=screen_width(sys.stderr), ascii_only=not can_draw(sys.stderr)
        )
        show_lines(lines, sys.stderr)
        print(file=sys.stderr)
        _say(f"attributions again: nndiag attribute {shlex.quote(path)}")
    elif kept := attributing_again.captures_of(path):
        names, how = ", ".join(kept), attributing_again.how_to_make(path)
        _say(f"batches were kept ({names}), but not attributed; to do so: {how}")
    if beside:
        steps = ", ".join(map(str, beside))
        again = f"nndiag attribute {shlex.quote(path)} --step {beside[0]}"
        _say(f"one sample made the loss leap at step {steps}, where there is no finding: {again}")
    for error in errors:
        _say(f"{error.where}: {error.what}")


def _fails(diagnoses: tuple[Diagnosis, ...], fail_on: tuple[str, ...]) -> bool:
    from nndiag.gate import Gate
    from nndiag.settings import Settings

    gate = Gate(Settings(fail_on=fail_on))
    return any(gate.failing(diagnosis) for diagnosis in diagnoses)


def signal_name(number: int) -> str:
    try:
        name = signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
    hints = {"SIGKILL": ", as the system does when memory runs out"}
    return name + hints.get(name, "")


def shortest(path: Path) -> str:
    """`path` from here, if that is shorter."""
    try:
        relative = os.path.relpath(path)
    except (OSError, ValueError):
        return str(path)
    return relative if len(relative) < len(str(path)) else str(path)


def _say(text: str) -> None:
    """One line of ours. A standard error that is gone is no reason to fail."""
    with contextlib.suppress(OSError, ValueError):
        print(f"nndiag: {text}", file=sys.stderr, flush=True)
