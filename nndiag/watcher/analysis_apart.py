"""`nndiag analyze RUN --json` in a process of its own, for those who must not load numpy.

Standard library only: this is also used inside the training.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_PACKAGE_HOME = str(Path(__file__).resolve().parents[2])
_BOOTSTRAP = str(Path(__file__).resolve().parent / "bootstrap")
_OF_THE_WATCH = ("NNDIAG_RUN", "NNDIAG_SETTINGS")  # the analysis itself is not watched


def arguments(python: str, run: str | os.PathLike[str]) -> list[str]:
    """The command. `python` is the interpreter that `nndiag watch` runs under."""
    return [python, "-m", "nndiag", "analyze", os.fspath(run), "--json"]


def environment(given: Mapping[str, str]) -> dict[str, str]:
    """`given`, so that this package is found first and one core is enough."""
    path = [p for p in given.get("PYTHONPATH", "").split(os.pathsep) if p and p != _BOOTSTRAP]
    kept = {name: value for name, value in given.items() if name not in _OF_THE_WATCH}
    return {
        **kept,
        "PYTHONPATH": os.pathsep.join([_PACKAGE_HOME, *path]),
        "OMP_NUM_THREADS": "1",
    }


def first_run(answer: bytes) -> dict[str, Any]:
    """The only run of the report; empty where there is none, or no report."""
    try:
        report = json.loads(answer)
    except ValueError:
        return {}
    runs = report.get("runs") if isinstance(report, dict) else None
    return runs[0] if isinstance(runs, list) and runs and isinstance(runs[0], dict) else {}


def diagnose(python: str, run: str, *, seconds: float) -> dict[str, Any]:
    """What the report says of `run`; empty where it cannot be judged.

    Raises:
        OSError: the interpreter cannot be started.
        subprocess.TimeoutExpired: there is no answer within `seconds`.
    """
    # No preexec_fn: with one Python forks this large process, whose threads may hold locks.
    done = subprocess.run(
        arguments(python, run),
        cwd=run,  # a `rich.py` beside the user's script is not for us
        env=environment(os.environ),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        timeout=seconds,
        check=False,
        start_new_session=True,  # a Ctrl-C is for the script
    )
    return first_run(done.stdout)
