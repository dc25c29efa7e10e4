"""`nndiag watch --wandb` and the script's own W&B runs, offline.

One script logs in every way that people do; it runs once without us and once watched.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import types
from dataclasses import dataclass
from pathlib import Path

import pytest

from nndiag.adapters.base import StepRow
from nndiag.watcher import analysis_apart
from nndiag.watcher.logger_taps import rebind_wandb_log
from nndiag.watcher.session import Guard
from nndiag.watcher.wandb_mirror import WandbMirror
from tests.watcher.wandb_files import WandbFile, files_in, when_complete

pytest.importorskip("wandb", reason="the script under test logs to wandb: pip install wandb")
pytest.importorskip("torch")

NAMES = {f"{layer}.{kind}" for layer in (0, 3) for kind in ("weight", "bias")}
ROOT = Path(__file__).resolve().parents[2]

# ids in the order in which the runs are made, so that files sort so too
SCRIPT = """
import hashlib, random
import numpy, torch, wandb
from torch import nn

torch.manual_seed(0), random.seed(0), numpy.random.seed(0)
data = torch.randn(64, 8)
quiet = wandb.Settings(silent=True, console="off", x_disable_stats=True, x_disable_meta=True)


def training():
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 1))
    optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
    nets.append(net)

    def step():
        optimizer.zero_grad()
        loss = (net(data) - data.sum(1, keepdim=True)).square().mean()
        loss.backward()
        optimizer.step()
        return loss.item()

    return step


def init(name, **more):
    return wandb.init(project="toy", id=name, settings=quiet, mode="offline", **more)


nets, told = [], []

step, run = training(), init("a-auto")
for _ in range(12):
    wandb.log({"loss": step()})
told.append(run.step)
wandb.finish()
step()  # nobody is there

step, run = training(), init("b-third")
for i in range(13):
    loss = step()
    if i % 3 == 0:
        run.log({"loss": loss})
told.append(run.step)
run.finish()

step = training()
with init("c-explicit") as run:
    for i in range(8):
        run.log({"loss": step()}, step=10 * i + 5)
        run.log({"accuracy": i / 8}, step=10 * i + 5)
    told.append(run.step)

