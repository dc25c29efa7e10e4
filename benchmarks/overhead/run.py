"""What watching a training costs: nndiag, wandb.watch and other watchers beside the bare training.

    python benchmarks/overhead/run.py [--quick | --full] [--rounds N] [--only MLP,...] [--out FILE]

README.md says what each line means. Each contestant trains in a process of its own. They take
short turns, in another order each time, so that a busy machine is as busy for all of them; the
ratio to the bare training is taken of each round, and the median of those is told.
"""

from __future__ import annotations

import argparse
import atexit
import contextlib
import ctypes
import gc
import importlib.util
import json
import math
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch._dynamo  # the first optimizer would import it, in each process
from contestants import CONTESTANTS, Contestant
from workloads import WORKLOADS, Size, make

import nndiag

BOOTSTRAP = Path(nndiag.__file__).parent / "watcher" / "bootstrap"
ROUNDS, RIVALS_ROUNDS = 9, 3
TURN = {"mlp": 2, "cnn": 1, "gpt": 1, "deep": 10}  # steps: a fraction of a second
ROUND = {"mlp": 10, "cnn": 10, "gpt": 10, "deep": 50}  # steps: whole strides of the schedule
# Steps before the first round: nndiag measures the first ones, and then it has some time for free.
WARM_UP = {"mlp": 12, "cnn": 12, "gpt": 12, "deep": 200}

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # malloc.h


@dataclass(frozen=True)
class Line:
    """One contestant on one workload."""

    workload: str
    contestant: str
    cpu: float = math.nan  # ratio to the bare training: the median of the rounds
    wall: float = math.nan
    spread: float = math.nan  # of the rounds' CPU ratios: half the distance between their quartiles
    told: float = math.nan  # the ratio of wall time by what nndiag says of its own cost
    first_s: float = math.nan  # what nndiag says that it took before the rounds, in the first steps
    step_ms: float = math.nan  # CPU time of a step
    missing: str = ""  # why it was not measured


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds that some steps took."""

    cpu: float = math.nan
    wall: float = math.nan
    told: float = math.nan  # what the contestant itself says

    @staticmethod
    def total(several: list[Times]) -> Times:
        columns = zip(*((one.cpu, one.wall, one.told) for one in several), strict=True)
        return Times(*map(sum, columns))


def keep_memory() -> None:
    """Have the C library keep what is freed, for all contestants alike.

    By default glibc gives large blocks back to the system, or not, as they happen to lie: of two
    processes with the same training one had three times the page faults, a tenth of its step.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL("libc.so.6")
        library.mallopt(M_MMAP_THRESHOLD, 32 << 20)  # the most that it takes
        library.mallopt(M_TRIM_THRESHOLD, 1 << 30)


class Racer:
    """One contestant on one workload, in a fork of this process."""

    def __init__(self, contestant: Contestant, workload: str, size: Size) -> None:
        self.contestant = contestant
        self.failure = ""
        self._here, there = Pipe()
        self.pid = os.fork()
        if self.pid == 0:
            self._here.close()
            _serve(there, contestant, workload, size)
        there.close()
        self.turn(0)

    def turn(self, steps: int) -> Times:
        """Make some steps."""
        if self.failure:
            return Times()
        try:
            self._here.send(steps)
            answer = self._here.recv()
        except (EOFError, OSError):
            answer = "its process ended"
        if isinstance(answer, Times):
            return answer
        self.failure = answer
        return Times()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._here.send(None)
        self._here.close()
        os.waitpid(self.pid, 0)


