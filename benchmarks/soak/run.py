"""The soak: many steps, many kills, every fault. Exit status 1 where a promise was not kept.

python benchmarks/soak/run.py                      10,000 steps, 1,000 kills; some ten minutes
python benchmarks/soak/run.py --steps 2000 --kills 100
python benchmarks/soak/run.py --faults             and each place in our code made to fail
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from nndiag.journal.reader import open_run, read_stream
from nndiag.readers import run_directory

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
MOST_GROWTH_BYTES = 5 << 20  # from the first quarter of the steps to the last sample
MOST_BEYOND_BYTES = 50 << 20  # at the end, more than the bare training


def soak(steps: int, every: str, folder: Path) -> bool:
    """Train watched, beside the same training bare; say what grew. Whether all is well."""
    run_dir = folder / f"run-{every}"
    (_, bare_bytes, _), *_, bare_end = steps_of(steps, "-", every)
    samples = steps_of(steps, str(run_dir), every)
    after = samples[len(samples) // 4 :]
    growth = after[-1][1] - after[0][1]
    per_step = slope([s[0] for s in after], [s[1] for s in after])
    beyond = samples[-1][1] - bare_end[1]
    descriptors = {fds for _, _, fds in after}
    [rank] = open_run(run_dir).ranks
    read = [int(n) for path in rank.step_files for n in read_stream(path).steps]
    run = run_directory.read(run_dir)
    complete = read == list(range(steps))
    size = sum(path.stat().st_size for path in run_dir.rglob("*"))
    print(
        f"{steps} steps, --every {every}: "
        f"memory {growth / 2**20:+.2f} MB from step {after[0][0]} on "
        f"({per_step:+.1f} bytes a step; bare {(bare_end[1] - bare_bytes) / 2**20:+.2f} MB), "
        f"{beyond / 2**20:.0f} MB more than bare at the end, "
        f"{len(descriptors)} number(s) of descriptors {sorted(descriptors)}, "
        f"{len(read)} steps and {len(run.series)} series read, journal {size / 2**20:.1f} MB"
    )
    flat = growth < MOST_GROWTH_BYTES and beyond < MOST_BEYOND_BYTES
    return flat and len(descriptors) == 1 and complete


def steps_of(steps: int, run_dir: str, every: str) -> list[list[int]]:
    command = [sys.executable, HERE / "steps.py", str(steps), run_dir, every]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, env=environment())
    told: list[list[int]] = json.loads(done.stdout)
    return told


def slope(x: list[int], y: list[int]) -> float:
    """Of the straight line through the points, by least squares."""
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    over = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return over / max(sum((a - mean_x) ** 2 for a in x), 1.0)


def kill(count: int, seed: int, folder: Path) -> bool:
    command = [sys.executable, HERE / "kills.py", "--kills", str(count), "--seed", str(seed)]
    told = {**environment(), "TMPDIR": str(folder)}
    done = subprocess.run(command, check=False, stdout=subprocess.PIPE, text=True, env=told)
    found = json.loads(done.stdout)
    print(
        f"{found['kills']} kills, {found['while training']} of them while training: "
        f"{found['steps']} steps acknowledged, {len(found['wrong'])} promise(s) broken"
    )
    for each in found["wrong"]:
        print("  " + each)
    return not found["wrong"]


def fail_everything() -> bool:
    """Each call and tensor operation of our hooks and system call of the journal made to fail."""
    places = ["adapters/test_faults.py", "faults/test_operations.py", "faults/test_disk.py"]
    tests = [f"tests/{place}" for place in places]
    command = [sys.executable, "-m", "pytest", "-q", *tests, "--timeout", "3600"]
    told = {**environment(), "NNDIAG_FAULTS": "all"}
    return subprocess.run(command, check=False, cwd=ROOT, env=told).returncode == 0


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=1_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--faults", action="store_true", help="make each place fail, too")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        kept = [soak(options.steps, every, folder) for every in ("1", "auto") if options.steps]
        kept += [kill(options.kills, options.seed, folder)] if options.kills else []
        kept += [fail_everything()] if options.faults else []
    sys.exit(not all(kept))


if __name__ == "__main__":
    main()
