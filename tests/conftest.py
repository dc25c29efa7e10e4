"""What all tests share: golden texts, and a command line in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def pytest_configure() -> None:
    """Let child processes meet signals as usual.

    Under nohup, or as a background job of a shell, this process was started with some signals
    ignored; its children would inherit that, and the tests send them these signals.
    """
    for name in ("SIGINT", "SIGQUIT", "SIGHUP", "SIGTERM"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) is signal.SIG_IGN:
            usual = signal.default_int_handler if name == "SIGINT" else signal.SIG_DFL
            signal.signal(number, usual)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--refresh-golden",
        action="store_true",
        help="write the golden texts anew instead of comparing; then read them in the diff",
    )


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[Path, str], None]:
    """Compare a text with a golden file, or write the file anew under `--refresh-golden`."""

    def compare(path: Path, text: str) -> None:
        if request.config.getoption("--refresh-golden"):
            path.parent.mkdir(exist_ok=True)
            path.write_text(text, encoding="utf-8")
        assert path.is_file(), f"{path} is missing: pytest {path.parent.parent} --refresh-golden"
        assert text == path.read_text(encoding="utf-8")

    return compare


@pytest.fixture
def nndiag(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `nndiag ARGUMENTS` as a user would, in an empty directory unless `cwd` says another."""

    def run(
        *arguments: str | Path, cwd: Path = tmp_path, stdin: str = "", **environment: str
    ) -> subprocess.CompletedProcess[str]:
        colourless = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "FORCE_COLOR")}
        return subprocess.run(
            [sys.executable, "-m", "nndiag", *map(str, arguments)],
            cwd=cwd,
            input=stdin,
            capture_output=True,
            text=True,
            encoding="utf-8",
            timeout=120,
            env={**colourless, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", **environment},
        )

    return run