step, run = training(), init("d-epochs")
for i in range(12):
    run.log({"loss": step()})
    if i % 4 == 3:
        run.log({"val_loss": i / 2, "epoch": i // 4}, step=i // 4)  # lags: W&B drops it
told.append(run.step)
run.finish()

step, run = training(), init("e-parts")
for i in range(6):
    run.log({"loss": step()}, commit=False)
    run.log({"part": i}, commit=i % 2 == 1)
    run.log({})
told.append(run.step)
run.finish()

step, run = training(), init("f-epoch-steps")
for i in range(12):
    loss = step()
    if i % 4 == 3:
        run.log({"loss": loss}, step=i // 4, commit=True)
told.append(run.step)
run.finish()

step, run = training(), init("f-globs")  # whose own axis must not come into rows through ours
run.define_metric("*", step_metric="epoch")
for name in ("epoch", "val/step"):
    run.define_metric(name)
run.define_metric("val/x", step_metric="val/step")
for i in range(6):
    loss = step()
    run.log({"epoch": i} if i % 2 else {"val/x": loss, "val/step": 2 * i})
told.append(run.step)
run.finish()

off = wandb.init(mode="disabled")
for _ in range(3):
    wandb.log({"loss": step()})
off.finish()

step, run = training(), init("g-left-open", reinit="create_new")
side = init("h-side", reinit="create_new")
for i in range(120):
    loss = step()
    run.log({"loss": loss if i < 100 else float("nan")})
    if i == 99:
        nets[-1][0].weight.data.fill_(float("nan"))
    side.log({"twice": 2 * i})

weights = b"".join(p.detach().numpy().tobytes() for net in nets for p in net.parameters())
state = [torch.rand(1).item(), random.random(), numpy.random.random()]
print(told, hashlib.sha256(weights).hexdigest(), state)
# the rest is W&B's own hook at exit
"""


@dataclass
class Trained:
    """What a run of the script has left."""

    stdout: str
    stderr: str
    folder: Path
    runs: dict[str, WandbFile]
    marks: dict[str, dict]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Trained, Trained]:
    """(plain, watched)"""
    plain = start(tmp_path_factory.mktemp("plain"), [sys.executable])
    watch = [sys.executable, "-m", "nndiag", "watch", "--wandb", "--every", "1", "--run-dir", "run"]
    watched = start(tmp_path_factory.mktemp("watched"), watch)
    return finished(*plain), finished(*watched)


def start(folder: Path, command: list[str]) -> tuple[subprocess.Popen[str], Path]:
    (folder / "train.py").write_text(SCRIPT)
    environment = {k: v for k, v in os.environ.items() if not k.startswith("WANDB_")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "HOME": str(folder)}
    process = subprocess.Popen(
        [*command, "train.py"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    return process, folder


def finished(process: subprocess.Popen[str], folder: Path) -> Trained:
    stdout, stderr = process.communicate(timeout=200)
    assert process.returncode == 0, stderr
    runs = {path.stem.removeprefix("run-"): when_complete(path) for path in files_in(folder)}
    marks = {m["id"]: m for m in map(json.loads, map(Path.read_text, folder.glob("run/wandb-*")))}
    return Trained(stdout, stderr, folder, runs, marks)


def test_the_training_is_the_same_and_so_is_the_scripts_step_counter(
    trained: tuple[Trained, Trained],
) -> None:
    plain, watched = trained

    assert watched.stdout == plain.stdout != ""


def test_the_scripts_rows_are_the_same_rows_at_the_same_steps(
    trained: tuple[Trained, Trained],
) -> None:
    plain, watched = trained

    assert len(plain.runs) == 9 == len(watched.runs)
    for name, run in plain.runs.items():
        assert str(watched.runs[name].theirs) == str(run.theirs), name  # a NaN is itself
        assert watched.runs[name].exit_code == run.exit_code == 0
        assert run.ours == [] and len(run.rows) >= 3


def test_what_was_measured_rides_on_these_rows(trained: tuple[Trained, Trained]) -> None:
    _, watched = trained

    steps = {n: [row.get("nndiag/step") for row in r.rows] for n, r in watched.runs.items()}
    assert steps["a-auto"] == list(range(12))
    assert steps["b-third"] == [0, 3, 6, 9, 12]
    assert steps["c-explicit"] == list(range(8))
    assert steps["f-epoch-steps"] == [3, 7, 11]
    for row in watched.runs["a-auto"].rows:
        assert row["nndiag/loss"] == pytest.approx(row["loss"])
        assert row["nndiag/lr"] == 0.05 and row["nndiag/grad_norm"] > 0
        assert 0 <= row["nndiag/layers/max_dead_unit_fraction"] <= 1
        assert row["nndiag/layers/min_grad_norm"] <= row["nndiag/layers/max_grad_norm"]
        assert row["nndiag/layers/max_activation_variance"] > 0
        assert row["nndiag/update_ratio"] > 0
    assert "nndiag/step" in watched.runs["h-side"].rows[-1]


def test_our_axis_is_defined_once_for_each_key_and_hidden(trained: tuple[Trained, Trained]) -> None:
    _, watched = trained

    run = watched.runs["a-auto"]
    [hidden, *ours] = [m for m in run.metrics if m[0].startswith("nndiag/")]
    assert hidden == ("nndiag/step", "", True)
    keys = {key for row in run.ours for key in row} - {"nndiag/step"}
    assert sorted(ours) == sorted((key, "nndiag/step", False) for key in keys)


def test_a_run_that_W_and_B_finishes_at_exit_has_findings_and_alerts(
    trained: tuple[Trained, Trained],
) -> None:
    _, watched = trained

    run = watched.runs["g-left-open"]
    assert run.summary["nndiag/verdict"] == "critical"
    assert run.summary["nndiag/finding/loss-nonfinite/severity"] == "critical"
    assert run.summary["nndiag/finding/loss-nonfinite/steps"].startswith("100")
    assert "NaN" in run.summary["nndiag/finding/loss-nonfinite/message"]
    assert run.summary["nndiag/finding/loss-nonfinite/remedy"]
    assert run.summary["nndiag/overhead_percent"] >= 0
    [(title, text, level)] = [a for a in run.alerts if "loss-nonfinite" in a[0]]
    assert (title, level) == ("nndiag: loss-nonfinite", "ERROR")
    assert "100" in text


def test_findings_are_not_told_to_a_run_that_other_optimizers_trained(
    trained: tuple[Trained, Trained],
) -> None:
    _, watched = trained

    for name in ("a-auto", "b-third", "c-explicit"):
        run = watched.runs[name]
        assert run.summary["nndiag/verdict"], name
        assert run.summary["nndiag/layers/max_grad_norm.where"] in NAMES
        assert run.alerts == []
        assert not [key for key in run.summary if "nonfinite/" in key]


def test_what_was_done_is_left_for_the_supervisor(trained: tuple[Trained, Trained]) -> None:
    _, watched = trained

    assert set(watched.marks) == set(watched.runs)
    assert watched.marks["a-auto"]["rows"] == 12
    assert all(mark["told"] and not mark["failed"] for mark in watched.marks.values())


class FakeRun:
    """As much of W&B's class as the mirror uses."""

    disabled = False
    broken = False
    id = "fake"

    def __init__(self) -> None:
        self.logged: list[tuple[dict, int | None, bool | None]] = []

    def log(self, data, step=None, commit=None):
        self.logged.append((data, step, commit))

    def finish(self):
        self.logged.append(({"finished": 1}, None, None))

    def define_metric(self, *args, **kwargs):
        if self.broken:
            raise OSError("the service is gone")


def mirrored(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    notes: list[str] | None = None,
    **attributes: object,
) -> tuple:
    """A mirror after one step, and a run of an own class that is `wandb.run`."""
    cls = type("Run", (FakeRun,), {"log": FakeRun.log, "finish": FakeRun.finish, **attributes})
    mirror = WandbMirror(str(tmp_path), "/no/such/python", Guard())
    mirror.note = (notes if notes is not None else []).append
    mirror.attach(types.SimpleNamespace(Run=cls))
    run = cls()
    monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(run=run))
    mirror.saw_step("SGD", 7, StepRow(loss=0.5, backward_calls=1, lrs=[0.1], grad_norm=-1.0))
    return mirror, run


def mark(tmp_path: Path) -> dict:
    [path] = tmp_path.glob("wandb-*-0.json")
    return json.loads(path.read_text())


def test_ours_ride_in_the_scripts_own_call_once_and_give_way(tmp_path, monkeypatch):
    _, run = mirrored(tmp_path, monkeypatch)
    row = {"loss": 1.0, "nndiag/lr": "mine"}

    run.log(row, step=3)
    run.log(data={"more": 2.0}, step=3)

    ours = {"nndiag/step": 7, "nndiag/loss": 0.5, "nndiag/lr": "mine", "loss": 1.0}
    assert run.logged == [(ours, 3, None), ({"more": 2.0}, 3, None)]
    assert row == {"loss": 1.0, "nndiag/lr": "mine"}


LEFT_ALONE = {
    "a step that lags": (({"loss": 1.0}, 3), {"_local_step": 4}),
    "a step that is no number": (({"loss": 1.0}, "3"), {}),
    "no mapping": (([1.0],), {}),
    "nothing": (({},), {}),
    "a disabled run": (({"loss": 1.0},), {"disabled": True}),
    "a finished run": (({"loss": 1.0},), {"_is_finished": True}),
}


@pytest.mark.parametrize(("args", "attributes"), LEFT_ALONE.values(), ids=LEFT_ALONE)
def test_leaves_alone(args, attributes, tmp_path, monkeypatch):
    _, run = mirrored(tmp_path, monkeypatch, **attributes)

    run.log(*args)

    assert [row for row, *_ in run.logged] == [args[0]]


def test_an_error_of_W_and_B_ends_the_mirror_and_nothing_else(tmp_path, monkeypatch):
    notes = []
    _, run = mirrored(tmp_path, monkeypatch, notes, broken=True)

    for _ in range(5):
        run.log({"loss": 1.0})

    assert run.logged == [({"loss": 1.0}, None, None)] * 5
    assert notes == ["the W&B mirror ended: OSError: the service is gone"]


def test_a_run_is_finished_though_its_diagnosis_cannot_be_made(tmp_path, monkeypatch):
    _, run = mirrored(tmp_path, monkeypatch)

    run.finish()

    assert run.logged == [({"finished": 1}, None, None)]
    assert mark(tmp_path)["failed"].startswith("FileNotFoundError")


def test_a_ctrl_c_at_exit_gives_up_the_diagnosis_and_nothing_else(tmp_path, monkeypatch):
    def interrupted(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    mirror, run = mirrored(tmp_path, monkeypatch)
    monkeypatch.setattr(analysis_apart, "diagnose", interrupted)

    mirror._at_exit()
    run.finish()

    assert run.logged == [({"finished": 1}, None, None)]
    assert "told" not in mark(tmp_path)


def test_a_run_that_is_killed_has_left_a_mark_of_its_rows(tmp_path, monkeypatch):
    mirror, run = mirrored(tmp_path, monkeypatch)
    assert mark(tmp_path)["rows"] == 0

    for step in range(5):
        mirror.saw_step("SGD", step, StepRow(loss=0.5, backward_calls=1))
        run.log({"loss": 1.0})

    assert mark(tmp_path) == {"id": "fake", "rows": 4, "failed": ""}


def test_many_short_runs_do_not_wait_for_as_many_diagnoses(tmp_path, monkeypatch):
    asked = []
    mirror, run = mirrored(tmp_path, monkeypatch)
    monkeypatch.setattr(analysis_apart, "diagnose", lambda *a, **k: asked.append(a) or {})
    mirror._spent_s = 1e9

    run.finish()

    assert asked == [] and mark(tmp_path)["told"] and "verdict" not in mark(tmp_path)


def test_a_run_made_before_torch_was_imported_is_logged_to_by_wandb_log(monkeypatch):
    run = FakeRun()
    wandb = types.SimpleNamespace(run=run, log=run.log)
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    monkeypatch.setattr(FakeRun, "log", lambda self, data: "ours")

    rebind_wandb_log()

    assert wandb.log({}) == "ours"


def test_our_own_reader_sees_the_same_rows(trained: tuple[Trained, Trained]) -> None:
    from nndiag.readers.wandb import wandb_run

    _, watched = trained
    [path] = [p for p in files_in(watched.folder) if "a-auto" in p.name]

    series = {s.label: s.values.tolist() for s in wandb_run.read(path).series}

    rows = watched.runs["a-auto"].rows
    assert series["loss"] == [row["loss"] for row in rows]
    assert series["nndiag/grad_norm"] == [row["nndiag/grad_norm"] for row in rows]


def test_our_own_values_are_not_read_back_as_the_scripts(
    trained: tuple[Trained, Trained],
) -> None:
    _, watched = trained

    events = (watched.folder / "run" / "rank-0" / "events.jsonl").read_text()
    told = [e for e in map(json.loads, events.splitlines()) if e["event"] == "metric"]
    assert {e["name"] for e in told} == {"val_loss", "accuracy"}
