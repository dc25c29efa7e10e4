"""`alike(script)`: runs a script without us and watched, and compares all that can be seen."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.adapters.conftest import train, zygote
from tests.adapters.observed import Observed, Train

__all__ = ["train", "zygote"]

Alike = Callable[..., Observed]

PRELUDE = """
import os, sys
import torch, torch.nn as nn
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
opt = torch.optim.SGD(net.parameters(), lr=0.1)
def fit(steps, before=lambda step: None):
    for step in range(steps):
        opt.zero_grad(); net(torch.ones(3, 4)).square().mean().backward(); before(step); opt.step()
run_dir = os.environ.get("NNDIAG_RUN", "")
"""
# At the end, for those that get there: what was trained is the same, bit for bit.
WEIGHTS = "\nprint([p.tolist() for p in net.parameters()], torch.rand(1).item())\n"


@pytest.fixture
def alike(train: Train) -> Alike:
    """The watched run, after it was found to end and to speak as the plain one did."""

    def run(script: str, **options: object) -> Observed:
        text = PRELUDE + script + WEIGHTS
        plain = train(text, watched=False, **options)
        watched = train(text, **options)
        assert watched.stdout == plain.stdout
        assert watched.stderr == plain.stderr
        return watched

    return run
