"""Our code never makes the host wait for a device: no `.item()`, no `.cpu()`, no blocking copy.

There is no GPU here. `pretended_device` has every tensor say that it lies on another device, runs
every operation of ours on it through a dispatch mode, and holds copies to the host back until their
event says that they have come. So what is proved is which operations we call where tensors are not
on the CPU, that none of them waits, that nothing is read before it is there, and that the numbers
are those of the CPU. What a kernel of a real device does by itself is not.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

import numpy as np
import pytest

from tests.adapters.observed import Observed, Train

BEGIN = """
import json, sys
import torch
from tests.adapters import pretended_device
watch = pretended_device.begin() if "--far" in sys.argv else None
import torch.nn as nn, torch.nn.functional as F
torch.manual_seed(0)
"""
END = """
if watch is not None:
    print(json.dumps({"waits": watch.waits, "operations": sorted(watch.operations),
                      "copies": watch.copies, "late": watch.late}))
"""
CNN = """
net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(288, 128), nn.Tanh(),
    nn.Dropout(0.1), nn.Linear(128, 16), nn.ReLU(inplace=True), nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 4))
opt = torch.optim.AdamW(net.parameters(), lr=1e-3, foreach=False)
x, y = torch.randn(256, 3, 8, 8), torch.randint(4, (256,))
for step in range(23):
    opt.zero_grad()
    for half in (slice(0, 128), slice(128, 256)):
        F.cross_entropy(net(x[half]), y[half]).backward()  # a number in the graph would be of the device
    nn.utils.clip_grad_norm_(net.parameters(), 1.0, foreach=False)
    opt.step()
"""
TRANSFORMER = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.tokens = nn.Embedding(32, 16)
        self.layers = nn.ModuleList(nn.TransformerEncoderLayer(16, 2, 32, 0.1, batch_first=True) for _ in range(2))
        self.head = nn.Linear(16, 32)
    def forward(self, x):
        x = self.tokens(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(F.relu(x)).flatten(0, 1)
net = Net()
opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, foreach=False)
x = torch.randint(32, (8, 12))
for step in range(23):
    opt.zero_grad()
    F.cross_entropy(net(x), x.flatten()).backward()
    opt.step()
"""
TWO = """
G = nn.Sequential(nn.Linear(4, 300), nn.ReLU(), nn.Linear(300, 8), nn.Sigmoid())
D = nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(), nn.Linear(16, 1))
first, second = (torch.optim.Adam(net.parameters(), lr=1e-3, foreach=False) for net in (G, D))
for step in range(23):
    noise, real = torch.randn(64, 4), torch.rand(64, 8)
    second.zero_grad()
    (F.softplus(-D(real)).mean() + F.softplus(D(G(noise).detach())).mean()).backward()
    second.step()
    first.zero_grad()
    F.softplus(-D(G(noise))).mean().backward()
    first.step()
"""
TRAININGS = {"a CNN that accumulates": CNN, "a transformer": TRANSFORMER, "two optimizers": TWO}
CLOCKS = ("step_time_s", "nndiag_time_s", "time_to_backward_s")


def numbers_of(run: Observed) -> Iterator[tuple[tuple[str, str, str], dict[int, float]]]:
    """Each series of a run, but for times."""
    for stream in run._streams:
        for metric, where in stream.columns:
            if metric not in CLOCKS:
                yield (stream.owner, metric, where), run.series(metric, where, stream.owner)


@pytest.mark.parametrize("every", [1, 10])
@pytest.mark.parametrize("script", TRAININGS.values(), ids=TRAININGS)
def test_our_code_waits_for_no_device_and_its_numbers_are_those_of_the_cpu(
    train: Train, script, every
):
    near = train(BEGIN + script + END, every=every)
    far = train(BEGIN + script + END, "--far", every=every)

    assert near.faults == far.faults == []
    told = far.told
    assert told["waits"] == []
    assert told["copies"] >= 23 and told["late"] >= told["copies"] // 2
    assert {"_foreach_norm", "stack", "copy_"} <= set(told["operations"])
    expected, found = dict(numbers_of(near)), dict(numbers_of(far))
    assert found.keys() == expected.keys()
    for key, series in expected.items():
        assert found[key].keys() == series.keys(), key
        wanted = np.array(list(series.values()))
        np.testing.assert_allclose(
            np.array(list(found[key].values())), wanted, rtol=2e-3, atol=2e-5, err_msg=str(key)
        )


def test_our_code_waits_for_no_device_when_it_chooses_the_steps(train: Train):
    run = train(BEGIN + CNN + END, "--far", every="auto")

    assert run.faults == []
    assert run.told["waits"] == [] and run.told["copies"] >= 23


WAITS = {
    "item": "x.sum().item()",
    "float": "float(x.sum())",
    "bool": "bool((x > 0).any())",
    "tolist": "x.tolist()",
    "numpy": "x.numpy()",
    "cpu": "x.cpu()",
    "to": "x.to('cpu', non_blocking=True)",
    "a blocking copy": "torch.empty(3, device='cpu').copy_(x)",
    "a blocking copy to the device": "torch.ones(3, device='cpu').to(x.device)",
    "nonzero": "x.nonzero()",
    "a mask": "x[x > 0]",
    "masked_select": "x.masked_select(x > 0)",
    "equal": "torch.equal(x, x + 1)",
    "an event": "pretended_device.Event.synchronize(pending)",
}
FREE = {
    "arithmetic": "(x * 2 + 1).norm()",
    "what is on the host": "torch.ones(3, device='cpu').sum().item()",
    "a copy that does not block": "torch.empty(3, device='cpu', pin_memory=True).copy_(x, non_blocking=True)",
    "to the device without blocking": "torch.ones(3, device='cpu').to(x.device, non_blocking=True)",
    "asking an event": "pending.query()",
}
CONTROL = """
pending = pretended_device.Event()
pending.record("stream of far:0")
x = torch.tensor([1.0, 0.0, -1.0])
found = {}
for name, code in %r.items():
    before = watch.user_waits
    eval(code)
    found[name] = watch.user_waits - before
print(json.dumps(found))
"""


def test_the_pretended_device_sees_every_wait(train: Train):
    run = train(BEGIN + CONTROL % (WAITS | FREE), "--far", watched=False)

    assert {name for name, waits in run.told.items() if waits} == WAITS.keys()


def test_what_has_not_come_yet_cannot_be_read(train: Train):
    script = """
x = torch.tensor([1.0, 2.0])
host = torch.empty(2, device="cpu", pin_memory=True)
host.copy_(x, non_blocking=True)
event = pretended_device.Event()
event.record("stream of far:0")
early = host.tolist()
while not event.query():
    pass
print(json.dumps([str(early), host.tolist()]))
"""
    run = train(BEGIN + script, "--far", watched=False)

    assert json.loads(run.stdout) == ["[nan, nan]", [1.0, 2.0]]
