"""How long an export takes: 10^6 steps of three series from a CSV, into each format.

    python benchmarks/export/run.py [--steps N] [--rounds N]

Each one is `nndiag export` as a user runs it, reading and diagnosis included, which
`nndiag analyze` takes alone. W&B is left out: it takes about 0.2 ms for each step.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[2]
FORMATS = ("parquet", "tensorboard", "csv", "jsonl")


def write_log(path: Path, steps: int) -> None:
    noise = np.random.default_rng(0)
    loss = 2 * np.exp(-5 * np.arange(steps) / steps) + 0.3 + 0.02 * noise.standard_normal(steps)
    norm = 1 + noise.random(steps)
    with path.open("w") as file:
        file.write("step,loss,lr,grad_norm\n")
        rows = zip(loss.tolist(), norm.tolist(), strict=True)
        file.writelines(f"{step},{a!r},0.001,{b!r}\n" for step, (a, b) in enumerate(rows))


def seconds(folder: Path, *arguments: str) -> float:
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, "-m", "nndiag", *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_log(folder / "log.csv", asked.steps)
        took = min(seconds(folder, "analyze", "log.csv") for _ in range(asked.rounds))
        print(f"{'analyze':12} {took:6.2f} s")
        for form in FORMATS:
            arguments = ("export", "log.csv", "--to", form, "--force")
            took = min(seconds(folder, *arguments) for _ in range(asked.rounds))
            files = [path.stat().st_size for path in (folder / f"log-{form}").iterdir()]
            print(f"{form:12} {took:6.2f} s   {sum(files) / 1e6:6.1f} MB")


if __name__ == "__main__":
    main()
