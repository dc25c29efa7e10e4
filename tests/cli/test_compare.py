"""`nndiag compare` as a user meets it."""

from __future__ import annotations

import json
import math
import random
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nndiag.cli.compare import groups
from nndiag.errors import BadUsage

SAMPLES = Path(__file__).parent.parent.parent / "sample_runs"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def log(
    path: Path, seed: int, *, shift: float = 0.0, steps: int = 600, every: int = 1, lr: float = 0.1
) -> Path:
    g = random.Random(seed)
    lines = ["step,loss,lr"]
    for step in range(0, steps, every):
        loss = 2 * math.exp(-step / 90) + 0.4 + shift + g.gauss(0, 0.05)
        lines.append(f"{step},{loss:.5f},{lr}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def compared(nndiag: Run, *arguments: str | Path) -> Any:
    done = nndiag("compare", "--json", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def test_a_difference_is_told_with_its_band_and_its_setting(nndiag: Run, tmp_path: Path) -> None:
    log(tmp_path / "a.csv", 1)
    log(tmp_path / "b.csv", 2, shift=-0.2, lr=0.3)
    done = nndiag("compare", "a.csv", "b.csv")

    assert (done.returncode, done.stderr) == (0, "")
    assert "loss: B is lower by 0." in done.stdout and " ± " in done.stdout
    assert "One run a side" in done.stdout
    assert "0.1 | 0.3" in done.stdout


def test_a_copy_is_identical(nndiag: Run, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(SAMPLES / "healthy_mlp" / "run", copy)
    document = compared(nndiag, SAMPLES / "healthy_mlp" / "run", copy)

    [pair] = document["pairs"]
    assert {curve["outcome"] for curve in pair["curves"]} <= {"identical", "undecided"}
    assert pair["findings"] == pair["settings"] == pair["layers"]["different"] == []
    assert pair["layers"]["compared"] > 0


def test_what_a_sick_run_has_and_a_healthy_one_has_not(nndiag: Run) -> None:
    document = compared(
        nndiag, SAMPLES / "healthy_mlp" / "run", SAMPLES / "spike_recovered" / "run"
    )

    [pair] = document["pairs"]
    assert ("appeared", "loss-spike") in [(f["change"], f["name"]) for f in pair["findings"]]
    names = {setting["name"] for setting in pair["settings"]}
    assert {"optimizer", "learning rate", "parameters"} <= names
    assert "torch" not in names and pair["settings_compared"] > len(names)


def test_seeds_against_seeds(nndiag: Run, tmp_path: Path) -> None:
    for i in range(3):
        log(tmp_path / f"a{i}.csv", i)
        log(tmp_path / f"b{i}.csv", 10 + i, shift=-0.2)
    words = ["a0.csv", "a1.csv", "a2.csv", "--with", "b0.csv", "b1.csv", "b2.csv"]
    document = compared(nndiag, *words)

    [pair] = document["pairs"]
    assert [len(side["runs"]) for side in document["sides"]] == [3, 3]
    assert (pair["curves"][0]["basis"], pair["curves"][0]["outcome"]) == ("seeds", "lower")


def test_a_folder_of_runs_is_ranked(nndiag: Run, tmp_path: Path) -> None:
    (tmp_path / "runs").mkdir()
    for name, shift in (("a", 0.0), ("b", -0.2), ("c", 0.3)):
        log(tmp_path / "runs" / f"{name}.csv", ord(name), shift=shift, every=1 + (name == "c"))
    done = nndiag("compare", "runs")

    assert done.returncode == 0
    order = [line.split()[1] for line in done.stdout.splitlines() if line[:2] in ("1.", "2.", "3.")]
    assert order == ["B", "A", "C"]
    assert "(reference)" in done.stdout and "A against B" in done.stdout


def test_a_path_that_cannot_be_read_is_an_error_and_the_rest_is_compared(
    nndiag: Run, tmp_path: Path
) -> None:
    log(tmp_path / "a.csv", 1)
    log(tmp_path / "b.csv", 2)
    done = nndiag("compare", "a.csv", "b.csv", "missing.csv")

    assert done.returncode == 2
    assert "no difference beyond noise" in done.stdout
    assert done.stderr.startswith("missing.csv: ")


@pytest.mark.parametrize("words", [("missing.csv", "a.csv", "b.csv"), ("a.csv", "missing.csv")])
def test_without_the_reference_or_another_run_nothing_is_compared(
    nndiag: Run, tmp_path: Path, words: tuple[str, ...]
) -> None:
    log(tmp_path / "a.csv", 1)
    log(tmp_path / "b.csv", 2)
    done = nndiag("compare", *words)

    assert (done.returncode, done.stdout) == (2, "")
    assert "missing.csv" in done.stderr


WRONG = {
    "one run": (("a.csv",), "nothing to compare it with"),
    "no such option": (("a.csv", "--jsn", "a.csv"), "no such option"),
    "nothing after --with": (("a.csv", "--with"), "needs runs on both sides"),
    "--with twice": (("a.csv", "--with", "a.csv", "--with", "a.csv"), "may be given once"),
    "no such axis": (("a.csv", "a.csv", "--align", "foo"), "one of: step, time, progress"),
    "a format of check": (("a.csv", "a.csv", "--format", "sarif"), "not for compare"),
}


@pytest.mark.parametrize(("words", "said"), WRONG.values(), ids=WRONG)
def test_wrong_usage_is_one_clear_error(
    nndiag: Run, tmp_path: Path, words: tuple[str, ...], said: str
) -> None:
    log(tmp_path / "a.csv", 1)
    done = nndiag("compare", *words)

    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr and "Traceback" not in done.stderr


def test_paths_are_grouped_as_they_stand() -> None:
    assert groups(["a", "b"]) == [["a", "b"]]
    assert groups(["a", "b", "--with", "c"]) == [["a", "b"], ["c"]]
    assert groups(["a", "--with=c", "d"]) == [["a"], ["c", "d"]]
    with pytest.raises(BadUsage):
        groups(["--with", "a"])


def test_a_report_goes_to_a_file(nndiag: Run, tmp_path: Path) -> None:
    log(tmp_path / "a.csv", 1)
    log(tmp_path / "b.csv", 2)
    done = nndiag("compare", "a.csv", "b.csv", "--format", "markdown", "-o", "page.md")

    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert (tmp_path / "page.md").read_text(encoding="utf-8").startswith("## nndiag: comparison")


def test_hostile_names_and_an_ascii_pipe(nndiag: Run, tmp_path: Path) -> None:
    log(tmp_path / "a.csv", 1)
    hostile = tmp_path / "\x1b[31m[red]é.csv"
    log(hostile, 2)
    done = nndiag("compare", "a.csv", hostile.name, PYTHONUTF8="0", PYTHONIOENCODING="ascii")

    assert done.returncode == 0
    assert done.stdout.isascii() and "\x1b" not in done.stdout


def test_comparing_loads_no_torch(nndiag: Run, tmp_path: Path) -> None:
    log(tmp_path / "a.csv", 1)
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')", encoding="utf-8")

    assert nndiag("compare", "a.csv", "a.csv").returncode == 0