def _serve(parent: Connection, contestant: Contestant, workload: str, size: Size) -> None:
    """In the fork: make steps when asked to, until nobody asks."""
    for number in (0, 1, 2):
        os.dup2(os.open(os.devnull, os.O_RDWR), number)
    os.chdir(tempfile.mkdtemp(prefix="nndiag-overhead-"))  # some rivals leave files where they are
    try:
        torch.set_num_threads(1)
        watch = contestant.begin()
        idle = time.perf_counter()
        step = contestant.attach(make(workload, size))
        # Forks hold each other's pipes open: the end is said, not seen.
        while (steps := parent.recv()) is not None:
            watch.waited(time.perf_counter() - idle)
            began = time.process_time(), time.perf_counter(), watch.cost_s()
            for _ in range(steps):
                step()
            ended = time.process_time(), time.perf_counter(), watch.cost_s()
            parent.send(Times(*(late - early for late, early in zip(ended, began, strict=True))))
            idle = time.perf_counter()
        atexit._run_exitfuncs()
    except BaseException as error:
        last = traceback.extract_tb(error.__traceback__)[-1]
        parent.send(f"{type(error).__name__}: {error} ({Path(last.filename).name})"[:200])
    finally:
        os._exit(0)


def race(workload: str, size: Size, rounds: int, begins: str = "") -> Iterator[Line]:
    """All contestants on one workload. `begins`: of their names, several with commas between."""
    racers: list[Racer] = []
    for one in CONTESTANTS:
        if not one.name.startswith(tuple(begins.split(","))):
            continue
        if workload not in one.on:
            yield Line(workload, one.name, missing="it cannot follow this model")
        elif one.module and importlib.util.find_spec(one.module) is None:
            yield Line(workload, one.name, missing=f"{one.module} is not installed")
        else:
            racers.append(Racer(one, workload, size))
    quick = size == "quick"
    warm_up = {
        racer: racer.turn(2 if quick or racer.contestant.rival else WARM_UP[workload])
        for racer in racers
    }
    in_round, in_turn = (4, 2) if quick else (ROUND[workload], TURN[workload])
    bare, ours = racers[0], [racer for racer in racers if not racer.contestant.rival]
    for racer, line in _heat(bare, ours, rounds, in_round, in_turn):
        yield replace(line, workload=workload, first_s=warm_up[racer].told)
    # Rivals race in heats of their own, each with a bare training: some take fifty times as long.
    rivals = [racer for racer in racers if racer.contestant.rival]
    for period in sorted({racer.contestant.period for racer in rivals}):
        some = [bare, *(racer for racer in rivals if racer.contestant.period == period)]
        steps = max(period, 2)
        for _, line in _heat(bare, some, min(rounds, RIVALS_ROUNDS), steps, min(in_turn, 2)):
            if line.contestant != bare.contestant.name:
                yield replace(line, workload=workload)
    for racer in racers:
        racer.close()


def _heat(
    bare: Racer, racers: list[Racer], rounds: int, steps: int, at_once: int
) -> Iterator[tuple[Racer, Line]]:
    """Some rounds of so many `steps`, made in turns of `at_once`; their ratios to `bare`."""
    took: dict[Racer, list[Times]] = {racer: [] for racer in racers}  # one for each round
    order = random.Random(0)
    for _ in range(rounds):
        turns: dict[Racer, list[Times]] = {racer: [] for racer in racers}
        for done in range(0, steps, at_once):
            for racer in order.sample(racers, len(racers)):
                turns[racer].append(racer.turn(min(at_once, steps - done)))
        for racer in racers:
            took[racer].append(Times.total(turns[racer]))
    for racer, times in took.items():
        yield racer, _line(racer, times, took[bare], steps)


def _line(racer: Racer, times: list[Times], bare: list[Times], steps: int) -> Line:
    pairs = list(zip(times, bare, strict=True))
    cpu = [one.cpu / other.cpu for one, other in pairs]
    low, _, high = statistics.quantiles(cpu) if len(cpu) > 1 else (math.nan, 0.0, math.nan)
    whole = Times.total(times)
    return Line(
        "",
        racer.contestant.name,
        cpu=statistics.median(cpu),
        wall=statistics.median(one.wall / other.wall for one, other in pairs),
        spread=(high - low) / 2,
        told=whole.wall / (whole.wall - whole.told),
        step_ms=1000 * statistics.median(one.cpu for one in times) / steps,
        missing=racer.failure,
    )


