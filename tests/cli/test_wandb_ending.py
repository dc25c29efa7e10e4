"""`watch --wandb` for a script without a W&B run of its own, and `export --to wandb`; offline."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from nndiag.cli import wandb_ending
from nndiag.errors import MissingLibrary
from tests.cli.test_watch import script
from tests.watcher.wandb_files import WandbFile, files_in, when_complete

ROOT = Path(__file__).parents[2]
Run = Callable[..., "subprocess.CompletedProcess[str]"]
TRAIN = """
    import torch
    from torch import nn
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    optimizer = torch.optim.Adam(net.parameters(), lr=0.01)
    for step in range(120):
        optimizer.zero_grad()
        net(torch.randn(16, 4)).square().mean().backward()
        optimizer.step()
        if step == 99:
            net[0].weight.data.fill_(float("nan"))
"""


@pytest.fixture(params=[None, ModuleSpec("wandb", None)], ids=["nothing", "the folder ./wandb"])
def no_wandb(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb_ending, "find_spec", lambda name: request.param)


@pytest.fixture
def without_a_key(
    nndiag: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Run, Path]]:
    """Nothing of this machine's W&B settings; the key, if there is one, is not found."""
    pytest.importorskip("wandb", reason="a W&B run is made by wandb: pip install wandb")
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_PROJECT", "WANDB_DIR", "NETRC"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    yield nndiag, tmp_path


def only_run(folder: Path) -> tuple[Path, WandbFile]:
    [path] = files_in(folder)
    return path.parent, when_complete(path)


def test_a_script_without_a_run_gets_one_with_everything(without_a_key: tuple[Run, Path]) -> None:
    pytest.importorskip("torch")
    nndiag, folder = without_a_key

    done = nndiag("watch", "--wandb", "--run-dir", "mine", script(folder, TRAIN))

    assert done.returncode == 0 and done.stdout == ""
    where, run = only_run(folder)
    first, offline, sync = done.stderr.splitlines()[-3:]
    assert first == "nndiag: W&B: the script had no run of its own: writing one"
    assert offline.startswith(
        "nndiag: W&B: 120 steps and 1 alert in a new run, offline (No API key"
    )
    assert sync == f"nndiag: to upload it: wandb sync {where}"
    assert (run.name, run.project, run.exit_code) == ("mine", "nndiag", 0)
    assert [row["_step"] for row in run.rows] == list(range(120))
    assert str(run.rows[-1]["nndiag/loss"]) == "nan" and run.rows[0]["nndiag/loss"] > 0
    assert run.rows[0]["nndiag/lr"] == 0.01
    assert run.rows[0]["layers/0/activation_variance"] > 0
    assert run.rows[0]["parameters/2.weight/grad_norm"] > 0
    [optimizer] = run.config["optimizers"].values()
    assert (optimizer["kind"], optimizer["lr"], optimizer["steps"]) == ("Adam", 0.01, 120)
    assert "torch" in run.config["nndiag"]["environment"]
    assert run.summary["nndiag/verdict"] == "critical"
    assert run.summary["nndiag/finding/loss-nonfinite/steps"].startswith("100")
    assert [(title, level) for title, _, level in run.alerts] == [
        ("nndiag: loss-nonfinite", "ERROR")
    ]
    assert run.host == ""
    events = (folder / "mine" / "rank-0" / "events.jsonl").read_text()
    assert "W&B" not in events and not list(folder.glob("mine/wandb-*"))


def test_any_log_becomes_a_run_under_its_own_names(without_a_key: tuple[Run, Path]) -> None:
    nndiag, folder = without_a_key
    rows = "".join(f"{10 * i},{1 / (i + 1)},{i / 2}\n" for i in range(150))
    (folder / "log.csv").write_text(f"step,train/loss,mine\n{rows}")

    done = nndiag(
        "export", "log.csv", "--to", "wandb", "-o", "w", WANDB_MODE="offline", WANDB_PROJECT="p"
    )

    where, run = only_run(folder / "w")
    assert done.stdout == f"w/wandb/{where.name}\n"
    assert "offline (" not in done.stderr
    assert (run.name, run.project) == ("log.csv", "p")
    assert [row["_step"] for row in run.rows] == list(range(0, 1500, 10))
    assert [row["train/loss"] for row in run.rows] == [1 / (i + 1) for i in range(150)]
    assert run.rows[3]["mine"] == 1.5 and run.alerts == []
    again = nndiag("analyze", "w", "--json")
    [report] = json.loads(again.stdout)["runs"]
    assert (report["verdict"], report["steps"]["last"]) == ("healthy", 1490)


def test_without_the_option_nothing_of_W_and_B_is_loaded(nndiag: Run, tmp_path: Path) -> None:
    pytest.importorskip("torch")
    spy = "import sys, atexit\natexit.register(lambda: print('wandb' in sys.modules))\n"

    done = nndiag("watch", script(tmp_path, spy + TRAIN.replace("\n    ", "\n")))

    assert done.stdout == "False\n"
    assert not list(tmp_path.rglob("*wandb*"))


@pytest.mark.usefixtures("no_wandb")
def test_where_neither_we_nor_the_script_can_have_wandb_it_is_said_before_the_start() -> None:
    with pytest.raises(MissingLibrary) as missing:
        wandb_ending.check(sys.executable)
    assert missing.value.do == "pip install 'nndiag[wandb]'"


@pytest.mark.usefixtures("no_wandb")
def test_a_script_of_another_environment_may_have_its_own_wandb() -> None:
    assert "only a W&B run of the script's own" in wandb_ending.check("/other/bin/python")


TOLD = {
    "one run": (
        [{"id": "a1", "rows": 12, "verdict": "warning", "findings": 2, "alerts": 1, "failed": ""}],
        "W&B: 12 rows, 2 findings and 1 alert in the script's own run a1; ",
    ),
    "a run that was killed": (
        [{"id": "a1", "rows": 12, "failed": ""}],
        "W&B: 12 rows or more, 0 findings and 0 alerts in the script's own run a1; "
        "1 of them without findings: killed, or one of many short ones; ",
    ),
    "a mirror that ended": (
        [{"id": "a1", "rows": 3, "failed": "OSError: gone", "told": True}],
        "own run a1; ended by OSError: gone; ",
    ),
    "several, one without a training": (
        [{"id": "a1", "rows": 3, "verdict": "healthy"}, {"id": "b2", "rows": 0, "told": True}],
        "W&B: 3 rows, 0 findings and 0 alerts in the script's own run a1; ",
    ),
}


@pytest.mark.parametrize(("marks", "told"), TOLD.values(), ids=TOLD)
def test_one_line_says_what_went_into_the_scripts_own_run(
    marks: list[dict[str, object]], told: str, tmp_path: Path
) -> None:
    for number, mark in enumerate(marks):
        (tmp_path / f"wandb-1-{number}.json").write_text(json.dumps(mark))

    [line] = wandb_ending.lines(tmp_path, "runs/x", [])

    assert told in line
    assert line.endswith("every step and layer: nndiag export runs/x --to wandb")


def test_marks_that_cannot_be_read_are_passed_over(tmp_path: Path) -> None:
    (tmp_path / "wandb-1-0.json").write_text("{")
    (tmp_path / "wandb-1-1.json").write_text("[1]")

    assert list(wandb_ending.lines(tmp_path, "runs/x", [])) == []
