"""The measurement of the overhead still runs, and says what it is to say."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks" / "overhead"


def program(*arguments: object, **environment: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, *map(str, arguments)],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": f"{FOLDER}{os.pathsep}{ROOT}", **environment},
    )


def test_one_command_compares_all_who_are_installed(tmp_path):
    out = tmp_path / "lines.json"
    done = program(
        *(FOLDER / "run.py", "--quick", "--rounds", "1", "--only", "deep", "--out", out),
        *("--contestants", "bare,nndiag,naive"),
    )

    assert done.returncode == 0, done.stderr
    told = json.loads(out.read_text())
    lines = {(line["workload"], line["contestant"]): line for line in told["lines"]}
    for name in ("bare", "nndiag, default", "nndiag, every step", "nndiag, loss only"):
        line = lines["deep", name]
        assert line["missing"] == "" and line["cpu"] > 0
        assert math.isnan(line["told"]) == math.isnan(line["first_s"]) == (name == "bare")
        assert name == "bare" or (line["told"] > 1 and line["first_s"] > 0)
    assert told["start_up"]["import_torch_ms"] > 0
    assert "start-up" in done.stdout and "memory" in done.stdout


def test_what_is_missing_or_fails_is_said_and_the_others_go_on():
    done = program(
        "-c",
        "import contestants, run\n"
        "def fails(training): raise ValueError('too old')\n"
        "run.CONTESTANTS = [contestants.CONTESTANTS[0],"
        " contestants.Contestant('absent', 'no_such_module', contestants.bare),"
        " contestants.Contestant('broken', '', fails),"
        " contestants.Contestant('choosy', '', contestants.bare, on=('cnn',))]\n"
        "for line in run.race('deep', 'quick', 1): print(run.show(line))",
    )

    assert "no_such_module is not installed" in done.stdout, done.stderr
    assert "ValueError: too old" in done.stdout
    assert "it cannot follow this model" in done.stdout
    assert "deep  bare" in done.stdout


def test_the_readme_names_the_command_and_every_contestant():
    readme = (FOLDER / "README.md").read_text()

    assert "python benchmarks/overhead/run.py" in readme
    for word in ("wandb.watch", "torchmortem", "torch-audit", "neuraldbg", "cockpit", "--full"):
        assert word in readme
