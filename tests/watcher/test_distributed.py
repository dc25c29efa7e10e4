"""Trainings of several ranks: recorded apart, without a word between the ranks, same bits."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from nndiag.journal.reader import open_run, read_stream
from nndiag.readers import run_directory
from nndiag.records import Run
from tests.adapters.observed import ROOT, SETTINGS, Zygote

torch = pytest.importorskip("torch")
if not (torch.distributed.is_available() and torch.distributed.is_gloo_available()):
    pytest.skip("this torch has no gloo, which joins processes on CPUs", allow_module_level=True)

LAUNCHER = Path(__file__).parent / "ranks.py"
MERGED = "2 ranks were recorded and are merged: losses are means"
SHARDED = "the model is sharded"

IMPORTS = """
import hashlib, os, signal, sys, time
import torch, torch.nn as nn, torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel as DDP
"""
PRELUDE = f"""{IMPORTS}
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
dist.init_process_group("gloo")
rank, world = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
def digest(*things):
    sha = hashlib.sha256()
    def eat(thing):
        thing = getattr(thing, "_local_tensor", thing)
        if isinstance(thing, torch.Tensor):
            sha.update(f"{{thing.dtype}} {{tuple(thing.shape)}}".encode())
            flat = thing.detach().contiguous().reshape(-1)
            sha.update(flat.view(torch.uint8).numpy().tobytes())
        elif isinstance(thing, dict):
            for key in thing: eat(key); eat(thing[key])
        elif isinstance(thing, (list, tuple)):
            for item in thing: eat(item)
        else: sha.update(repr(thing).encode())
    eat(things)
    return sha.hexdigest()[:16]
def report(net, opt):
    print(digest(net.state_dict()), digest([p.grad for p in net.parameters()]))
    print(digest(opt.state_dict()), digest(torch.get_rng_state()), torch.is_grad_enabled())
    groups = dist.distributed_c10d._world.pg_map  # each group counts its collectives
    print(sum(group._get_sequence_number_for_group() for group in groups))
def replicated():
    net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2))
    return DDP(net.append(nn.Linear(8, 3)))
def sharded():
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Dropout(0.1))
    net.extend([nn.Linear(8, 7), nn.Tanh(), nn.Linear(7, 1)])
    mesh = init_device_mesh("cpu", (world,))
    for layer in (net[0], net[3]): fully_shard(layer, mesh=mesh)
    return fully_shard(net, mesh=mesh)
"""
# Clipping on every other step: then the norm of the gradients is told by torch, else measured.
FIT = """
opt = torch.optim.AdamW(net.parameters(), lr=0.05)
torch.manual_seed(1 + rank)
for step in range(26):
    opt.zero_grad(); loss = net(torch.randn(16, 4)).square().mean(); loss.backward()
    if step % 2: nn.utils.clip_grad_norm_(net.parameters(), 0.1)
    opt.step()
report(net, opt)
"""
ACCUMULATION = """
if hasattr(net, "no_sync"):
    for step in range(4):
        with net.no_sync(): net(torch.randn(16, 4)).square().mean().backward()
        net(torch.randn(16, 4)).square().mean().backward(); opt.step(); opt.zero_grad()
