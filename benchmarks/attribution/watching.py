"""What keeping batches costs while training: bare, watched, and watched with --attribute.

Each contestant trains in a fork of this process, with one thread, the three side by side.
"""

from __future__ import annotations

import atexit
import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch._dynamo  # the first optimizer would import it, in each process
import torch.nn.functional as F
from children import in_child
from torch import nn

from nndiag.watcher import session

WARM_UP, STEPS, SPIKE = 100, 300, 280
CONTESTANTS: dict[str, dict[str, object] | None] = {
    "bare": None,
    "watch": {"every": "auto"},
    "watch --attribute auto": {"every": "auto", "attribute": "auto"},
}


@dataclass(frozen=True)
class Watched:
    """One training."""

    step_ms: float = 0.0  # CPU time, the mean of all but that of the spike
    spike_ms: float = 0.0  # that one
    at_exit_s: float = 0.0  # what the attributions took
    batch_bytes: int = 0  # of the captures on disk
    weight_bytes: int = 0


def mlp() -> tuple[nn.Module, torch.Tensor]:
    layers = [part for _ in range(4) for part in (nn.Linear(512, 512), nn.ReLU())]
    return nn.Sequential(*layers, nn.Linear(512, 10)), torch.randn(128, 512)


def cnn() -> tuple[nn.Module, torch.Tensor]:
    def block(a: int, b: int) -> list[nn.Module]:
        return [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]

    head = [nn.Flatten(), nn.Linear(64 * 16, 10)]
    model = nn.Sequential(*block(3, 32), *block(32, 64), *block(64, 64), *head)
    return model, torch.randn(16, 3, 32, 32)


WORKLOADS = {"MLP, 4 x 512, batch 128": mlp, "CNN, 3 x 32 x 32, batch 16": cnn}


def train(workload: str, contestant: str) -> Watched:
    """In the child: train, and be attributed at the end."""
    torch.set_num_threads(1)
    folder = tempfile.mkdtemp()
    settings = CONTESTANTS[contestant]
    if settings is not None:
        os.environ["NNDIAG_RUN"], os.environ["NNDIAG_SETTINGS"] = folder, json.dumps(settings)
        session.start(torch, {})
    torch.manual_seed(0)
    model, x = WORKLOADS[workload]()
    y = torch.arange(len(x)) % 10
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    took = []
    for step in range(WARM_UP + STEPS):
        given = x + 0.1 * torch.randn_like(x)
        raised = 3.0 if step == WARM_UP + SPIKE else 1.0
        began = time.process_time()
        optimizer.zero_grad()
        (raised * F.cross_entropy(model(given), y)).backward()
        optimizer.step()
        took.append(time.process_time() - began)
    began = time.perf_counter()
    sys.stderr = open(os.devnull, "w")  # noqa: SIM115  # what it says of its progress
    if settings is not None:
        atexit._run_exitfuncs()
    at_exit = time.perf_counter() - began
    kept = list(Path(folder).glob("rank-*/captures/*/*"))
    weights = sum(path.stat().st_size for path in kept if path.name.startswith("weights"))
    batches = sum(path.stat().st_size for path in kept) - weights
    spike = took.pop(WARM_UP + SPIKE)
    usual = statistics.mean(took[WARM_UP:])
    return Watched(1000 * usual, 1000 * spike, at_exit, batches, weights)


def compare(rounds: int, workloads: Iterable[str] = WORKLOADS) -> list[str]:
    """Lines of the table."""
    lines = [
        "| training | contestant | x bare | step of a spike | captures on disk | at exit |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for workload in workloads:
        found: dict[str, list[Watched]] = {name: [] for name in CONTESTANTS}
        for number in range(rounds):
            order = list(CONTESTANTS)
            for name in order[number % 3 :] + order[: number % 3]:
                found[name].append(in_child(train, workload, name))
        for name, several in found.items():
            ratio = _quickest(several) / _quickest(found["bare"])
            last = several[-1]
            spike = last.spike_ms / last.step_ms
            disk = f"{last.batch_bytes / 1e6:.2f} MB + {last.weight_bytes / 1e6:.2f} MB parameters"
            lines.append(
                f"| {workload} | {name} | {ratio:.2f} "
                f"| {spike:.1f} steps | {disk if last.batch_bytes else ''} "
                f"| {f'{last.at_exit_s:.1f} s' if last.batch_bytes else ''} |"
            )
    return lines


def _quickest(several: list[Watched]) -> float:
    """The round in which others disturbed least."""
    return min(one.step_ms for one in several)
