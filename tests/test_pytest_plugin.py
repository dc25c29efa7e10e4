"""The pytest plugin, in a pytest of its own: the fixture, and the section in the summary."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")

TESTS = """
import pytest, torch
from torch import nn
import nndiag

def train(lr, steps=40):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=lr)
    x = torch.randn(64, 8)
    for _ in range(steps):
        optimizer.zero_grad()
        (net(x) - 2 * x[:, :1]).square().mean().backward()
        optimizer.step()

def test_well(nndiag_watch):
    with nndiag_watch() as run: train(0.05)
    run.assert_healthy()

def test_badly(nndiag_watch):
    with nndiag_watch() as run: train(500.0)
    run.assert_healthy()

def test_left_open(nndiag_watch):
    nndiag_watch().start(); train(0.05)

def test_empty(nndiag_watch):
    with nndiag_watch(): pass

def test_without_the_fixture(tmp_path):
    with nndiag.watch(run_dir=tmp_path / "run"): train(0.05)

def test_nothing_watched(): pass
"""


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "test_it.py").write_text(TESTS, encoding="utf-8")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--rootdir", str(folder), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=250,
    )


def section(stdout: str) -> list[str]:
    lines = stdout.splitlines()
    begin = next(i for i, line in enumerate(lines) if line.strip("= ") == "nndiag")
    end = next(i for i in range(begin + 1, len(lines)) if lines[i].startswith("="))
    return lines[begin + 1 : end]


def test_the_summary_says_how_each_watched_run_stands(tmp_path: Path):
    done = run(tmp_path, "--junitxml", "out.xml")

    lines = section(done.stdout)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "1 failed, 5 passed" in done.stdout
    assert "UnhealthyRun: CRITICAL" in done.stdout and "lr 500 -> 50" in done.stdout
    assert "def assert_healthy" not in done.stdout
    assert [line.split()[0] for line in lines if "::" in line] == [
        *("UNDECIDED", "CRITICAL", "UNDECIDED", "NOTHING", "UNDECIDED")
    ]
    assert lines[1].startswith("CRITICAL  test_it.py::test_badly: loss-nonfinite")
    assert lines[2].split()[:2] == ["nndiag", "analyze"] and Path(lines[2].split()[2]).is_dir()
    assert 'name="nndiag" value="critical|loss-nonfinite|' in (tmp_path / "out.xml").read_text()


def test_the_summary_comes_through_xdist(tmp_path: Path):
    pytest.importorskip("xdist")
    done = run(tmp_path, "-n", "1", "-k", "badly or nothing")

    assert [line.split()[0] for line in section(done.stdout)] == ["CRITICAL", "nndiag"]


def test_a_session_that_watches_nothing_says_nothing_and_loads_nothing(tmp_path: Path):
    (tmp_path / "test_plain.py").write_text(
        "import sys\ndef test_it(): assert not {'torch', 'numpy'} & {*sys.modules}\n"
    )
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--rootdir", str(tmp_path), str(tmp_path)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=120,
    )

    assert done.returncode == 0, done.stdout
    assert "= nndiag =" not in done.stdout