report(net, opt)
"""
FSDP1 = """
from torch.distributed.fsdp import FullyShardedDataParallel
net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 1))
net = FullyShardedDataParallel(net, device_id=torch.device("cpu"), use_orig_params=True)
"""
TRAININGS = {
    "DDP": "net = replicated()" + FIT,
    "FSDP2": "net = sharded()" + FIT,
    "the first FSDP": FSDP1 + FIT.replace("report(net, opt)", ""),
}


@dataclass(frozen=True)
class Ranks:
    """How the ranks of a training ended, and what was recorded of them."""

    statuses: list[int]
    stdout: list[str]
    stderr: list[str]
    run_dir: Path

    def read(self) -> Run:
        return run_directory.read(self.run_dir)

    def column(self, rank: int, metric: str, where: str = "") -> np.ndarray:
        """What one rank recorded of a metric, step by step."""
        kind = "layers" if where else "steps"
        stream = read_stream(self.run_dir / f"rank-{rank}" / f"{kind}-0.arrows")
        return stream.values[:, stream.columns.index((metric, where))].astype(float)

    @property
    def faults(self) -> list[str]:
        """What nndiag wrote of its own failures, on any rank."""
        events = [event for rank in open_run(self.run_dir).ranks for event in rank.events()[0]]
        notes = [str(event.get("text", "")) for event in events]
        ended = [str(event) for event in events if event["event"] == "observation-ended"]
        return [note for note in notes if "fault" in note] + ended


Train = Callable[..., list[Ranks]]


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    process = Zygote()
    yield process
    process.close()


@pytest.fixture
def train(tmp_path: Path, zygote: Zygote) -> Train:
    """Run a script on two ranks, once for each `every`; unwatched where that is None."""

    def train(script: str, *every: int | str | None, fails: bool = False) -> list[Ranks]:
        path = tmp_path / "train.py"
        path.write_text(PRELUDE + script + "\ndist.destroy_process_group()\n", encoding="utf-8")
        folders = [tmp_path / f"run-{i}" for i in range(len(every))]
        variants = []
        for folder, stride in zip(folders, every, strict=True):
            (folder / "journal").mkdir(parents=True)
            run = None if stride is None else str(folder / "journal")
            variants.append({"output": str(folder), "run": run, "every": stride})
        zygote.run(
            script=str(LAUNCHER),
            arguments=[str(path), json.dumps(variants)],
            run="",
            settings={},
            environment={},
            cwd=str(tmp_path),
            stdout=str(tmp_path / "statuses"),
            stderr=str(tmp_path / "launcher"),
        )
        assert not (tmp_path / "launcher").read_text()
        found = []
        lines = (tmp_path / "statuses").read_text().splitlines()
        for folder, line in zip(folders, lines, strict=True):
            out, err = ([(folder / f"{n}-{r}").read_text() for r in (0, 1)] for n in STREAMS)
            assert fails or json.loads(line) == [0, 0], err
            found.append(Ranks(json.loads(line), out, err, folder / "journal"))
        return found

    return train


STREAMS = "stdout", "stderr"


@pytest.mark.parametrize("script", TRAININGS.values(), ids=TRAININGS)
def test_every_rank_computes_the_same_bits_by_the_same_collectives(train: Train, script: str):
    bare, *watched = train(script + ACCUMULATION, None, 1, "auto")

    told = bare.stdout[0].split()
    assert len(told) in (6, 12) and int(told[-1]) > 26  # each step exchanges something
    assert bare.stdout[0] != bare.stdout[1]
    for run in watched:
        assert (run.stdout, run.stderr) == (bare.stdout, bare.stderr)
        assert run.faults == []
        assert [len(run.column(rank, "loss")) >= 26 for rank in (0, 1)] == [True, True]


def test_ranks_of_ddp_are_merged(train: Train):
    [watched] = train(TRAININGS["DDP"], 1)

    run = watched.read()

    losses = [watched.column(rank, "loss") for rank in (0, 1)]
    assert np.array_equal(run.one("loss").values, np.mean(losses, axis=0))
    gradients = [watched.column(rank, "grad_norm") for rank in (0, 1)]
    assert np.array_equal(gradients[0], gradients[1])
    assert np.array_equal(run.one("grad_norm").values, gradients[0])
    seen = [watched.column(rank, "activation_mean", "0") for rank in (0, 1)]
    merged = run.one("activation_mean", "0").values
    assert np.allclose(merged, np.mean(seen, axis=0)) and not np.allclose(merged, seen[0])
    assert [note for note in run.notes if "rank" in note] == [MERGED]


def test_sharded_gradients_have_the_norm_of_the_whole_clipped_or_not(train: Train):
    script = TRAININGS["FSDP2"].replace(
        "    if step % 2:",
        "    whole = [p.grad.full_tensor() for p in net.parameters()]\n"
        "    print(torch.stack([g.norm() for g in whole]).norm().item(), whole[0].norm().item())\n"
        "    if step % 2:",
    )
    [watched] = train(script, 1)
    told = np.array([line.split() for line in watched.stdout[0].splitlines()[:26]], float)

    run = watched.read()

    assert run.one("clip_threshold").steps.tolist() == list(range(1, 26, 2))
    assert np.allclose(run.one("grad_norm").values, told[:, 0], rtol=1e-5)
    assert np.allclose(run.one("param_grad_norm", "0.weight").values, told[:, 1], rtol=1e-5)
    assert not np.allclose(watched.column(0, "grad_norm")[::2], told[::2, 0], rtol=0.01)
    assert any(note.startswith(SHARDED) for note in run.notes)
    assert {layer.kind for layer in run.layers} >= {"Linear", "Tanh"}
    assert [o.owner for o in run.optimizers] == ["AdamW(Sequential)"]


def test_a_nan_of_one_rank_is_traced_without_a_word_to_the_others(train: Train):
    bad = "torch.randn(16, 4) * (float('nan') if rank == 1 and step == 9 else 1)"
    script = TRAININGS["FSDP2"].replace("torch.randn(16, 4)", bad).replace("if step % 2", "if 0")
    bare, watched = train(script, None, 1)

    run = watched.read()

    assert watched.stdout == bare.stdout and watched.faults == []
    assert "the loss became nan on rank 1 alone, at step 9" in run.notes
    assert run.nonfinite[0].step == 9 and run.nonfinite[0].kind == "input"


def test_gradients_that_are_partial_sums_are_counted_not_measured(train: Train):
    script = """
