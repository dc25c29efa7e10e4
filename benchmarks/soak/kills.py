"""Trainings that are killed at random times: is every step that was acknowledged in the journal?

One process imports torch; each training is a fork of it, watched from its first line. After each
`optimizer.step()` it appends the step's number to a file: the acknowledgement. It gets SIGKILL,
SIGTERM or SIGINT at a random time, and must die of that, as a plain Python would: after a Ctrl-C
with one traceback, wherever it came.

    python benchmarks/soak/kills.py --kills 50
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import torch
import torch._dynamo  # the first optimizer would import it, in each fork
from torch import nn

import nndiag.adapters.pytorch.observer  # and this, too  # noqa: F401
from nndiag.errors import UnreadableLog
from nndiag.journal.reader import open_run, read_stream
from nndiag.readers import run_directory
from nndiag.watcher import session

SIGNALS = (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
AT_ONCE = 3
PATIENCE_S = 60.0
LONGEST_S = 0.4  # until the kill; the first step is made after some 0.05 s


def train_for_ever(run_dir: Path) -> None:
    acknowledged = os.open(run_dir / "acknowledged", os.O_CREAT | os.O_WRONLY | os.O_APPEND, 0o600)
    torch.set_num_threads(1)
    net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 1))
    optimizer = torch.optim.Adam(net.parameters())
    inputs, step = torch.randn(32, 8), 0
    while True:
        optimizer.zero_grad()
        net(inputs).square().mean().backward()
        optimizer.step()
        os.write(acknowledged, step.to_bytes(8, "little"))
        step += 1


def start(run_dir: Path) -> int:
    """A watched training in a fork; its process id. In the fork it returns 0."""
    run_dir.mkdir()
    pid = os.fork()
    if pid == 0:
        os.environ["NNDIAG_RUN"] = str(run_dir)
        os.environ["NNDIAG_SETTINGS"] = '{"every": 1}'
        os.dup2(os.open(run_dir / "opened", os.O_CREAT | os.O_WRONLY, 0o600), 2)
        os.rename(run_dir / "opened", run_dir / "stderr")  # it is ready: Python has forked
    return pid


def status_of(pid: int) -> int:
    """How it ended; one that does not die of its signal is ended by another."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return status
        time.sleep(0.001)
    os.kill(pid, signal.SIGQUIT)
    return os.waitpid(pid, 0)[1]


def wrong_with(run_dir: Path, number: int, status: int) -> Iterator[str]:
    """What is not as promised after a training that was sent signal `number`."""
    ended = os.waitstatus_to_exitcode(status)
    if ended != -number:
        yield f"status {ended} after {signal.Signals(number).name}"
    said = (run_dir / "stderr").read_text()
    if number == signal.SIGINT:
        once = said.startswith("Traceback") and said.count("Traceback") == 1
        if not (once and said.endswith("\nKeyboardInterrupt\n")):
            yield f"a Ctrl-C was told as {said[-2000:]}"
    elif said:
        yield f"standard error: {said[-2000:]}"
    told = run_dir / "acknowledged"
    acknowledged = told.stat().st_size // 8 if told.exists() else 0
    journal = open_run(run_dir) if any(run_dir.glob("rank-*")) else None
    steps = []
    for path in journal.ranks[0].step_files if journal else ():
        try:
            stream = read_stream(path)
        except UnreadableLog as problem:  # killed within the header: there was no row yet
            yield from [str(problem)] if acknowledged else []
            continue
        steps += stream.steps.tolist()
        if stream.damaged_records:
            yield f"{stream.damaged_records} damaged rows"
    if steps != list(range(len(steps))):
        yield f"steps {steps[:9]}... are not 0, 1, 2, ..."
    if not acknowledged <= len(steps) <= acknowledged + 1:
        yield f"{acknowledged} steps acknowledged, {len(steps)} read"
    if journal and acknowledged > 1:
        _, skipped = journal.ranks[0].events()
        if skipped > 1:
            yield f"{skipped} events lost"
        run_directory.read(run_dir)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    # A shell starts what runs in its background with Ctrl-C ignored, and so would each training.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    chance = random.Random(options.seed)
    folder = Path(tempfile.mkdtemp())
    running: dict[int, tuple[Path, int, float]] = {}  # pid -> run, signal, when
    started = 0
    steps, wrong = [], []
    gc.freeze()  # a fork need not look through all of torch again
    while started < options.kills or running:
        while started < options.kills and len(running) < AT_ONCE:
            run_dir = folder / str(started)
            when = time.monotonic() + chance.uniform(0.0, LONGEST_S)
            pid = start(run_dir)
            if pid == 0:
                session.start(torch, {})
                train_for_ever(run_dir)
            running[pid] = run_dir, SIGNALS[started % len(SIGNALS)], when
            started += 1
        time.sleep(0.002)
        for pid, (run_dir, number, when) in list(running.items()):
            if time.monotonic() < when or not (run_dir / "stderr").exists():
                continue
            os.kill(pid, number)
            status = status_of(pid)
            del running[pid]
            wrong += [f"{run_dir.name}: {each}" for each in wrong_with(run_dir, number, status)]
            told = run_dir / "acknowledged"
            steps.append(told.stat().st_size // 8 if told.exists() else 0)
    trained = [count for count in steps if count]
    result = {"kills": len(steps), "while training": len(trained), "steps": sum(steps)}
    print(json.dumps({**result, "wrong": wrong}))
    sys.exit(bool(wrong))


if __name__ == "__main__":
    main()
