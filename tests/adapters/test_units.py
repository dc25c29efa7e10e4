"""Dead and saturated units, however the activation is spelled."""

from __future__ import annotations

import pytest

from tests.adapters.observed import Observed, Zygote, train_in

# A net for each way to write an activation. The first 3 of 8 units can never be active.
SPELLINGS = """
import sys
import torch, torch.nn as nn, torch.nn.functional as F
torch.manual_seed(0)
class Net(nn.Module):
    def __init__(self, activation):
        super().__init__()
        self.first, self.last = nn.Linear(4, 8), nn.Linear(8, 1)
        self.module = activation if isinstance(activation, nn.Module) else None
        self.function = activation
        with torch.no_grad():
            self.first.bias[:3], self.first.bias[3:] = -1000.0, 1.0
    def forward(self, x):
        x = self.first(x)
        return self.last(self.function(x) if self.module is None else self.module(x))
for name in sys.argv[1:]:
    net = type(name.replace(" ", "_"), (Net,), {})(eval(name))
    opt = torch.optim.SGD(net.parameters(), lr=0.0)
    for _ in range(3):
        opt.zero_grad()
        net(torch.randn(64, 4) / 10).square().mean().backward()
        opt.step()
"""
RELUS = {
    "nn.ReLU()": "module",
    "nn.ReLU(inplace=True)": "module",
    "nn.ReLU6()": "module",
    "nn.ReLU6(inplace=True)": "module",
    "nn.Threshold(0, 0)": "module",
    "F.relu": "first",
    "F.relu_": "first",
    "F.relu6": "first",
    "lambda x: F.relu(x, inplace=True)": "first",
    "torch.relu": "first",
    "torch.relu_": "first",
    "lambda x: x.relu()": "first",
    "lambda x: x.relu_()": "first",
    "lambda x: x.clamp(min=0)": "first",
    "lambda x: x.clamp_(0, 6)": "first",
    "lambda x: torch.clamp_min(x, 0)": "first",
    "lambda x: F.dropout(F.relu(F.layer_norm(x, (8,))))": "first",
}
OTHERS = ["nn.LeakyReLU()", "nn.GELU()", "nn.SiLU()", "nn.ELU()", "nn.Softplus()", "F.leaky_relu",
          "lambda x: x.clamp(min=-1)", "nn.Identity()"]  # fmt: skip


def dead_units(train, names: list[str]) -> dict[str, dict[str, list[float]]]:
    """By spelling, by place: the fraction of dead units in each step."""
    found = {}
    for begin in range(0, len(names), 12):  # no more optimizers than are followed
        batch = names[begin : begin + 12]
        run = train(SPELLINGS, *batch)
        assert run.faults == []
        for name in batch:
            owner = f"SGD({name.replace(' ', '_')})"
            assert owner in run.owners
            series = {
                place: list(run.series("dead_unit_fraction", place, owner).values())
                for place in run.places("dead_unit_fraction")
            }
            found[name] = {place: values for place, values in series.items() if values}
    return found


@pytest.fixture(scope="module")
def train_once(tmp_path_factory: pytest.TempPathFactory, zygote: Zygote):
    return train_in(tmp_path_factory.mktemp("units"), zygote)


@pytest.fixture(scope="module")
def found(train_once) -> dict[str, dict[str, list[float]]]:
    return dead_units(train_once, [*RELUS, *OTHERS])


@pytest.mark.parametrize("spelling", RELUS)
def test_dead_units_are_counted_for_a_relu_spelled(found, spelling):
    assert found[spelling] == {RELUS[spelling]: [3 / 8] * 3}


@pytest.mark.parametrize("spelling", OTHERS)
def test_units_cannot_be_dead_behind(found, spelling):
    assert found[spelling] == {}


