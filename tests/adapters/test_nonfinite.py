"""The first tensor that went bad is the one that is named."""

from __future__ import annotations

import pytest

from tests.adapters.observed import Train

PRELUDE = """
import torch, torch.nn as nn, torch.nn.functional as F
torch.manual_seed(0)
nan, inf = float("nan"), float("inf")
x, y = torch.randn(16, 4), torch.randn(16, 2)
spoilt = x.clone(); spoilt[3, 2] = nan
net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
opt = torch.optim.SGD(net.parameters(), lr=0.01)
def fit(loss_of, steps=6, clip=None):
    for step in range(steps):
        opt.zero_grad(); loss_of(step == 4).backward()
        if clip: nn.utils.clip_grad_norm_(net.parameters(), clip)
        opt.step()
"""
# what the script does in step 4 -> (kind, where, detail, whether the loss was finite)
BAD = {
    "a NaN in the data": (
        "fit(lambda bad: net(spoilt if bad else x).square().mean())",
        ("input", "0", "AddmmBackward0", False),
    ),
    "a NaN in the targets": (
        "fit(lambda bad: F.mse_loss(net(x), y * nan if bad else y))",
        ("input", "2", "MseLossBackward0", False),
    ),
    "a NaN in a parameter": (
        "def loss(bad):\n"
        "    if bad: net[2].weight.data[0, 0] = nan\n"
        "    return net(x).square().mean()\n"
        "fit(loss)",
        ("parameter", "2.weight", "TBackward0", False),
    ),
    "the log of 0 in the loss": (
        "fit(lambda bad: -torch.log(torch.softmax(net(x), -1) * (not bad)).mean())",
        ("loss", "", "LogBackward0", False),
    ),
    "0 times the log of 0": (
        "def loss(bad):\n"
        "    p = torch.softmax(net(x), -1) * (not bad)\n"
        "    return -(p * torch.log(p)).sum()\n"
        "fit(loss)",
        ("activation", "2", "LogBackward0", False),
    ),
    "a softmax of nothing but minus infinity": (
        "fit(lambda bad: torch.softmax(net(x) + (-inf if bad else 0), -1).square().mean())",
        ("activation", "2", "SoftmaxBackward0", False),
    ),
    "a log of 0 after an attention mask": (
        "net = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True, dropout=0.0)\n"
        "opt = torch.optim.SGD(net.parameters(), lr=0.01)\n"
        "mask = nn.Transformer.generate_square_subsequent_mask(8)\n"
        "fit(lambda bad: torch.log(net(x.view(2, 8, 4), src_mask=mask).square().mean() * (not bad)))",
        ("loss", "", "LogBackward0", False),
    ),
    "the root of 0, whose slope is infinite": (
        "def loss(bad):\n"
        "    w = net[2].weight\n"
        "    return net(x).square().mean() + (w - w if bad else w).abs().sum().sqrt()\n"
        "fit(loss)",
        ("gradient", "2.weight", "1 of 4 gradients", True),
    ),
    "the root of 0, with clipping": (
        "def loss(bad):\n"
        "    w = net[2].weight\n"
        "    return net(x).square().mean() + (w - w if bad else w).abs().sum().sqrt()\n"
        "fit(loss, clip=1.0)",
        ("gradient", "2.weight", "1 of 4 gradients", True),
    ),
    "a NaN behind a scaled loss": (
        "scaler = torch.amp.GradScaler('cpu', init_scale=64.0)\n"
        "for step in range(6):\n"
        "    opt.zero_grad()\n"
        "    scaler.scale(net(spoilt if step == 4 else x).square().mean()).backward()\n"
        "    scaler.step(opt); scaler.update()\n",
        ("input", "0", "AddmmBackward0", False),
    ),
}
FINE = {
    "infinities in an attention mask": (
        "net = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)\n"
        "opt = torch.optim.SGD(net.parameters(), lr=0.01)\n"
        "mask = nn.Transformer.generate_square_subsequent_mask(8)\n"
        "fit(lambda bad: net(x.view(2, 8, 4), src_mask=mask).square().mean())"
    ),
    "scores masked with minus infinity": (
        "mask = torch.ones(16, 16).triu(1).bool()\n"
        "fit(lambda bad: F.cross_entropy((net(x) @ net(x).T).masked_fill(mask, -inf),"
        " torch.arange(16)))"
    ),
    "gradients whose norm overflows though each is finite": (
        "opt = torch.optim.SGD(net.parameters(), lr=0.0)\n"
        "fit(lambda bad: net(x).square().mean() * 1e30)"
    ),
    "a scaler that overflows and skips": (
        "scaler = torch.amp.GradScaler('cpu', init_scale=2.0**126)\n"
        "for step in range(40):\n"
        "    opt.zero_grad(); scaler.scale(net(x).square().mean() * 100).backward()\n"
        "    scaler.step(opt); scaler.update()\n"
    ),
}


@pytest.mark.parametrize("script, expected", BAD.values(), ids=BAD)
def test_the_origin_is_named_of(train: Train, script: str, expected: tuple[str, str, str, bool]):
    run = train(PRELUDE + script)

    assert run.faults == []
    first = run.of_kind("nonfinite")[0]
    told = (first["kind"], first["where"], first["detail"], first["loss_finite"])
    assert (first["step"], told) == (4, expected)


@pytest.mark.parametrize("script", FINE.values(), ids=FINE)
def test_no_origin_is_named_of(train: Train, script: str):
    run = train(PRELUDE + script)

    assert run.faults == []
    assert run.of_kind("nonfinite") == []
