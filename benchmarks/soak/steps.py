"""A training of many steps, bare or watched: its memory and its descriptors on the way, as JSON.

python benchmarks/soak/steps.py 10000 RUN_DIR EVERY      (RUN_DIR "-": not watched)
"""

from __future__ import annotations

import json
import os
import sys

import torch
from torch import nn

SAMPLES = 40


def resident_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def main() -> None:
    steps, run_dir, every = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    torch.set_num_threads(1)
    if run_dir != "-":
        os.makedirs(run_dir)
        os.environ["NNDIAG_RUN"] = run_dir
        os.environ["NNDIAG_SETTINGS"] = json.dumps(
            {"every": int(every) if every != "auto" else every}
        )
        from nndiag.watcher import session

        session.start(torch, {})
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10)
    )
    optimizer = torch.optim.AdamW(net.parameters())
    inputs, targets = torch.randn(16, 1, 8, 8), torch.randint(10, (16,))
    told = []
    for step in range(steps):
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs), targets).backward()
        nn.utils.clip_grad_norm_(net.parameters(), 1.0)
        optimizer.step()
        if step % max(steps // SAMPLES, 1) == 0:
            told.append([step, resident_bytes(), len(os.listdir("/proc/self/fd"))])
    print(json.dumps(told))


if __name__ == "__main__":
    main()
