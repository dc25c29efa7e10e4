"""What is told of code and data: the numbers are right, and there are few of them."""

from __future__ import annotations

import pytest

from nndiag.readers import run_directory
from nndiag.records import Fact
from tests.adapters.observed import Train

PRELUDE = """
import json, math
import torch, torch.nn as nn, torch.nn.functional as F
torch.manual_seed(0)
"""


def facts(train: Train, script: str, kind: str, **settings) -> list[Fact]:
    observed = train(PRELUDE + script, **settings)
    assert observed.faults == []
    return list(run_directory.read(observed.run_dir).facts_of(kind))


CNN = """
net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 5))
opt = torch.optim.SGD(net.parameters(), 0.01); x = 7 + 3 * torch.randn(6, 3, 8, 8); y = torch.randint(5, (6,))
for step in range(12):
    opt.zero_grad(); F.cross_entropy(net(x), y).backward(); opt.step()
"""


def test_the_statistics_of_the_input_are_those_of_the_data(train: Train):
    told = "print(json.dumps([x.mean().item(), x.std(correction=0).item(), x.abs().max().item()]))"
    observed = train(PRELUDE + CNN + told)
    found = list(run_directory.read(observed.run_dir).facts_of("input"))

    assert [fact.step for fact in found] == [0, 1, 2]
    [first, *_] = found
    assert (first.where, first.number("module"), first.number("dtype")) == (
        "0", "Conv2d", "float32",
    )  # fmt: skip
    assert [first.amount(n) for n in ("mean", "std", "abs_max")] == pytest.approx(observed.told)
    assert (first.count("samples"), first.count("features")) == (6, 3)


def test_batch_norm_counts_samples_times_positions(train: Train):
    [first, *_] = facts(train, CNN, "batch-statistics")

    assert first.where == "1"
    assert (first.count("values"), first.count("batch")) == (6 * 36, 6)


@pytest.mark.parametrize(
    ("loss", "operation", "classes", "whole"),
    [
        ("F.cross_entropy(net(x), y)", "cross-entropy", 5, True),
        ("F.cross_entropy(net(x), y) / 4 + net[0].weight.norm()", "cross-entropy", 5, False),
        ("F.nll_loss(net(x).log_softmax(-1)[:, :4], y % 4)", "cross-entropy", 4, True),
        ("F.cross_entropy(net(x).view(2, 4, 5).transpose(1, 2), y.view(2, 4))", "cross-entropy", 5,
         True),
        ("F.mse_loss(net(x), x[:, :5])", "mse", 0, True),
        ("F.binary_cross_entropy_with_logits(net(x), x[:, :5].sigmoid())",
         "binary-cross-entropy-with-logits", 0, True),
    ],
)  # fmt: skip
def test_the_loss_is_named(train: Train, loss: str, operation: str, classes: int, whole: bool):
    script = f"""
net = nn.Sequential(nn.Linear(6, 5)); opt = torch.optim.SGD(net.parameters(), 0.1)
x, y = torch.randn(8, 6), torch.randint(5, (8,))
for step in range(4):
    opt.zero_grad(); ({loss}).backward(); opt.step()
"""
    [first, *_] = facts(train, script, "loss")

    assert first.number("operation") == operation
    assert first.count("classes") == classes
    assert first.number("whole_loss") is whole
    assert first.number("probabilities") == ""


def test_modes_are_told_when_they_change(train: Train):
    script = """
net = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.1), nn.Dropout(0.0), nn.BatchNorm1d(8))
opt = torch.optim.SGD(net.parameters(), 0.1)
for step in range(30):
    if step == 20: net.eval()
    opt.zero_grad(); net(torch.randn(8, 6)).square().mean().backward(); opt.step()
"""
    found = facts(train, script, "mode")

    assert [fact.step for fact in found] == [0, 1, 2, 20, 21, 22]
    assert [fact.count("dropout") for fact in found] == [1] * 6
    assert [fact.count("norm_in_eval_trained") for fact in found] == [0, 0, 0, 1, 1, 1]
    assert [fact.number("training") for fact in found] == [True] * 3 + [False] * 3
    assert found[-1].number("first") == "1"


def test_accumulation_is_told_as_cleared(train: Train):
    script = """
net = nn.Linear(6, 5); opt = torch.optim.SGD(net.parameters(), 0.1)
for step in range(40):
    (net(torch.randn(8, 6)).square().mean() / 4).backward()
    if step % 4 == 3: opt.step(); opt.zero_grad()
"""
    found = facts(train, script, "zero-grad")

    assert [(fact.step, fact.count("checked"), fact.count("stale")) for fact in found] == [
        (1, 2, 0), (2, 2, 0), (3, 2, 0),
    ]  # fmt: skip


def test_steps_that_the_scaler_skips_are_counted(train: Train):
    script = """
net = nn.Linear(6, 5); opt = torch.optim.SGD(net.parameters(), 0.1); scaler = torch.amp.GradScaler("cpu")
for step in range(30):
    opt.zero_grad(); scaler.scale(net(torch.randn(8, 6)).square().mean()).backward()
    if step % 3 == 2: net.weight.grad[0, 0] = math.inf
    scaler.step(opt); scaler.update()
"""
    found = facts(train, script, "skipped-steps")

    assert [fact.count("count") for fact in found] == [1, 2, 4, 8]


def test_a_long_run_that_changes_all_the_time_tells_few_facts(train: Train):
    script = """
net = nn.Sequential(nn.Linear(6, 8), nn.Dropout(0.1), nn.Linear(8, 5)); opt = torch.optim.SGD(net.parameters(), 0.1)
for step in range(300):
    net.train(step % 2 == 0); loss = net(torch.randn(2 + 5 * (step % 7), 6)).square().mean()
    if step % 3: opt.zero_grad()
    loss.backward(); opt.step()
"""
    observed = train(PRELUDE + script)

    assert len(observed.of_kind("fact")) < 60
