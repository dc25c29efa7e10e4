"""What watching a compiled training costs, for each value of `nndiag watch --compiled`.

    python benchmarks/overhead/compiled.py [--quick] [--rounds N] [--only MLP,...] [--out FILE]

Inductor compiles each net anew for each contestant whose graph differs: minutes, on two cores.
README.md says what the columns mean.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import gc
import json
import os
import random
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

os.environ.setdefault("TORCHINDUCTOR_COMPILE_THREADS", "1")  # no pool of processes beside ours

import torch
import torch._dynamo  # before the forks
from torch._dynamo.utils import counters
from workloads import Size, make

CONTESTANTS: dict[str, dict[str, Any] | None] = {
    "bare": None,
    "hidden": {},  # the default
    "traced": {"compiled": "traced"},
    "eager": {"compiled": "eager", "every": 10},
}
WORKLOADS = ("mlp", "cnn", "gpt")
WARM_UP = 12  # steps: nndiag always measures the first ones
ROUND = 10  # steps: a whole stride of the schedule


@dataclass(frozen=True)
class Line:
    """One contestant on one workload."""

    workload: str
    contestant: str
    cpu: float  # ratio to the bare training: the median of the rounds
    spread: float  # half the distance between the quartiles of the rounds
    steps: float  # ratio of the medians of single steps: without what few steps cost
    step_ms: float  # CPU time of a step
    graphs: int
    recompilations: int


class Racer:
    """One contestant, in a fork of this process."""

    def __init__(self, name: str, workload: str, size: Size) -> None:
        self.name = name
        self._here, there = Pipe()
        self._pid = os.fork()
        if self._pid == 0:
            self._here.close()
            _serve(there, name, workload, size)
        there.close()

    def turn(self, steps: int) -> float:
        """Make some steps; the CPU seconds that they took."""
        self._here.send(steps)
        seconds, self.graphs, self.recompilations = self._here.recv()
        return float(seconds)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._here.send(None)
        os.waitpid(self._pid, 0)


def _serve(parent: Connection, name: str, workload: str, size: Size) -> None:
    """In the fork: make steps when asked to."""
    try:
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")
        guard = _watch(CONTESTANTS[name])
        training = make(workload, size)
        training = replace(training, model=torch.compile(training.model))
        idle = time.perf_counter()
        while (steps := parent.recv()) is not None:
            if guard is not None:  # the training stood still: no time for the budget
                guard._began_s += time.perf_counter() - idle
            began = time.process_time()
            for _ in range(steps):
                training.step()
            took = time.process_time() - began
            parent.send((took, counters["stats"]["unique_graphs"], len(counters["recompiles"])))
            idle = time.perf_counter()
        atexit._run_exitfuncs()
    finally:
        sys.stderr.flush()
        os._exit(0)


def _watch(settings: dict[str, Any] | None) -> Any:
    if settings is None:
        return None
    from nndiag.watcher.session import Session

    run_dir = tempfile.mkdtemp(prefix="nndiag-overhead-")
    os.environ["NNDIAG_RUN"] = run_dir
    session = Session(torch, run_dir, settings)
    session.start({})
    return session._guard


def race(workload: str, size: Size, rounds: int) -> Iterator[Line]:
    """All contestants on one workload, in turns of one step, in another order each time."""
    racers = []
    for name in CONTESTANTS:  # one after the other: two compilations at once take twice as long
        racer = Racer(name, workload, size)
        began = time.perf_counter()
        racer.turn(WARM_UP)
        print(f"  {workload} {name}: ready after {time.perf_counter() - began:.0f} s", flush=True)
        racers.append(racer)
    took: dict[str, list[float]] = {racer.name: [] for racer in racers}
    single: dict[str, list[float]] = {racer.name: [] for racer in racers}
    order = random.Random(0)
    for _ in range(rounds):
        seconds = dict.fromkeys(took, 0.0)
        for _ in range(ROUND):
            for racer in order.sample(racers, len(racers)):
                single[racer.name].append(racer.turn(1))
                seconds[racer.name] += single[racer.name][-1]
        for name, one in seconds.items():
            took[name].append(one)
    for racer in racers:
        racer.close()
        ratios = [a / b for a, b in zip(took[racer.name], took["bare"], strict=True)]
        low, _, high = statistics.quantiles(ratios)
        step_ms = 1000 * statistics.median(took[racer.name]) / ROUND
        yield Line(
            workload,
            racer.name,
            statistics.median(ratios),
            (high - low) / 2,
            statistics.median(single[racer.name]) / statistics.median(single["bare"]),
            step_ms,
            racer.graphs,
            racer.recompilations,
        )


def beside(workload: str, size: Size, rounds: int) -> float:
    """What traced statistics cost: ratio of nets with and without them, within one process.

    Two processes that run the same code differ by several hundredths; here two nets of each kind
    take turns of one step, and the medians of their steps are compared.
    """
    here, there = Pipe()
    pid = os.fork()
    if pid == 0:
        try:
            there.send(_ratio_within(workload, size, rounds * ROUND))
        finally:
            os._exit(0)
    there.close()
    ratio = float(here.recv())
    os.waitpid(pid, 0)
    return ratio


def _ratio_within(workload: str, size: Size, steps: int) -> float:
    from nndiag.adapters.pytorch.traced_hooks import TracedSums, trace

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    sums = TracedSums(list)
    sums.install()

    def hook(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        if torch.compiler.is_compiling():
            trace(module, output)

    torch.nn.modules.module.register_module_forward_hook(hook)
    nets = []
    for is_traced in (False, True, False, True):
        training = make(workload, size)
        if is_traced:
            sums.give(training.model.modules())
        training = replace(training, model=torch.compile(training.model))
        for _ in range(3):
            training.step()
        nets.append((is_traced, training))
    took: dict[bool, list[float]] = {False: [], True: []}
    order = random.Random(0)
    for _ in range(steps):
        for is_traced, training in order.sample(nets, len(nets)):
            began = time.process_time()
            training.step()
            took[is_traced].append(time.process_time() - began)
    return statistics.median(took[True]) / statistics.median(took[False])


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="tiny nets: that all runs")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--only", metavar="WORKLOAD,...", default=",".join(WORKLOADS))
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the lines as JSON, too")
    chosen = parser.parse_args(arguments)
    gc.freeze()
    lines = []
    for workload in chosen.only.split(","):
        size: Size = "quick" if chosen.quick else "usual"
        ratio = beside(workload, size, chosen.rounds)
        print(f"{workload:4} traced, in one process: cpu {ratio:.3f}", flush=True)
        for line in race(workload, size, chosen.rounds):
            lines.append(line)
            print(
                f"{line.workload:4} {line.contestant:8} cpu {line.cpu:6.3f} ±{line.spread:.3f}"
                f"  steps {line.steps:6.3f}"
                f"  {line.step_ms:8.1f} ms  {line.graphs} graphs, {line.recompilations} recompiled",
                flush=True,
            )
    if chosen.out:
        chosen.out.write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
