"""How fast logs are read and judged, each beside the program people would use otherwise.

    python benchmarks/reading/run.py [--quick] [--out FILE]

README.md says what each line means. What is compared takes turns in one process, and medians are
compared: the ratio means something on a machine that is busy, the seconds do not.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from nndiag.detectors import catalogue
from nndiag.diagnosis import diagnose
from nndiag.readers.formats import csv_table, hf_trainer_state, json_lines, plain_text
from nndiag.records import Run

ROUNDS = 3
CURVE_RULES = (
    "converged", "loss-divergence", "loss-nonfinite", "loss-oscillation", "loss-plateau",
    "loss-spike", "overfitting", "slow-convergence",
)  # fmt: skip


@dataclass(frozen=True)
class Sizes:
    """How much is read."""

    csv_rows: int = 10_000_000
    text_bytes: int = 2_000_000_000
    text_lines: int = 500_000  # for the throughput
    json_lines: int = 500_000
    state_rows: int = 200_000


QUICK = Sizes(200_000, 5_000_000, 20_000, 20_000, 5_000)


@dataclass(frozen=True)
class Line:
    """One comparison."""

    what: str
    ours: str  # seconds, values per second or megabytes, with the unit
    beside: str = ""  # the other program and its figure
    ratio: str = ""  # how many times as fast as the other, or as slow
    goal: str = ""


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="small files, a few seconds")
    parser.add_argument("--out", type=Path, metavar="FILE", help="write the lines as JSON, too")
    chosen = parser.parse_args(arguments)
    sizes = QUICK if chosen.quick else Sizes()
    print(f"Python {platform.python_version()}, numpy {np.__version__}, {os.cpu_count()} cores")
    lines = []
    for line in measured(sizes, own_sizes=chosen.quick):
        lines.append(line)
        print(f"{line.what:34} {line.ours:>22}  {line.beside:32} {line.ratio:>16}  {line.goal}")
    if chosen.out:
        chosen.out.write_text(json.dumps([asdict(line) for line in lines], indent=1) + "\n")
    return 0


def measured(sizes: Sizes, *, own_sizes: bool = False) -> Iterator[Line]:
    """All comparisons. `own_sizes`: without the two that know only one size, and take minutes."""
    with tempfile.TemporaryDirectory(prefix="nndiag-reading-") as folder:
        home = Path(folder)
        if not own_sizes:
            yield from by_values("TensorBoard", "tensorboard_events", "EventAccumulator")
            yield from by_values("W&B", "wandb_file", "wandb protobuf")
        yield from csv_and_diagnosis(home, sizes.csv_rows)
        yield from text(home, sizes)
        yield from json_records(home, sizes)
        yield from trainer_state(home, sizes.state_rows)


def by_values(format: str, module: str, other: str) -> Iterator[Line]:
    """The comparison that a module of this folder makes."""
    try:
        found = importlib.import_module(module).measure()
    except ImportError as error:
        yield Line(format, "not measured", f"{error.name} is not installed")
        return
    rate, times = found["values_per_second"], found["times_faster_than"][other]
    yield Line(format, f"{rate / 1e6:.2f} million values/s", other, f"{times:.1f} times faster")


def csv_and_diagnosis(home: Path, rows: int) -> Iterator[Line]:
    path = home / "metrics.csv"
    write_csv(path, rows)
    runs: list[Run] = []
    others = {"polars": _polars(path), "pandas": _pandas(path)}
    readers = {"nndiag": lambda: runs.append(csv_table.read(path))}
    readers |= {name: read for name, read in others.items() if read is not None}
    for read in readers.values():
        read()  # so that nobody pays for loading its library
        runs.clear()
    seconds = timed_in_turn(readers, between=runs.clear)
    for name in others:
        what = f"CSV, {rows:,} rows x 3"
        if name in seconds:
            ratio = seconds["nndiag"] / seconds[name]
            beside = f"{name} {seconds[name]:.2f} s"
            goal = "goal: 2 times polars" if name == "polars" else ""
            yield Line(what, f"{seconds['nndiag']:.2f} s", beside, f"{ratio:.2f} times", goal)
        else:
            yield Line(what, f"{seconds['nndiag']:.2f} s", f"{name} is not installed")
    run = csv_table.read(path)
    detectors = [one for one in catalogue.every() if one.name in CURVE_RULES]
    start = time.perf_counter()
    diagnose(run, detectors)
    took = time.perf_counter() - start
    yield Line(f"its diagnosis, {len(detectors)} loss rules", f"{took:.2f} s", goal="goal: 5 s")
    yield Line("CSV and diagnosis, memory", f"{peak_mb('csv_table', path, judge=True):.0f} MB")
    path.unlink()


def text(home: Path, sizes: Sizes) -> Iterator[Line]:
    path = home / "train.log"
    write_text(path, most_lines=sizes.text_lines)
    readers = {"nndiag": lambda: plain_text.read(path), "lines": lambda: _split(path)}
    seconds = timed_in_turn(readers)
    rate = sizes.text_lines / seconds["nndiag"]
    yield Line(
        f"text, {sizes.text_lines:,} lines",
        f"{rate / 1e3:.0f} thousand lines/s",
        f"reading the lines {seconds['lines']:.2f} s",
        f"{seconds['nndiag'] / seconds['lines']:.1f} times",
    )
    write_text(path, most_bytes=sizes.text_bytes)
    peak = peak_mb("plain_text", path)
    yield Line(f"text of {sizes.text_bytes / 1e6:,.0f} MB, memory", f"{peak:.0f} MB", goal="500 MB")
    path.unlink()


def json_records(home: Path, sizes: Sizes) -> Iterator[Line]:
    path = home / "log.jsonl"
    write_json(path, sizes.json_lines)

    def alone() -> None:
        with path.open() as lines:
            for line in lines:
                json.loads(line)

    seconds = timed_in_turn({"nndiag": lambda: json_lines.read(path), "json": alone})
    yield Line(
        f"JSON, {sizes.json_lines:,} lines",
        f"{seconds['nndiag']:.2f} s",
        f"json.loads alone {seconds['json']:.2f} s",
        f"{seconds['nndiag'] / seconds['json']:.2f} times",
    )
    path.unlink()


def trainer_state(home: Path, rows: int) -> Iterator[Line]:
    path = home / "trainer_state.json"
    history = [
        {"epoch": i / 1000, "grad_norm": 1.5, "learning_rate": 1e-4, "loss": 2.0, "step": i}
        for i in range(rows)
    ]
    path.write_text(json.dumps({"global_step": rows, "log_history": history}, indent=2))
    readers = {
        "nndiag": lambda: hf_trainer_state.read(path),
        "json": lambda: json.loads(path.read_text()),
    }
    seconds = timed_in_turn(readers)
    yield Line(
        f"trainer_state.json, {rows:,} rows",
        f"{seconds['nndiag']:.2f} s",
        f"json.loads alone {seconds['json']:.2f} s",
        f"{seconds['nndiag'] / seconds['json']:.2f} times",
    )


def timed_in_turn(
    readers: dict[str, Callable[[], object]],
    *,
    between: Callable[[], object] = lambda: None,
) -> dict[str, float]:
    """Median seconds of each: one after the other, and that several times."""
    seconds: dict[str, list[float]] = {name: [] for name in readers}
    for _ in range(ROUNDS):
        for name, read in readers.items():
            start = time.perf_counter()
            read()
            seconds[name].append(time.perf_counter() - start)
            between()
    return {name: statistics.median(all_) for name, all_ in seconds.items()}


def peak_mb(reader: str, path: Path, *, judge: bool = False) -> float:
    """Peak resident memory of a process that reads one log, and judges it if so asked."""
    program = f"""
