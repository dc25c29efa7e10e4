"""What the W&B mirror costs: the same training bare, watched, and watched with --wandb.

    python benchmarks/wandb/run.py [--rounds N] [--steps N]

Each contestant is a process of its own. They take turns, in another order each round, so that a
busy machine is as busy for all; the medians over the rounds are compared. CPU time is that of the
training process: W&B's service is another one.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
WATCH = [sys.executable, "-m", "nndiag", "watch", "--no-live"]
CONTESTANTS = {
    "wandb alone": [sys.executable],
    "watch": WATCH,
    "watch --wandb": [*WATCH, "--wandb"],
}


def seconds_a_step(command: list[str], steps: int) -> tuple[float, float]:
    """(wall, CPU)"""
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [*command, str(HERE / "train.py"), str(steps)],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(HERE.parents[1])},
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            check=True,
        )
    wall, cpu = done.stdout.split()[:2]
    return float(wall), float(cpu)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=2000)
    asked = parser.parse_args()
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTESTANTS}
    names = list(CONTESTANTS)
    for _ in range(asked.rounds):
        for name in names:
            measured[name].append(seconds_a_step(CONTESTANTS[name], asked.steps))
        names.append(names.pop(0))
    for kind, place in (("wall", 0), ("CPU", 1)):
        bare = median(each[place] for each in measured["wandb alone"])
        for name, each in measured.items():
            ms = [1000 * one[place] for one in each]
            spread = f"{min(ms):.3f} to {max(ms):.3f}"
            ratio = median(ms) / 1000 / bare
            print(f"{kind:4}  {name:14}  {median(ms):.3f} ms a step ({spread})  {ratio:.2f}")


if __name__ == "__main__":
    main()