from torch.distributed.tensor import DTensor, Partial, Replicate
mesh = init_device_mesh("cpu", (world,))
net = nn.Linear(4, 3)
net.weight = nn.Parameter(DTensor.from_local(net.weight.detach(), mesh, [Replicate()]))
opt = torch.optim.SGD([net.weight, net.bias], lr=0.1)
for step in range(3):
    net.bias.sum().backward()
    net.weight.grad = DTensor.from_local(torch.ones(3, 4), mesh, [Partial()])
    opt.step()
    opt.zero_grad(set_to_none=step < 2)
report(net, opt)
"""
    bare, watched = train(script, None, 1)

    run = watched.read()

    assert watched.stdout == bare.stdout and watched.faults == []
    assert run.one("grad_norm") is None
    assert run.one("param_grad_norm", "weight") is None
    assert any("of 1 parameters are sums that no rank has added up" in note for note in run.notes)


def test_a_killed_rank_costs_no_other_rank_its_records(train: Train):
    killed = (
        "    if step == 15 and rank == 1: os.kill(os.getpid(), signal.SIGKILL)\n    opt.step()\n"
    )
    [watched] = train(TRAININGS["DDP"].replace("    opt.step()\n", killed), 1, fails=True)

    run = watched.read()

    assert watched.statuses == [1, -9]
    assert len(watched.column(1, "loss")) == 15
    assert len(run.one("loss")) in (15, 16)  # rank 0 had its gradients already, or not
    assert "rank 1 left no ending: it was killed, or ended by os._exit" in run.notes


def test_a_rank_whose_observation_fails_keeps_no_other_rank_waiting(train: Train):
    broken = """
import nndiag.watcher.recorder as recorder
def no(self, *told): raise OSError("no disk on this rank")
"""
    at_step_3 = "    if step == 3 and rank == 1: recorder.Recorder.step = no\n    opt.step()\n"
    script = broken + TRAININGS["DDP"].replace("    opt.step()\n", at_step_3)
    bare, watched = train(script, None, 1)

    assert watched.stdout == bare.stdout
    assert len(watched.column(0, "loss")) > len(watched.column(1, "loss")) == 3
    assert any("no disk on this rank" in fault for fault in watched.faults)


def test_the_rank_that_the_others_wait_for_is_named(train: Train):
    slow = "    opt.zero_grad(); time.sleep(0.02 * rank); "
    script = "net = DDP(nn.Linear(4, 3))" + FIT.replace("    opt.zero_grad(); ", slow)
    [watched] = train(script, "auto")

    [note] = [note for note in watched.read().notes if "slow" in note]

    assert re.match(r"rank 1 is slow: .* ms until backward, .* ms on the others", note)


def test_ranks_that_nothing_joins_are_told(train: Train):
    alone = TRAININGS["DDP"].replace("net = replicated()", "net = replicated().module")
    [watched] = train(alone, 1)

    notes = "\n".join(watched.read().notes)

    assert "the gradients of ranks 0 and 1 differ from step 0 on" in notes


# -- by real launchers: seconds of importing torch in each process

SCRIPT = f"""{IMPORTS}
def main(rank=None, world=None):
    if rank is None: dist.init_process_group("gloo")
    else: dist.init_process_group("gloo", rank=rank, world_size=world)
    rank = dist.get_rank()
    net = DDP(nn.Linear(4, 3)); opt = torch.optim.SGD(net.parameters(), lr=0.05)
    for step in range(30):
        opt.zero_grad(); net(torch.randn(16, 4)).square().mean().backward(); opt.step()
    print(f"rank {{rank}} is done\\n", end="", flush=True)
    dist.destroy_process_group()
