"""What the live view says, and that it says it within its frame."""

from __future__ import annotations

import json
import math
import re
from pathlib import Path

import pytest
from rich.cells import cell_len

from nndiag.journal.writer import EventWriter, StreamWriter, make_directory
from nndiag.watcher.checkup import Checkup, Seen
from nndiag.watcher.frame import sparkline
from nndiag.watcher.live import LiveView

COLUMNS = [("loss", ""), ("backward_calls", ""), ("lr", ""), ("grad_norm", "")]
COLUMNS += [("clip_threshold", ""), ("nndiag_time_s", "")]


def plain(lines: object) -> str:
    assert isinstance(lines, list)
    return re.sub(r"\x1b\[[0-9;]*m", "", "\n".join(lines))


class Run:
    """A run directory with a few steps in it."""

    def __init__(self, path: Path) -> None:
        self.path = path / "train-1"
        self.rank = self.path / "rank-0"
        make_directory(str(self.rank))
        self.checkup = Checkup(self.path)
        self.writers = 0

    def train(self, losses: list[float], owner: str = "Adam", clip: float = math.nan) -> None:
        path = self.rank / f"steps-{self.writers}.arrows"
        self.writers += 1
        writer = StreamWriter(str(path), owner=owner, columns=COLUMNS)
        for step, loss in enumerate(losses):
            writer.append(step, step / 50, [loss, 1, 3e-4, 0.5 + step % 2, clip, 0.02 * 0.013])

    def view(self, label: str = "train.py", columns: int = 80, rows: int = 9) -> str:
        lines = LiveView(self.path, label, self.checkup).lines(columns, rows)
        assert len(lines) == rows
        text = plain(list(lines))
        assert {cell_len(line) for line in text.split("\n")} == {columns}
        return text


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return Run(tmp_path)


def test_before_the_first_step_it_says_what_it_waits_for(run: Run) -> None:
    assert "starting" in run.view()
    (run.path / "attached-1").touch()
    assert "waiting for the first optimizer step" in run.view()


def test_a_training_in_numbers(run: Run) -> None:
    run.train([2.0 / (step + 1) for step in range(200)], clip=1.0)
    process = {
        "device": "cpu",
        "models": [{"name": "Net", "parameters": [{"shape": [100, 12]}, {"shape": [34]}]}],
    }
    (run.rank / "process.json").write_text(json.dumps(process))
    text = run.view()

    assert "train.py" in text
    assert "Net, 1.23 k parameters, cpu" in text
    assert "step 199" in text
    assert re.search(r"loss +0\.01 +█[▁-█]+▁  from", text)
    assert "50 % clipped at 1" in text
    assert re.search(r"lr +0\.0003", text)
    assert "50 steps/s" in text
    assert "overhead 1.3 %" in text


def test_findings_so_far_with_their_place(run: Run) -> None:
    run.train([1.0] * 10)
    run.checkup.verdict = "critical"
    run.checkup.findings = (
        Seen("dead-relu", "critical", "98 % of the units", ("net.1", "net.3"), 400),
        *(Seen(f"loss-{name}", "warning") for name in ("spike", "plateau", "x", "y")),
    )
    text = run.view()

    assert re.search(r"findings +● dead-relu +net\.1 \+1 +from step 400", text)
    assert "● loss-spike" in text
    assert "and loss-plateau, loss-x, loss-y" in text


def test_the_worst_layers(run: Run) -> None:
    run.train([1.0] * 10)
    columns = [("dead_unit_fraction", "net.1"), ("dead_unit_fraction", "net.3")]
    columns += [("param_grad_norm", "net.0.weight"), ("param_grad_norm", "net.2.weight")]
    columns += [("param_grad_norm", "frozen")]
    writer = StreamWriter(
        str(run.rank / "layers-0.arrows"), owner="Adam", columns=columns, dtype="f4"
    )
    writer.append(0, 0.0, [0.1, 0.75, 1e-6, 1.0, -1.0])
    text = run.view(columns=100)

    assert "net.3: 75 % dead" in text
    assert "smallest gradient net.0.weight: 1e-06 of all" in text


def test_two_optimizers_have_a_line_each(run: Run) -> None:
    run.train([1.0, 2.0], owner="Adam(Critic)")
    run.train([3.0, 4.0], owner="Adam(Generator)")
    text = run.view()

    assert re.search(r"loss Critic +2", text)
    assert re.search(r"loss Generator +4", text)


def test_what_the_script_reports_is_shown_where_there_is_room(run: Run) -> None:
    run.train([1.0] * 10)
    events = EventWriter(str(run.rank / "events.jsonl"))
    events.append({"event": "metric", "name": "epoch", "value": 3.0, "step": 9})
    events.append({"event": "metric", "name": "val_loss", "value": 0.25, "step": 9})

    assert "reported       val_loss 0.25   epoch 3" in run.view(rows=12, columns=120)


def test_a_loss_that_is_not_finite_is_seen(run: Run) -> None:
    run.train([1.0, 2.0, 3.0, math.nan])
    text = run.view()

    assert re.search(r"loss +NaN +▁▅█×", text)


HOSTILE = "\x1b[2J\x07\n\r\u202e[bold]日本語" + "x" * 300


@pytest.mark.parametrize("columns", [50, 51, 80, 133, 250])
@pytest.mark.parametrize("rows", [9, 12])
def test_hostile_and_long_texts_stay_inside_the_frame(run: Run, columns: int, rows: int) -> None:
    run.train([1.0] * 10, owner=f"Adam({HOSTILE})")
    run.train([1.0] * 10, owner=HOSTILE)
    run.checkup.findings = (Seen(HOSTILE, HOSTILE, HOSTILE, (HOSTILE,), 3),)
    models = [{"name": HOSTILE, "parameters": [{"shape": [10**9, 10**9]}]}]
    (run.rank / "process.json").write_text(json.dumps({"device": HOSTILE, "models": models}))
    view = LiveView(run.path, HOSTILE, run.checkup)
    lines = list(view.lines(columns, rows))

    assert {cell_len(line) for line in plain(lines).split("\n")} == {columns}
    assert not set(plain(lines)) & {"\x1b", "\x07", "\r", "\u202e"}


SPARKS = {
    "a rise": ([1, 2, 3, 4, 5, 6, 7, 8], "▁▂▃▄▅▆▇█"),
    "a constant": ([2, 2, 2], "▁▁▁"),
    "a constant but for rounding": ([0.1 + 0.2, 0.3, 0.3], "▁▁▁"),
    "a fall over decades": ([1000, 100, 10, 1], "█▆▃▁"),
    "negative numbers": ([-1, 0, 1], "▁▅█"),
    "holes": ([1, math.nan, math.inf, 2], "▁××█"),
    "nothing finite": ([math.nan], "×"),
    "nothing": ([], ""),
    "no change that counts": ([1e300, 1e300], "▁▁"),
    "the whole range": ([-1e308, 1e308], "▁█"),
}


@pytest.mark.parametrize(("values", "drawn"), SPARKS.values(), ids=SPARKS)
def test_a_sparkline(values: list[float], drawn: str) -> None:
    assert sparkline(values) == drawn