SHAPES = """
import torch, torch.nn as nn, torch.nn.functional as F
torch.manual_seed(0)
def fit(net, x, steps=3, **kwargs):
    opt = torch.optim.SGD(net.parameters(), lr=0.0)
    for step in range(steps):
        opt.zero_grad()
        net(x(step) if callable(x) else x).square().mean().backward()
        opt.step()
class Conv(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.out = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.Linear(8, 2)
        with torch.no_grad():
            self.conv.weight[:2], self.conv.bias[:2], self.norm.bias[4:8] = 0.0, -1.0, -1000.0
    def forward(self, x):
        x = F.relu(self.conv(x))           # 2 of 8 channels are dead
        x = F.relu(self.norm(x))           # these 2 and 4 more
        return self.out(x.mean((2, 3)))
fit(Conv(), torch.randn(4, 3, 9, 9))
class Tokens(nn.Module):
    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(6, 10), nn.Linear(10, 6)
        with torch.no_grad():
            self.up.bias[0] = -1000.0
    def forward(self, x):
        return self.down(F.relu(self.up(x)))   # (N, sequence, units)
fit(Tokens(), torch.randn(4, 5, 6))
class Twice(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.relu = nn.Linear(2, 2, bias=False), nn.ReLU()
        self.layer.weight.data = torch.eye(2)
    def forward(self, x):  # unit 0 is alive in the first call only, unit 1 in the second
        return self.relu(self.layer(x)) + self.relu(self.layer(-x))
fit(Twice(), torch.tensor([[1.0, -1.0]]).repeat(64, 1))
class Rare(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer, self.relu = nn.Linear(2, 2, bias=False), nn.ReLU()
        self.layer.weight.data = torch.eye(2)
    def forward(self, x):
        return self.relu(self.layer(x))
# A unit that one batch in four wakes is not dead, and one that sleeps for 2048 samples is.
fit(Rare(), lambda step: torch.tensor([[1.0, 1.0 if step % 4 == 0 and step < 8 else -1.0]]).repeat(256, 1), steps=16)
class Limits(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.tanh, self.b, self.c = nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 4), nn.Linear(4, 1)
        with torch.no_grad():
            self.a.bias[:2], self.b.bias[:1] = 50.0, -50.0
    def forward(self, x):
        return self.c(torch.sigmoid(self.b(self.tanh(self.a(x)))))
fit(Limits(), torch.randn(64, 4) / 10)
class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm, self.gru, self.out = nn.LSTM(4, 6, batch_first=True), nn.GRUCell(6, 6), nn.Linear(6, 1)
        for p in self.lstm.parameters():
            p.data.mul_(100.0)
    def forward(self, x):
        h, _ = self.lstm(x)
        state = torch.zeros(len(x), 6)
        for i in range(x.shape[1]):
            state = self.gru(h[:, i], state)
        return self.out(state)
fit(Recurrent(), torch.randn(8, 5, 4))
"""


@pytest.fixture(scope="module")
def shapes(train_once) -> Observed:
    run = train_once(SHAPES)
    assert run.faults == []
    return run


@pytest.mark.parametrize(
    "model, place, expected",
    [("Conv", "conv", 2 / 8), ("Conv", "norm", 6 / 8), ("Tokens", "up", 1 / 10),
     ("Twice", "relu", 0.0)],
)  # fmt: skip
def test_a_unit_is_a_channel_or_a_feature_whatever_the_shape(shapes, model, place, expected):
    assert shapes.values("dead_unit_fraction", place, f"SGD({model})") == pytest.approx(expected)


def test_a_unit_is_dead_only_when_it_slept_through_the_whole_window(shapes):
    dead = shapes.values("dead_unit_fraction", "relu", "SGD(Rare)")
    window = shapes.values("dead_unit_samples", "relu", "SGD(Rare)")

    assert window[:3].tolist() == [256, 512, 768] and window.max() == 2048
    assert set(dead[:12]) == {0.0}  # awake in steps 0 and 4
    assert set(dead[12:]) == {0.5}  # 8 batches of 256 without a sign of life


def test_saturated_units_are_counted_for_tanh_and_sigmoid_and_not_for_gates(shapes):
    assert set(shapes.series("saturated_unit_fraction", "tanh", "SGD(Limits)").values()) == {2 / 8}
    assert set(shapes.series("saturated_unit_fraction", "b", "SGD(Limits)").values()) == {1 / 4}
    recurrent = [p for p in shapes.places("saturated_unit_fraction")
                 if shapes.series("saturated_unit_fraction", p, "SGD(Recurrent)")]  # fmt: skip
    assert recurrent == []
