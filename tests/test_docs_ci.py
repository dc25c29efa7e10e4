"""docs/ci.md does what it says: its commands run as a CI server would run them."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cli.test_analyze import loss_log

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
TRAIN = """\
import argparse, torch
asked = argparse.ArgumentParser()
asked.add_argument("--steps", type=int)
asked.add_argument("--seed", type=int, default=7)
asked.add_argument("--lr", type=float, default=0.05)
asked = asked.parse_args()
torch.manual_seed(asked.seed)
net = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
optimizer = torch.optim.SGD(net.parameters(), lr=asked.lr)
for step in range(asked.steps):
    x = torch.randn(32, 4)
    loss = ((net(x) - x.sum(1, keepdim=True)) ** 2).mean()
    optimizer.zero_grad(); loss.backward(); optimizer.step()
"""


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.M | re.S)


def documents() -> tuple[Any, Any, Any]:
    github, gitlab, pre_commit = (yaml.safe_load(block) for block in blocks("yaml"))
    return github, gitlab, pre_commit


@pytest.fixture
def shell(tmp_path: Path) -> Any:
    """Run a command as a CI job does: no terminal, CI=true, our program on the path."""
    program = tmp_path / "bin" / "nndiag"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m nndiag "$@"\n')
    program.chmod(0o755)
    work = tmp_path / "checkout"
    work.mkdir()

    def run(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GITHUB_", "NNDIAG_"))}
        return subprocess.run(
            ["bash", "-e", "-c", command],
            cwd=work,
            capture_output=True,
            text=True,
            encoding="utf-8",
            stdin=subprocess.DEVNULL,
            env={
                **kept,
                "PATH": f"{program.parent}{os.pathsep}{os.environ['PATH']}",
                "PYTHONPATH": str(ROOT),
                "CI": "true",
                "OMP_NUM_THREADS": "1",
                **environment,
            },
        )

    run.work = work  # type: ignore[attr-defined]
    return run


@pytest.mark.timeout(900)  # seven small trainings, each with the start of torch
def test_the_workflows_run_as_they_are_printed(shell: Any) -> None:
    pytest.importorskip("torch")
    (shell.work / "train.py").write_text(TRAIN)
    (shell.work / "requirements.txt").touch()
    [learn] = blocks("sh")
    learned = shell(learn)
    assert learned.returncode == 0, learned.stderr
    assert "wrote baseline.json: 5 runs" in learned.stdout

    github, gitlab, _ = documents()
    [job] = github["jobs"].values()
    summary = shell.work.parent / "summary.md"
    on_github = {"GITHUB_ACTIONS": "true", "GITHUB_STEP_SUMMARY": str(summary)}
    commands = [step["run"] for step in job["steps"] if "run" in step]
    assert len(commands) == 4
    for command in commands[1:]:
        done = shell(command, **on_github)
        assert done.returncode == 0, (command, done.stdout, done.stderr)
    assert summary.read_text(encoding="utf-8").startswith("## nndiag: passed")
    uploaded = job["steps"][-1]["with"]["sarif_file"]
    assert (shell.work / uploaded).is_file()

    done = shell(gitlab["train"]["script"][2])
    assert done.returncode == 0, done.stderr
    report = shell.work / gitlab["train"]["artifacts"]["reports"]["junit"]
    assert ET.parse(report).getroot().get("failures") == "0"

    check = next(command for command in commands if command.startswith("nndiag check"))
    train = next(command for command in commands if command.startswith("nndiag watch"))
    shell(f"{train.replace('runs/pr', 'runs/worse')} --lr 0.0005")
    worse = shell(check.replace("runs/pr", "runs/worse"), **on_github)
    assert worse.returncode == 1
    assert "::warning title=" in worse.stdout
    assert "## nndiag: failed" in summary.read_text(encoding="utf-8")


def hooks() -> list[dict[str, Any]]:
    _, _, pre_commit = documents()
    ours = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text(encoding="utf-8"))
    return [*pre_commit["repos"][0]["hooks"], *ours]


@pytest.mark.parametrize("hook", hooks(), ids=lambda hook: hook["language"])
def test_the_pre_commit_hook_judges_the_logs_of_a_commit(hook: dict[str, Any], shell: Any) -> None:
    well, sick = loss_log(shell.work / "metrics.csv"), shell.work / "run" / "metrics.csv"
    sick.parent.mkdir()
    lines = well.read_text().splitlines()
    sick.write_text("\n".join([*lines[:400], *(f"{i},nan,nan" for i in range(399, 450))]) + "\n")
    chosen = [
        path
        for path in ("metrics.csv", "run/metrics.csv", "train.py")
        if re.search(hook["files"], path)
    ]

    assert chosen == ["metrics.csv", "run/metrics.csv"]
    assert shell(f"{hook['entry']} {chosen[0]}").returncode == 0
    assert shell(f"{hook['entry']} {' '.join(chosen)}").returncode == 1


def test_the_settings_on_the_page_are_accepted(shell: Any) -> None:
    loss_log(shell.work / "log.csv")
    [settings] = blocks("toml")
    (shell.work / "pyproject.toml").write_text(settings)

    done = shell("nndiag check log.csv")
    assert done.returncode == 0, done.stderr
    assert "fails on critical, overfitting" in done.stdout