"""
LAUNCHED = SCRIPT + "main()\n"
SPAWNING = f"""{SCRIPT}
if __name__ == "__main__":
    os.environ |= {{"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": sys.argv[1]}}
    torch.multiprocessing.spawn(main, (2,), nprocs=2)
"""
TORCHRUN = ("-m", "torch.distributed.run", "--nproc-per-node", "2")


def started(tmp_path: Path, *arguments: str) -> tuple[subprocess.CompletedProcess[str], Path]:
    """`python ARGUMENTS` as a user would start it, and the run directory that it left."""
    environment = {k: v for k, v in os.environ.items() if k not in (*SETTINGS, "LOCAL_RANK")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    [run_dir] = (tmp_path / "nndiag-runs").glob("[!.]*")
    return done, run_dir


def free_port() -> str:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return str(listener.getsockname()[1])


def is_merged_of_two_ranks(run_dir: Path) -> bool:
    ranks = open_run(run_dir).ranks
    assert [(rank.rank, rank.attempt) for rank in ranks] == [(0, 0), (1, 0)]
    assert [rank.process()["rank"] for rank in ranks] == [0, 1]
    assert [rank.process()["world_size"] for rank in ranks] == [2, 2]
    run = run_directory.read(run_dir)
    assert len(run.one("loss")) == 30
    return [note for note in run.notes if "rank" in note and "slow" not in note] == [MERGED]


def test_torchrun_is_watched(tmp_path: Path):
    (tmp_path / "train.py").write_text(LAUNCHED)

    done, run_dir = started(
        tmp_path, "-m", "nndiag", "watch", "--", sys.executable, *TORCHRUN, "train.py"
    )

    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["rank 0 is done", "rank 1 is done"]
    assert is_merged_of_two_ranks(run_dir)


def test_torchrun_starts_the_watch_of_each_rank(tmp_path: Path):
    (tmp_path / "train.py").write_text(LAUNCHED)

    done, run_dir = started(tmp_path, *TORCHRUN, "-m", "nndiag", "watch", "train.py")

    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["rank 0 is done", "rank 1 is done"]
    assert done.stderr.count("nndiag: recording to") == 1
    assert is_merged_of_two_ranks(run_dir)


def test_ranks_that_the_script_spawns_are_told_apart(tmp_path: Path):
    (tmp_path / "train.py").write_text(SPAWNING)

    done, run_dir = started(tmp_path, "-m", "nndiag", "watch", "train.py", free_port())

    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["rank 0 is done", "rank 1 is done"]
    assert is_merged_of_two_ranks(run_dir)


DEAR_ON_ONE_RANK = """
import gc
from nndiag.watcher.session import Guard
net = DDP(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1)))
opt = torch.optim.SGD(net.parameters(), lr=0.01)
for step in range(230):
    opt.zero_grad(); net(torch.randn(4, 4)).square().mean().backward(); opt.step()
    if step == 20 and rank == 1:
        [guard] = [thing for thing in gc.get_objects() if type(thing) is Guard]
        guard.cost_s += 1e6  # far beyond the budget
"""


def test_ranks_measure_the_same_steps_whatever_it_costs_each(train: Train):
    [watched] = train(DEAR_ON_ONE_RANK, "auto")

    ranks = [watched.run_dir / f"rank-{rank}" for rank in (0, 1)]
    first, second = (read_stream(rank / "layers-0.arrows").steps.tolist() for rank in ranks)
    assert watched.faults == []
    assert first == second == [*range(5), *range(10, 230, 10)]
    for metric in ("update_ratio", "update_gradient_cosine", "grad_norm"):
        first, second = (np.isfinite(watched.column(rank, metric)) for rank in (0, 1))
        assert np.array_equal(first, second) and first.sum() > 40
