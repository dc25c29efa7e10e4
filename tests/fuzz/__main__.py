"""Damaged logs for every reader, and a rule that each reader has to keep.

    python -m tests.fuzz                                        every reader, 100 000 inputs each
    python -m tests.fuzz --format csv --inputs 5000 --seed 7    one reader, other inputs
    python -m tests.fuzz --format csv --seed 7 --only 1234      one input again, with its traceback
    python -m tests.fuzz --out figures.jsonl                    the figures, one object a reader

From the root of the repository; --format may be given several times, "analyze" is the whole way of
`nndiag analyze`, which finds out the format itself. Seeds, mutations and the rule are told in
`seeds.py`, `mutations.py`, `containers.py` and `judge.py`. The same seed gives the same inputs as
long as the fixtures are the same. An input that breaks the rule is made smaller and kept in
fuzz-failures/, with the command that repeats it.

Exit status: 0 when every input kept the rule, 1 when one did not.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import multiprocessing
import os
import random
import resource
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from multiprocessing.connection import Connection, wait
from pathlib import Path
from types import FrameType
from typing import Any

from nndiag.detectors import catalogue as detectors
from nndiag.readers.catalogue import READERS
from tests.fuzz.judge import READ, Fault, Judge
from tests.fuzz.seeds import Seed, mutant, seeds_of
from tests.fuzz.stage import Stage, make

ANALYZE = "analyze"  # no reader is forced
FORMATS = (*(reader.name for reader in READERS), ANALYZE)
LOSSES = (None, None, None, None, None, None, "loss", "train_loss", "no such", "\x1b[31m", "")
STUCK = 20.0  # seconds without an input done: it hangs where no signal reaches it
REPORT_EVERY = 200  # inputs
ADDRESS_SPACE = 2 << 30  # bytes beyond what a worker begins with
SHRINKING = 400  # attempts to make a failing input smaller
KEPT = 3  # failing inputs of one kind


@dataclass
class Failure:
    """An input that broke the rule."""

    format: str
    index: int
    kind: str
    detail: str = ""
    path: str = ""  # where the smallest input with this fault is


@dataclass
class Figures:
    """What came of all inputs of a format."""

    format: str
    inputs: int = 0
    accepted: int = 0  # a run was made of them; all others were refused
    outcomes: set[str] = field(default_factory=set)
    seconds: float = 0.0
    peak_mib: int = 0
    failures: list[Failure] = field(default_factory=list)

    def row(self) -> str:
        share = self.accepted / max(self.inputs, 1)
        speed = self.inputs / max(self.seconds, 1e-9)
        return (
            f"{self.format:20} {self.inputs:8} {speed:9.0f} {share:9.1%} {1 - share:9.1%}"
            f" {len(self.outcomes):9} {self.peak_mib:6} {len(self.failures):9}"
        )


def main(arguments: Sequence[str] | None = None) -> int:
    asked = _options(arguments)
    signal.signal(signal.SIGTERM, _end)  # also in the workers, which inherit it: they tidy up
    if asked.only is not None:
        return _again(asked.format[0], asked.seed, asked.only)
    print(
        f"{'format':20} {'inputs':>8} {'inputs/s':>9} {'accepted':>9} {'refused':>9}"
        f" {'outcomes':>9} {'MiB':>6} {'failures':>9}"
    )
    failed = False
    for format in asked.format or FORMATS:
        figures = run(format, asked.inputs, asked.seed, asked.jobs, asked.keep)
        print(figures.row(), flush=True)
        failed |= bool(figures.failures)
        _tell(figures, asked.seed)
        if asked.out:
            with asked.out.open("a") as file:
                told = {**asdict(figures), "outcomes": len(figures.outcomes), "seed": asked.seed}
                file.write(json.dumps(told) + "\n")
    return int(failed)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--format", action="append", choices=FORMATS, default=[])
    parser.add_argument("--inputs", type=int, default=100_000, help="for each format")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="append the figures to this file")
    parser.add_argument(
        "--keep", type=Path, default=Path("fuzz-failures"), help="for failing inputs"
    )
    parser.add_argument("--only", type=int, metavar="INDEX", help="this input of one --format")
    asked = parser.parse_args(arguments)
    if asked.only is not None and len(asked.format) != 1:
        parser.error("--only needs one --format")
    return asked


def _end(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def _tell(figures: Figures, seed: int) -> None:
    for kind, count in Counter(f.kind.splitlines()[0] for f in figures.failures).most_common():
        first = next(f for f in figures.failures if f.kind.splitlines()[0] == kind)
        print(f"  {count} x {kind}")
        if first.path:
            print(f"      kept   {first.path}")
        print(
            f"      again  python -m tests.fuzz --format {figures.format} --seed {seed}"
            f" --only {first.index}"
        )


def input_of(format: str, seed: int, index: int, scratch: Path) -> tuple[Seed, str | None]:
    """The input of a number, and the name that is asked for as the loss."""
    rng = random.Random(f"{seed}/{format}/{index}")
    reader = rng.choice(READERS).name if format == ANALYZE else format
    return mutant(rng.choice(seeds_of(reader)), rng, scratch), rng.choice(LOSSES)


def judge_of(format: str) -> Judge:
    reader = next((reader for reader in READERS if reader.name == format), None)
    return Judge(reader, detectors.every())


def run(format: str, inputs: int, seed: int, jobs: int, keep: Path) -> Figures:
    """Judge `inputs` inputs of a format in `jobs` processes."""
    for reader in READERS:
        seeds_of(reader.name)
    figures = Figures(format)
    started = time.monotonic()
    context = multiprocessing.get_context("fork")
    workers: dict[Connection, tuple[Any, Any, int]] = {}

    def start(first: int) -> None:
        ours, theirs = context.Pipe(duplex=False)
        at = context.Value("q", first)
        arguments = (theirs, at, format, seed, range(first, inputs, jobs), keep)
        process = context.Process(target=_work, args=arguments, daemon=True)
        process.start()
        theirs.close()
        workers[ours] = (process, at, first)

    for first in range(min(jobs, inputs)):
        start(first)
    seen: dict[Connection, tuple[int, float]] = {}
    while workers:
        for connection in wait(list(workers), timeout=1.0):
            assert isinstance(connection, Connection)
            try:
                _add(figures, connection.recv())
            except EOFError:
                process, at, _ = workers.pop(connection)
                process.join()
                connection.close()
                if process.exitcode:
                    kind = f"the process died: exit status {process.exitcode}"
                    _lost(figures, format, at.value, kind)
                    start(at.value + jobs)
        now = time.monotonic()
        for connection, (process, at, _) in list(workers.items()):
            index, since = seen.get(connection, (-1, now))
            if at.value != index:
                seen[connection] = (at.value, now)
            elif now - since > STUCK:
                process.kill()  # its pipe ends, and that is told above
                seen[connection] = (index, now)
    figures.seconds = time.monotonic() - started
    return figures


def _lost(figures: Figures, format: str, index: int, kind: str) -> None:
    figures.inputs += 1
    figures.failures.append(Failure(format, index, kind))


def _add(figures: Figures, part: Figures) -> None:
    figures.inputs += part.inputs
    figures.accepted += part.accepted
    figures.outcomes |= part.outcomes
    figures.failures += part.failures
    figures.peak_mib = max(figures.peak_mib, part.peak_mib)


def _work(
    connection: Connection, at: Any, format: str, seed: int, indices: Sequence[int], keep: Path
) -> None:
    """One process: judge these inputs, and send the figures bit by bit."""
    _limit_memory()
    parent = os.getppid()
    judge, kept = judge_of(format), Counter[str]()
    with Stage() as stage:
        for some in _batches(indices, REPORT_EVERY):
            if os.getppid() != parent:  # it was killed
                return
            part = Figures(format, inputs=len(some))
            for index in some:
                at.value = index
                failure = _one(judge, stage, format, seed, index, part)
                if failure:
                    kept[failure.kind] += 1
                    if kept[failure.kind] <= KEPT:
                        failure.path = _keep(judge, stage, failure, seed, keep)
                    part.failures.append(failure)
            part.peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
            connection.send(part)


def _batches(indices: Sequence[int], size: int) -> Iterator[Sequence[int]]:
    for first in range(0, len(indices), size):
        yield indices[first : first + size]


def _one(
    judge: Judge, stage: Stage, format: str, seed: int, index: int, part: Figures
) -> Failure | None:
    given, loss = input_of(format, seed, index, stage.scratch)
    try:
        try:
            outcome = judge.judged(stage.place(given), loss)
        except Fault as fault:
            if not fault.kind.startswith("took more"):
                raise
            outcome = judge.judged(stage.place(given), loss)  # perhaps the machine was busy
    except Fault as fault:
        return Failure(format, index, fault.kind, str(fault))
    part.accepted += outcome.startswith(READ)
    part.outcomes.add(outcome)
    return None


def _limit_memory() -> None:
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[0])
    except (OSError, ValueError):
        return
    most = pages * os.sysconf("SC_PAGE_SIZE") + ADDRESS_SPACE
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _keep(judge: Judge, stage: Stage, failure: Failure, seed: int, keep: Path) -> str:
    """Write the input, made smaller; its path."""
    given, loss = input_of(failure.format, seed, failure.index, stage.scratch)
    if not failure.kind.startswith("took"):
        given = _smaller(judge, stage, given, loss, failure.kind)
    digest = hashlib.sha256(failure.kind.encode()).hexdigest()[:8]
    home = keep / f"{failure.format}-{digest}-{failure.index}"
    home.mkdir(parents=True, exist_ok=True)
    target = home / Path(given.name).name if given.is_folder else home
    for name, content in given.files.items():
        with contextlib.suppress(OSError):  # a pipe is there from the last time
            make(target / name, content)
    (home / "FAULT.txt").write_text(
        f"{failure.detail}\n\nloss: {loss!r}\npython -m tests.fuzz --format {failure.format}"
        f" --seed {seed} --only {failure.index}\n",
        errors="backslashreplace",
    )
    return str(target / given.entry)


def _smaller(judge: Judge, stage: Stage, given: Seed, loss: str | None, kind: str) -> Seed:
    """`given` with parts cut out, as long as the fault is the same."""
    left = SHRINKING
    for name, content in list(given.files.items()):
        if not isinstance(content, bytes):
            continue
        size = len(content) // 2
        while size and left > 0:
            at = 0
            while at < len(content) and left > 0:
                left -= 1
                shorter = content[:at] + content[at + size :]
                tried = replace(given, files={**given.files, name: shorter})
                try:
                    judge.judged(stage.place(tried), loss)
                except Fault as fault:
                    if fault.kind == kind:
                        given, content = tried, shorter
                        continue
                at += size
            size //= 2
    return given


def _again(format: str, seed: int, index: int) -> int:
    with Stage() as stage:
        given, loss = input_of(format, seed, index, stage.scratch)
        path = stage.place(given)
        print(f"seed {given.name}, loss {loss!r}")
        for name, content in given.files.items():
            print(f"  {name!r}: {len(content)} bytes" if isinstance(content, bytes) else content)
        try:
            print(judge_of(format).judged(path, loss))
        except Fault as fault:
            print(fault)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
