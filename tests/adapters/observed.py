"""Runs a training script, watched or not, and reads what was recorded of it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from nndiag.journal.reader import read_events, read_process, read_stream

ROOT = Path(__file__).parent.parent.parent
BOOTSTRAP = ROOT / "nndiag" / "watcher" / "bootstrap"
SETTINGS = ("NNDIAG", "NNDIAG_RUN", "NNDIAG_SETTINGS", "PYTHONPATH", "RANK", "WORLD_SIZE")

Train = Callable[..., "Observed"]


@dataclass(frozen=True)
class Observed:
    """How a script ended, and the rank directory that it left."""

    status: int
    stdout: str
    stderr: str
    run_dir: Path

    @property
    def told(self) -> Any:
        """What the script printed last, as JSON: the values that it worked out by itself."""
        return json.loads(self.stdout.splitlines()[-1])

    @property
    def rank(self) -> Path:
        return self.run_dir / "rank-0"

    @cached_property
    def events(self) -> list[dict[str, Any]]:
        return list(read_events(self.rank / "events.jsonl")[0])

    @cached_property
    def process(self) -> dict[str, Any]:
        return dict(read_process(self.rank / "process.json"))

    def of_kind(self, kind: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event"] == kind]

    @property
    def faults(self) -> list[str]:
        """What nndiag wrote of its own failures."""
        notes = [event["text"] for event in self.of_kind("note") if "fault" in event["text"]]
        return notes + [event["reason"] for event in self.of_kind("observation-ended")]

    @cached_property
    def _streams(self) -> list[Any]:
        return [read_stream(path) for path in sorted(self.rank.glob("*.arrows"))]

    @property
    def owners(self) -> list[str]:
        return [s.owner for s in self._streams if ("loss", "") in s.columns]

    def series(self, metric: str, where: str = "", owner: str | None = None) -> dict[int, float]:
        """Step -> value, over all files; empty where the column does not exist."""
        found: dict[int, float] = {}
        for stream in self._streams:
            if (metric, where) in stream.columns and owner in (None, stream.owner):
                column = stream.values[:, stream.columns.index((metric, where))]
                found |= dict(zip(stream.steps.tolist(), column.tolist(), strict=True))
        return found

    def values(self, metric: str, where: str = "", owner: str | None = None) -> np.ndarray:
        return np.array(list(self.series(metric, where, owner).values()))

    def places(self, metric: str) -> list[str]:
        """Where the metric was measured, in the order of the columns."""
        columns = [c for s in self._streams for c in s.columns]
        return list(dict.fromkeys(where for name, where in columns if name == metric))


class Zygote:
    """The process that the scripts are forks of."""

    def __init__(self) -> None:
        environment = {k: v for k, v in os.environ.items() if k not in SETTINGS}
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error::UserWarning", str(Path(__file__).parent / "zygote.py")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**environment, "PYTHONPATH": str(ROOT)},
        )

    def run(self, **job: Any) -> int:
        assert self._process.stdin is not None and self._process.stdout is not None
        print(json.dumps(job), file=self._process.stdin, flush=True)
        return int(self._process.stdout.readline())

    def close(self) -> None:
        self._process.communicate()


def train_in(folder: Path, zygote: Zygote) -> Train:
    """The function `train(script, ...)` of the tests: runs it in a fork, in `folder`."""
    count = 0

    def train(
        script: str, *arguments: str, watched: bool = True, every: int | str = 1, **settings: Any
    ) -> Observed:
        nonlocal count
        count += 1
        run_dir = folder / f"run-{count}"
        run_dir.mkdir()
        path = folder / "train.py"
        path.write_text(script, encoding="utf-8")
        environment = settings.pop("environment", {})
        expected = settings.pop("status", 0)
        status = zygote.run(
            script=str(path),
            arguments=list(arguments),
            run=str(run_dir) if watched else "",
            settings={"every": every, **settings},
            environment=environment,
            cwd=str(folder),
            stdout=str(folder / "stdout"),
            stderr=str(folder / "stderr"),
        )
        stdout, stderr = (folder / "stdout").read_text(), (folder / "stderr").read_text()
        assert status == expected, stderr
        return Observed(status, stdout, stderr, run_dir)

    return train


def python(
    *arguments: str,
    cwd: Path,
    run_dir: Path | None = None,
    every: int | str = 1,
    **environment: str,
) -> Observed:
    """`python ARGUMENTS` in a process of its own, through the bootstrap if there is a run_dir."""
    inherited = {k: v for k, v in os.environ.items() if k not in SETTINGS}
    if run_dir is not None:
        run_dir.mkdir(exist_ok=True)
        inherited["NNDIAG_RUN"] = str(run_dir)
        inherited["NNDIAG_SETTINGS"] = json.dumps({"every": every})
        path = [str(BOOTSTRAP), *filter(None, [environment.pop("PYTHONPATH", "")])]
        inherited["PYTHONPATH"] = os.pathsep.join(path)
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd,
        env={**inherited, **environment},
        capture_output=True,
        text=True,
        timeout=120,
    )
    return Observed(done.returncode, done.stdout, done.stderr, run_dir or cwd)
