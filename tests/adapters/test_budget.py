"""The budget is kept in real trainings, and hooks do nothing where nothing is measured."""

from __future__ import annotations

import numpy as np
import pytest

from nndiag.watcher.schedule import DENSE_STEPS, FREE_S
from tests.adapters.observed import Observed, Train

NETS = {
    "a wide net": (
        "nn.Sequential(*(m for _ in range(4) for m in (nn.Linear(512, 512), nn.ReLU())), nn.Linear(512, 4))",
        "torch.randn(128, 512)",
    ),
    "a convolutional net": (
        "nn.Sequential(nn.Conv2d(3, 32, 3), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3), nn.ReLU(),"
        " nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 4))",
        "torch.randn(16, 3, 24, 24)",
    ),
    "a transformer": (
        "nn.Sequential(nn.TransformerEncoderLayer(64, 4, 256, 0.1, batch_first=True),"
        " nn.TransformerEncoderLayer(64, 4, 256, 0.1, batch_first=True), nn.Flatten(), nn.Linear(2048, 4))",
        "torch.randn(16, 32, 64)",
    ),
    "many tiny layers": (
        "nn.Sequential(*(m for _ in range(80) for m in (nn.Linear(32, 32), nn.ReLU())), nn.Linear(32, 4))",
        "torch.randn(32, 32)",
    ),
}
SCRIPT = """
import time
import torch, torch.nn as nn, torch.nn.functional as F
torch.manual_seed(0)
net, x, y = {net}, {x}, torch.randint(4, ({x}.shape[0],))
opt = torch.optim.AdamW(net.parameters(), lr=1e-4)
end, steps = time.perf_counter() + 1.5, 0
while steps < 60 or time.perf_counter() < end:  # on a busy machine a step may take a second
    steps += 1
    opt.zero_grad()
    F.cross_entropy(net(x), y).backward()
    opt.step()
"""


def seconds_of_ours(run: Observed) -> tuple[np.ndarray, np.ndarray]:
    """What we took of each step, and which steps were measured: (steps,)."""
    [place] = set(run.places("param_norm")[:1])
    measured = run.series("param_norm", place)
    ours = run.series("nndiag_time_s")
    return np.array(list(ours.values())), np.array([step in measured for step in ours])


@pytest.mark.parametrize("net, x", NETS.values(), ids=NETS)
def test_the_budget_is_kept(train: Train, net, x):
    run = train(SCRIPT.format(net=net, x=x), every="auto", overhead_percent=2.0)

    assert run.faults == []
    [overhead] = run.of_kind("overhead")
    elapsed_s = 100 * overhead["seconds"] / overhead["percent"]
    ours_s, measured = seconds_of_ours(run)
    # Nothing is left out of a row, and some stretches are looked at whatever the budget says.
    rows_s = float(np.median(ours_s[~measured])) * len(ours_s)
    dear_s = float(np.median(ours_s[measured]))
    allowed_s = FREE_S + 0.02 * elapsed_s + rows_s + (DENSE_STEPS + 25) * dear_s
    assert overhead["seconds"] <= 1.5 * allowed_s  # the machine may be busy
    assert DENSE_STEPS < measured.sum() <= DENSE_STEPS + len(ours_s) / 5


def test_what_is_told_of_the_cost_is_what_was_spent(train: Train):
    net, x = NETS["a wide net"]
    run = train(SCRIPT.format(net=net, x=x), every=1)

    [overhead] = run.of_kind("overhead")
    ours_s, measured = seconds_of_ours(run)
    assert measured.all()
    # A row tells what was spent since the row before it; the last ones and the end come on top.
    assert 0.8 * ours_s.sum() <= overhead["seconds"] <= ours_s.sum() + 1.0


def test_a_run_that_is_over_its_budget_gives_up_norms_before_losses(train: Train):
    net, x = NETS["many tiny layers"]
    run = train(SCRIPT.format(net=net, x=x), every="auto", overhead_percent=0.0)

    losses, norms = run.values("loss"), run.values("grad_norm")
    assert run.faults == []
    assert np.isfinite(losses).all()
    left_out = norms == -1
    assert left_out[len(norms) // 2 :].any() and left_out.mean() < 0.8
    assert not left_out[::4].any()
    assert (norms[~left_out] > 0).all()


LATER = """
import torch, torch.nn as nn, torch.nn.functional as F
torch.manual_seed(0)
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.relu, self.middle, self.last = nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 1)
        with torch.no_grad():
            self.first.bias[:2], self.first.bias[2:] = -1000.0, 1.0
            self.middle.bias[:4], self.middle.bias[4:] = -1000.0, 100.0
        self.steps = 0
    def forward(self, x):
        self.steps += 1
        x = self.middle(self.relu(self.first(x)))
        return self.last(F.relu(x) if self.steps > 20 else x)
net = Net()
opt = torch.optim.SGD(net.parameters(), lr=0.0)
for _ in range(60):
    opt.zero_grad()
    net(torch.randn(64, 4) / 10).square().mean().backward()
    opt.step()
"""


def test_a_relu_that_a_script_begins_to_use_later_is_found(train: Train):
    run = train(LATER)

    assert set(run.series("dead_unit_fraction", "relu").values()) == {2 / 8}
    later = {step: v for step, v in run.series("dead_unit_fraction", "middle").items() if v == v}
    assert set(later.values()) == {4 / 8}
    assert 20 <= min(later) <= 20 + 16  # with the next walk through the graph
    assert max(later) == 59
