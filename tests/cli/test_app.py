"""The command line as a whole: help, versions, mistakes, interruptions."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nndiag import __version__
from nndiag.cli import app, planned

ROOT = Path(__file__).parent.parent.parent
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_help_names_every_command_and_what_is_planned(nndiag: Run) -> None:
    done = nndiag("--help")

    assert done.returncode == 0
    assert all(f"\n  {command} " in done.stdout for command in app.COMMANDS)
    assert all(command in done.stdout for command in planned.COMMANDS)
    assert nndiag().stdout == done.stdout


@pytest.mark.parametrize("command", app.COMMANDS)
def test_every_command_has_help(command: str, nndiag: Run) -> None:
    for option in ("--help", "-h"):
        done = nndiag(command, option)
        assert done.returncode == 0
        assert done.stdout.startswith(f"Usage: nndiag {command}")


def test_version(nndiag: Run) -> None:
    assert nndiag("--version").stdout == f"nndiag {__version__}\n"


@pytest.mark.parametrize("command", planned.COMMANDS)
def test_a_planned_command_says_so_whatever_follows_it(command: str, nndiag: Run) -> None:
    for arguments in ((), ("--help",), ("runs", "-o", "x.html")):
        done = nndiag(command, *arguments)
        assert done.returncode == 2
        assert done.stderr.startswith(f"nndiag {command}: planned, but not built yet\n")
        assert done.stdout == ""


MISTAKES = {
    ("analyse",): "nndiag: no such command 'analyse'",
    ("--wrong",): "nndiag: no such option: --wrong",
    ("analyze",): "nndiag analyze: missing argument 'PATH'",
    ("analyze", "--wrong", "x"): "nndiag analyze: no such option: --wrong",
    ("explain",): "nndiag explain: missing argument 'NAME'",
}


@pytest.mark.parametrize(("arguments", "told"), MISTAKES.items())
def test_a_wrong_command_line_is_one_line_and_where_help_is(
    arguments: tuple[str, ...], told: str, nndiag: Run
) -> None:
    done = nndiag(*arguments)

    assert done.returncode == 2
    first, second = done.stderr.splitlines()
    assert first.startswith(told)
    assert second.strip() == f"see: {told.partition(':')[0]} --help"


def test_our_own_fault_is_told_without_a_traceback_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(app, "app", lambda *_, **__: 1 / 0)

    assert app.main([]) == 2
    assert "a fault of nndiag itself: ZeroDivisionError" in capsys.readouterr().err

    monkeypatch.setenv("NNDIAG_TRACEBACK", "1")
    with pytest.raises(ZeroDivisionError):
        app.main([])


def test_a_reader_of_our_pipe_that_has_left_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [sys.executable, "-m", "nndiag", "rules"],
        stdout=writing,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    os.close(writing)

    assert (done.returncode, done.stderr) == (app.BROKEN_PIPE, b"")


def test_an_interrupted_command_ends_quietly_with_130(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "nndiag", "analyze", "-"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
    )
    time.sleep(2)  # until it waits for standard input
    process.send_signal(signal.SIGINT)
    _, told = process.communicate(timeout=30)

    assert process.returncode == app.INTERRUPTED
    assert b"Traceback" not in told
