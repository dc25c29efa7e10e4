"""Attributions by each method: are they right, how long they take, and how much memory.

    python benchmarks/attribution/run.py [--quick]

README.md says what each column means. Everything runs with one thread in processes of its own.
"""

from __future__ import annotations

import argparse
import gc
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402
import watching  # noqa: E402
from children import in_child  # noqa: E402
from nets import NETS, Net  # noqa: E402

from nndiag.attribution import methods  # noqa: E402
from nndiag.errors import NndiagError  # noqa: E402
from nndiag.vocabulary import methods as vocabulary  # noqa: E402
from tests.attribution import trainings as t  # noqa: E402

SAMPLES = 4


@dataclass(frozen=True)
class Cost:
    """What attributing some samples took."""

    x_batch: float = 0.0  # time, in forward and backward passes of the whole batch
    extra_mb: float = 0.0  # of the largest memory, above that of one such pass
    steps: int = 0
    refused: str = ""


def truth(name: str) -> list[str]:
    """In a child: share of |attribution| on the planted features, by method."""
    torch.set_num_threads(1)
    known = t.trained(name)
    lines = []
    for why in ("end", "spike"):
        captured = t.capture(Path(tempfile.mkdtemp()), known.model, known.loss_of, why=why)
        if why == "spike":  # as if those that have the features had made it
            blamed = torch.zeros(captured.rows)
            blamed[list(known.rows)] = 1.0
            captured = replace(captured, per_sample=blamed)
        for method in vocabulary.METHODS:
            try:
                found = t.ask(known.model, captured, method.name, samples=8)
            except NndiagError:
                continue  # no convolution
            rows = [i for i, one in enumerate(found.samples) if one.row in known.rows]
            share = "of units"
            if not method.of_layer:
                share = f"{statistics.mean(t.share(found, known.planted, i) for i in rows):.2f}"
            delta = "" if found.relative_delta is None else f"{found.relative_delta:.1%}"
            of = "output" if why == "end" else "loss"
            lines.append(f"| {name} | {of} | {method.name} | {share} | {delta} |")
    return lines


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def warm_up(method: str) -> None:
    """What is loaded at the first call of a method is no cost of this net."""
    small, x = (
        torch.nn.Sequential(torch.nn.Conv1d(2, 2, 1), torch.nn.Linear(4, 2)),
        torch.ones(5, 2, 4),
    )
    captured = t.capture(
        Path(tempfile.mkdtemp()), small, lambda model: model(x).square().mean(), why="end"
    )
    t.ask(small, captured, method)


def cost(index: int, method: str, samples: int, steps: int) -> Cost:
    """In a child: first the batch itself, then the attribution; memory only grows."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    net: Net = NETS[index]()
    took = []
    for _ in range(3):
        began = time.perf_counter()
        net.loss_of(net.model).backward()
        took.append(time.perf_counter() - began)
    captured = t.capture(Path(tempfile.mkdtemp()), net.model, net.loss_of, why="end")
    warm_up(method)
    before = peak_mb()
    methods.FIRST_STEPS = steps  # type: ignore[misc]
    began = time.perf_counter()
    try:
        found = t.ask(net.model, captured, method, samples=samples, seconds=1e9)
    except NndiagError as error:
        return Cost(refused=str(error.what))
    seconds = time.perf_counter() - began
    used = max(one.found.steps for one in found.samples)
    return Cost(seconds / min(took), peak_mb() - before, used)


def costs(quick: bool) -> list[str]:
    lines = ["| input | net | method | samples | steps | x batch | memory above the batch's own |",
             "| --- | --- | --- | --- | --- | --- | --- |"]  # fmt: skip
    for index in [2] if quick else range(len(NETS)):
        net = NETS[index]()
        asked = [(method.name, SAMPLES, 32) for method in vocabulary.METHODS]
        asked += [("integrated-gradients", 4 * SAMPLES, 32), ("integrated-gradients", SAMPLES, 128)]
        for method, samples, steps in asked[:5] if quick else asked:
            found = in_child(cost, index, method, samples, steps)
            row = f"| {net.kind} | {net.words} | {method} | {samples} | "
            if found.refused:
                lines.append(f"{row} | refused | {found.refused} |")
            else:
                shown = found.steps or ""
                lines.append(f"{row}{shown} | {found.x_batch:.1f} | {found.extra_mb:.0f} MB |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one of each: that it runs")
    asked = parser.parse_args()
    began = time.perf_counter()
    gc.collect()
    gc.freeze()  # a look through all of torch in the middle of a measurement takes 0.2 s
    print(f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}, one thread\n")
    print("| trained on | of | method | on the planted features | delta |\n"
          "| --- | --- | --- | --- | --- |")  # fmt: skip
    for name in ["table"] if asked.quick else t.MAKE:
        print("\n".join(in_child(truth, name)), flush=True)
    print("\n" + "\n".join(costs(asked.quick)), flush=True)
    if asked.quick:
        watching.WARM_UP, watching.STEPS, watching.SPIKE = 20, 40, 30
    told = watching.compare(1, [*watching.WORKLOADS][:1]) if asked.quick else watching.compare(4)
    print("\n" + "\n".join(told), flush=True)
    print(f"\n{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
