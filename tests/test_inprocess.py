"""`nndiag.watch` in a program: what is seen, what is judged, and that nothing stays behind."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import nndiag
from nndiag.errors import BadUsage, CannotStart
from nndiag.records import Verdict

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from nndiag.inprocess import NothingToJudge, UnhealthyRun, WatchedRun  # noqa: E402


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def nothing_is_left_behind() -> Iterator[None]:
    before = surroundings()
    yield
    assert surroundings() == before


def surroundings() -> dict[str, object]:
    """All of torch that the adapter puts something into."""
    optimizers, modules = sys.modules["torch.optim.optimizer"], nn.modules.module
    places = {
        "autograd": torch.autograd,
        "tensor": torch.Tensor,
        "clip": sys.modules["torch.nn.utils.clip_grad"],
        "clips": nn.utils,
        "optimizer": torch.optim.Optimizer,
        "scaler": torch.amp.GradScaler,
        "modules": modules,
    }
    # torch fills `Optimizer._zero_grad_profile_name` and the like by itself
    found: dict[str, object] = {
        name: {k: id(v) for k, v in vars(place).items() if callable(v)}
        for name, place in places.items()
    }
    for place in (optimizers, modules):
        for name, hooks in vars(place).items():
            if name.startswith("_global_") and isinstance(hooks, dict):
                found[name] = len(hooks)
    return found


def net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))


def train(model: nn.Module, lr: float = 0.05, steps: int = 40) -> list[float]:
    optimizer = torch.optim.SGD(model.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 8, generator=generator)
    losses = []
    for _ in range(steps):
        optimizer.zero_grad()
        loss = (model(x) - 2 * x[:, :1]).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1e9)
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def test_a_block_is_recorded_as_a_watched_script_is():
    model = net()
    with nndiag.watch(every=1) as run:
        losses = train(model)
        run.log(val_loss=0.25)

    seen = run.diagnosis.run
    [loss] = seen.series_of("loss")
    assert loss.values.tolist() == pytest.approx(losses, rel=1e-6)
    assert [s.values.tolist() for s in seen.series_of("val_loss")] == [[0.25]]
    assert [layer.name for layer in seen.layers] == ["0", "1", "2"]
    assert {s.where for s in seen.series_of("activation_variance")} == {"0", "1", "2"}
    assert {p.name for p in seen.parameters} == {"0.weight", "0.bias", "2.weight", "2.bias"}
    assert run.path.parent == Path.cwd() / "nndiag-runs" and run.path.name.startswith("pytest-")
    assert not any("still going on" in note for note in seen.notes)
    assert nndiag.analyze(run.path).diagnoses[0].verdict is run.verdict


def test_the_training_is_the_same_with_and_without():
    def trained(watched: bool) -> list[object]:
        model = net()
        if watched:
            with nndiag.watch(model, every=1):
                losses = train(model)
        else:
            losses = train(model)
        return [losses, [p.tolist() for p in model.parameters()], torch.get_rng_state().tolist()]

    assert trained(True) == trained(False)


def test_one_block_after_the_other_has_its_own_record():
    runs = []
    for steps in (5, 7):
        with nndiag.watch() as run:
            train(net(), steps=steps)
        runs.append(run)
        train(net(), steps=3)  # between the blocks nothing is recorded

    assert [len(next(iter(r.diagnosis.run.series_of("loss")))) for r in runs] == [5, 7]


def test_a_block_within_a_block_is_recorded_by_both():
    with nndiag.watch() as outer:
        train(net(), steps=4)
        with nndiag.watch() as inner:
            train(net(), steps=6)
        train(net(), steps=2)

    assert len(next(iter(inner.diagnosis.run.series_of("loss")))) == 6
    assert sum(len(s) for s in outer.diagnosis.run.series_of("loss")) == 12


def test_layers_are_seen_where_something_was_compiled_before():
    script = """
import sys, torch, torch.nn as nn, nndiag
from torch._dynamo.testing import CompileCounter
counter = CompileCounter()
other = torch.compile(nn.Sequential(nn.Linear(4, 4), nn.ReLU()), backend=counter)
other(torch.randn(2, 4))
net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
opt = torch.optim.SGD(net.parameters(), lr=0.1)
with nndiag.watch(every=1) as run:
    for step in range(3):
        other(torch.randn(2, 4))
        opt.zero_grad(); net(torch.randn(16, 4)).square().mean().backward(); opt.step()