import resource, sys
from pathlib import Path
from nndiag.readers.formats import {reader}
run = {reader}.read(Path({str(path)!r}))
if {judge}:
    from nndiag.detectors import catalogue
    from nndiag.diagnosis import diagnose
    diagnose(run, catalogue.every())
try:  # of this program alone; ru_maxrss counts the process that started it, too
    [peak] = [s.split()[1] for s in open("/proc/self/status") if s.startswith("VmHWM")]
    print(int(peak) * 1024)
except OSError:
    unit = 1 if sys.platform == "darwin" else 1024
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stderr)
    return float(done.stdout) / 1e6


def write_csv(path: Path, rows: int) -> None:
    rng = np.random.default_rng(0)
    with path.open("w") as file:
        file.write("step,loss,lr\n")
        for first in range(0, rows, 200_000):
            step = np.arange(first, min(rows, first + 200_000))
            loss = 0.5 + 2 * np.exp(-10 * step / rows) + 0.1 * rng.random(step.size)
            rate = 1e-3 * (1 - step / rows)
            columns = zip(step.tolist(), loss.tolist(), rate.tolist(), strict=True)
            file.write("".join(f"{a},{b:.6f},{c:.4e}\n" for a, b, c in columns))


def write_text(path: Path, *, most_lines: int = 10**12, most_bytes: int = 10**12) -> None:
    noise = np.random.default_rng(0).random(10_000).tolist()
    step = size = 0
    with path.open("w") as file:
        while step < most_lines and size < most_bytes:
            part = "".join(
                f"2026-01-01 10:{k // 60 % 60:02d}:{k % 60:02d},{k % 1000:03d} INFO step {k} | "
                f"loss {2 / (1 + k / 1e6) + one:.4f} | lr {1e-3 / (1 + k / 1e7):.2e} | "
                f"grad_norm {3 * one:.3f} | {100 * one:.1f} ms\n"
                for k, one in enumerate(noise[: most_lines - step], start=step)
            )
            file.write(part)
            step, size = step + 10_000, size + len(part)


def write_json(path: Path, rows: int) -> None:
    noise = np.random.default_rng(0).random(rows).tolist()
    with path.open("w") as file:
        for step, one in enumerate(noise):
            record = {"step": step, "loss": 2 + one, "lr": 1e-3 / (1 + step), "epoch": step // 1000}
            file.write(json.dumps({**record, "grad_norm": 3 * one}) + "\n")


def _split(path: Path) -> int:
    with path.open() as lines:
        return sum(len(line.split()) for line in lines)


def _polars(path: Path) -> Callable[[], object] | None:
    try:
        import polars
    except ImportError:
        return None
    return lambda: polars.read_csv(path)


def _pandas(path: Path) -> Callable[[], object] | None:
    try:
        import pandas
    except ImportError:
        return None
    return lambda: pandas.read_csv(path)


if __name__ == "__main__":
    sys.exit(main())
