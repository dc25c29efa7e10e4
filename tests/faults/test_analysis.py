"""`nndiag analyze` on a poor footing: a closed pipe, a terminal of letters, a full disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from nndiag.cli.app import BROKEN_PIPE

ROOT = Path(__file__).parents[2]
JOURNAL = ROOT / "tests" / "journal" / "fixtures" / "v1"
ANALYZE = [sys.executable, "-m", "nndiag", "analyze"]


def environment(**more: str) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), **more}


def test_a_reader_that_has_left_is_no_error() -> None:
    """F32: as `| head` does."""
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        [*ANALYZE, JOURNAL], stdout=writing, stderr=subprocess.PIPE, env=environment()
    )
    os.close(writing)

    assert (done.returncode, done.stderr) == (BROKEN_PIPE, b"")


def test_a_terminal_without_unicode_gets_a_report() -> None:
    """F33"""
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
    done = subprocess.run([*ANALYZE, JOURNAL], capture_output=True, env=environment(**plain))

    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.isascii() and b"v1" in done.stdout


def test_a_report_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    """F66"""
    before = (JOURNAL / "run.json").read_bytes()
    done = subprocess.run(
        [*ANALYZE, JOURNAL, "-o", "/dev/full"], capture_output=True, text=True, env=environment()
    )

    assert done.returncode == 2 and done.stdout == ""
    assert "/dev/full: cannot be written: No space left" in done.stderr
    assert (JOURNAL / "run.json").read_bytes() == before