def start_up(times: int) -> dict[str, float]:
    """Milliseconds that `import torch` takes longer under nndiag: in turn, medians."""
    seconds: dict[str, list[float]] = {"bare": [], "nndiag": []}
    plain = {k: v for k, v in os.environ.items() if not k.startswith(("NNDIAG", "PYTHONPATH"))}
    for _ in range(times):
        for name, found in seconds.items():
            environment = dict(plain)
            if name == "nndiag":
                run_dir = tempfile.mkdtemp(prefix="nndiag-overhead-")
                environment |= {"NNDIAG_RUN": run_dir, "PYTHONPATH": str(BOOTSTRAP)}
            program = "import torch, time; print(time.process_time())"
            done = subprocess.run(
                [sys.executable, "-c", program], env=environment, capture_output=True, text=True
            )
            found.append(float(done.stdout))
    bare, ours = (1000 * statistics.median(found) for found in seconds.values())
    return {"import_torch_ms": bare, "nndiag_ms": ours - bare}


def memory(steps: int, workload: str, size: Size) -> dict[str, float]:
    """Megabytes that nndiag adds, and how they grow over many steps, each with all statistics."""
    found: dict[str, tuple[float, float]] = {}
    for name in ("bare", "nndiag, every step"):
        [contestant] = [one for one in CONTESTANTS if one.name == name]
        racer = Racer(contestant, workload, size)
        racer.turn(steps // 10)
        early = _resident_mb(racer)
        racer.turn(steps)
        found[name] = early, _resident_mb(racer)
        racer.close()
    (bare_early, bare_late), (early, late) = found.values()
    return {"added_mb": late - bare_late, "grown_mb": (late - early) - (bare_late - bare_early)}


def _resident_mb(racer: Racer) -> float:
    try:
        status = Path(f"/proc/{racer.pid}/status").read_text()
    except OSError:
        return math.nan
    [line] = [line for line in status.splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1024


def show(line: Line) -> str:
    head = f"{line.workload:5} {line.contestant:28}"
    if line.missing:
        return f"{head} {line.missing}"
    told = "" if math.isnan(line.told) else f"  says {line.told:.3f}"
    first = "" if math.isnan(line.first_s) else f" after {line.first_s:.2f} s at first"
    return f"{head} cpu {line.cpu:6.3f} ±{line.spread:.3f}  wall {line.wall:6.3f}{told}{first}"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="tiny nets, seconds: that all runs")
    size.add_argument("--full", action="store_true", help="full batches: an hour")
    parser.add_argument(
        "--rounds", type=int, help=f"default: {ROUNDS}; rivals at most {RIVALS_ROUNDS}"
    )
    parser.add_argument("--only", metavar="WORKLOAD,...", help=", ".join(WORKLOADS))
    parser.add_argument("--contestants", metavar="NAME,...", default="", help="how names begin")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the lines as JSON, too")
    chosen = parser.parse_args(arguments)
    chosen_size: Size = "quick" if chosen.quick else "full" if chosen.full else "usual"
    rounds = chosen.rounds or (2 if chosen.quick else ROUNDS)
    keep_memory()
    gc.freeze()
    lines: list[Line] = []
    print(f"torch {torch.__version__}, {os.cpu_count()} cores, one thread each, {rounds} rounds")
    for workload in chosen.only.split(",") if chosen.only else WORKLOADS:
        for line in race(workload, chosen_size, rounds, chosen.contestants):
            lines.append(line)
            print(show(line), flush=True)
            if line.contestant == "bare":
                print(f"{workload:5} {line.step_ms:.1f} ms of CPU time for a bare step")
        print()
    extra = {
        "start_up": start_up(1 if chosen.quick else 7),
        "memory": memory(60 if chosen.quick else 10_000, "deep", "quick"),
    }
    print(
        f"start-up: {extra['start_up']['nndiag_ms']:.0f} ms of CPU time beside torch's own import"
    )
    print(
        f"memory: {extra['memory']['added_mb']:.0f} MB more than bare,"
        f" {extra['memory']['grown_mb']:+.1f} MB over the run"
    )
    if chosen.out:
        told = {"lines": [asdict(line) for line in lines], **extra}
        chosen.out.write_text(json.dumps(told, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