layers = {s.where for s in run.diagnosis.run.series_of("activation_mean")}
sys.exit(0 if {"0", "1", "2"} <= layers and counter.frame_count == 1 else f"{layers}, {counter}")
"""
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=environment
    )

    assert done.returncode == 0, done.stderr


def test_a_healthy_run_passes_and_a_broken_one_fails_with_its_report():
    with nndiag.watch() as run:
        train(net())
    run.assert_healthy()

    with nndiag.watch() as run:
        train(net(), lr=500.0)
    with pytest.raises(AssertionError) as raised:
        run.assert_healthy()
    assert isinstance(raised.value, UnhealthyRun)
    assert [finding.name for finding in raised.value.findings] == ["loss-nonfinite"]
    assert "lr 500 -> " in str(raised.value) and str(run.path) in str(raised.value)
    assert "loss-nonfinite" in repr(run)


def test_findings_can_be_ignored_and_limits_set():
    with nndiag.watch() as run:
        train(net(), lr=500.0)

    names = {finding.name for finding in run.findings}
    run.assert_healthy(ignore=[*names, "loss-divergence", "loss-spike", "nonfinite-tensor"])
    run.assert_healthy(fail_on=["dead-relu"])
    with pytest.raises(UnhealthyRun):
        run.assert_healthy(fail_on="critical")


def test_too_little_to_judge_fails_only_a_strict_test():
    with nndiag.watch() as run:
        train(net(), steps=6)

    assert run.verdict is Verdict.UNDECIDED
    run.assert_healthy()
    with pytest.raises(UnhealthyRun, match="undecided"):
        run.assert_healthy(strict=True)


def test_an_exception_passes_and_what_was_seen_stays():
    run = nndiag.watch()
    with pytest.raises(KeyError, match="mine"), run:
        train(net(), steps=5)
        raise KeyError("mine")

    assert any("KeyError" in note for note in run.diagnosis.run.notes)


def test_it_starts_and_stops_without_a_block():
    run = nndiag.watch().start()
    train(net(), steps=5)
    assert len(next(iter(run.diagnosis.run.series_of("loss")))) == 5
    train(net(), steps=4)
    assert run.stop() is run.stop()

    assert sum(len(s) for s in run.diagnosis.run.series_of("loss")) == 9


def test_what_was_not_trained_cannot_be_healthy():
    with nndiag.watch() as run:
        net()(torch.randn(2, 8))

    with pytest.raises(NothingToJudge) as raised:
        run.assert_healthy()
    assert "optimizer.step()" in raised.value.do
    assert "nothing" in repr(run) or "no optimizer" in repr(run)


@pytest.mark.parametrize(
    ("arguments", "options", "what"),
    [
        ((3,), {}, "models must be nn.Modules"),
        ((), {"every": 0}, "positive"),
        ((), {"every": "often"}, "positive"),
        ((), {"overhead_percent": -1.0}, "0 to 100"),
    ],
)
def test_wrong_arguments_are_told_at_once(arguments: tuple, options: dict, what: str):
    with pytest.raises(BadUsage, match=what):
        nndiag.watch(*arguments, **options)


def test_wrong_names_and_wrong_order_are_told():
    run = nndiag.watch()
    assert repr(run) == "<nndiag.watch, not started>"
    with pytest.raises(BadUsage, match="not started"):
        run.assert_healthy()
    with run:
        train(net(), steps=5)
    with pytest.raises(BadUsage, match="loss-spikes"):
        run.assert_healthy(ignore=["loss-spikes"])
    with pytest.raises(BadUsage, match="was started before"):
        run.start()


def test_a_directory_that_cannot_be_used_is_told(tmp_path: Path):
    (tmp_path / "taken").write_text("")
    with pytest.raises(CannotStart):
        nndiag.watch(run_dir=tmp_path / "taken").start()


def test_it_is_public():
    assert nndiag.WatchedRun is WatchedRun and "watch" in nndiag.__all__


FORKS = """
import os, sys, torch
from torch import nn
from nndiag import watch
net = nn.Linear(2, 1); opt = torch.optim.SGD(net.parameters(), lr=0.1)
def step(): opt.zero_grad(); net(torch.ones(4, 2)).mean().backward(); opt.step()
with watch(run_dir="run") as run:
    step()
    if os.fork() == 0: step(); os._exit(0)
    os.wait(); step()
print(len(next(iter(run.diagnosis.run.series_of("loss")))))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_leaves_the_record_to_its_parent(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", FORKS], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )

    assert (done.stdout, done.returncode) == ("2\n", 0), done.stderr
