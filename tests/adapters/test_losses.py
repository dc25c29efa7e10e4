"""What a step's loss, gradient norm and threshold are where the loop is not the plain one."""

from __future__ import annotations

import pytest

from tests.adapters.observed import Train

LOOPS = """
import json, math
import torch, torch.nn as nn
told = {}
def tell(run, **values):
    for name, value in values.items():
        told.setdefault(run, {}).setdefault(name, []).append(float(torch.as_tensor(value).detach()))
def length(parameters, scale=1.0):
    return math.sqrt(sum(float((p.grad.double() / scale).square().sum()) for p in parameters))
def start(name, kind=torch.optim.SGD, **kwargs):
    torch.manual_seed(0)
    class Net(nn.Sequential): pass
    net = type(name, (Net,), {})(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    return net, list(net.parameters()), kind(net.parameters(), lr=0.01, **kwargs), torch.randn(16, 4)
def value(net, x):
    return net(x).square().mean()

for name, share in (("Divided", lambda loss: loss / 4), ("Multiplied", lambda loss: loss * 0.25), ("Summed", lambda loss: loss)):
    net, parameters, opt, x = start(name)
    for step in range(3):
        losses = [value(net, x * (k + 1)) for k in range(4)]
        for loss in losses:
            share(loss).backward()
        tell(name, loss=sum(losses) / 4, grad_norm=length(parameters), backward_calls=4)
        opt.step(); opt.zero_grad()

net, parameters, opt, x = start("Scaled")
scaler = torch.amp.GradScaler("cpu", init_scale=1024.0, growth_interval=2)
for step in range(6):
    losses = [value(net, x * (k + 1)) for k in range(2)]
    for loss in losses:
        scaler.scale(loss / 2).backward()
    scale = scaler.get_scale()
    scaler.unscale_(opt)
    norm = nn.utils.clip_grad_norm_(parameters, 0.1)
    tell("Scaled", loss=sum(losses) / 2, grad_norm=norm, clip_threshold=0.1, loss_scale=scale)
    scaler.step(opt); scaler.update(); opt.zero_grad()

net, parameters, opt, x = start("Fused", torch.optim.Adam, fused=True)  # it unscales by itself
for step in range(3):
    loss = value(net, x)
    scaler.scale(loss).backward()
    tell("Fused", loss=loss, grad_norm=length(parameters, scaler.get_scale()))
    scaler.step(opt); scaler.update(); opt.zero_grad()

net, parameters, opt, x = start("Unscaled")  # while a scaler is in use elsewhere
for step in range(3):
    loss = value(net, x) * 0.5
    loss.backward()
    tell("Unscaled", loss=loss, grad_norm=length(parameters))
    opt.step(); opt.zero_grad()

net, parameters, opt, x = start("Closure", torch.optim.Adam)
for step in range(3):
    def closure():
        opt.zero_grad()
        loss = value(net, x)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(parameters, 0.2)
        tell("Closure", loss=loss, grad_norm=norm, clip_threshold=0.2)
        return loss
    opt.step(closure)

net, parameters, opt, x = start("Searching", torch.optim.LBFGS)
for step in range(3):
    first = []
    def closure():
        opt.zero_grad()
        loss = value(net, x)
        loss.backward()
        first.append(loss.detach())
        return loss
    opt.step(closure)
    tell("Searching", loss=first[0])

net, parameters, opt, x = start("Parts")  # two clipping calls for two parts of a net
for step in range(3):
    loss = value(net, x)
    loss.backward()
    tell("Parts", grad_norm=length(parameters), clip_threshold=0.01, first=length(parameters[:2]))
    nn.utils.clip_grad_norm_(parameters[:2], 0.01); nn.utils.clip_grad_norm_(parameters[2:], 0.02)
    opt.step(); opt.zero_grad()

net, parameters, opt, x = start("Half")  # a norm above 65504 overflows in float16
net.to(torch.float16); x = x.half()
for step in range(2):
    for p in parameters: p.grad = torch.full_like(p, 60000.0)
    tell("Half", grad_norm=length(parameters))
    opt.param_groups[0]["lr"] = 0.0
    opt.step()

encoder, eparams, eopt, x = start("Encoder")  # one loss, two optimizers, each with its own clipping
decoder, dparams, dopt, _ = start("Decoder")
for step in range(3):
    eopt.zero_grad(); dopt.zero_grad()
    loss = value(decoder, encoder(x).expand(16, 4))
    loss.backward()
    e, d = nn.utils.clip_grad_norm_(eparams, 0.01), nn.utils.clip_grad_norm_(dparams, 0.02)
    tell("Encoder", loss=loss, grad_norm=e, clip_threshold=0.01)
    tell("Decoder", loss=loss, grad_norm=d, clip_threshold=0.02)
    eopt.step(); dopt.step()
print(json.dumps(told))
"""


@pytest.fixture(scope="module")
def loops(tmp_path_factory, zygote):
    from tests.adapters.observed import train_in

    run = train_in(tmp_path_factory.mktemp("losses"), zygote)(LOOPS)
    assert run.faults == []
    return run


@pytest.mark.parametrize(
    "name, what",
    {
        "Divided": "losses divided by the number of micro-batches",
        "Multiplied": "losses multiplied by one over the number of micro-batches",
        "Summed": "losses that are only summed up",
        "Scaled": "a gradient scaler, accumulation and clipping",
        "Fused": "a fused optimizer that unscales by itself",
        "Unscaled": "a factor that is not the scaler's",
        "Closure": "a closure",
        "Searching": "a closure that is called several times",
        "Parts": "clipping in parts",
        "Half": "gradients in float16",
        "Encoder": "two optimizers on one loss",
        "Decoder": "the second of two optimizers on one loss",
    }.items(),
)
def test_a_step_is_recorded_right_with(loops, name, what):
    owner = next(owner for owner in loops.owners if f"({name})" in owner)
    for metric, expected in loops.told[name].items():
        if metric != "first":
            measured = loops.values(metric, owner=owner)
            assert measured == pytest.approx(expected, rel=2e-3 if name == "Half" else 1e-5), metric


def test_the_norms_of_parameters_are_those_before_each_part_was_clipped(loops):
    weight, bias = (
        loops.values("param_grad_norm", f"0.{part}", owner="SGD(Parts)")
        for part in ("weight", "bias")
    )

    assert (weight**2 + bias**2) ** 0.5 == pytest.approx(loops.told["Parts"]["first"], rel=1e-4)


SPARSE_AND_TIED = """
import json
import torch, torch.nn as nn, torch.nn.functional as F
torch.manual_seed(0)
class Tied(nn.Module):
    def __init__(self, sparse):
        super().__init__()
        self.embed, self.head = nn.Embedding(10, 4, sparse=sparse), nn.Linear(4, 10)
        if not sparse:
            self.head.weight = self.embed.weight
    def forward(self, t):
        return self.head(self.embed(t))
told, t = {}, torch.tensor([1, 1, 2, 3])
for sparse in (True, False):
    net = Tied(sparse)
    opt = torch.optim.SGD(net.parameters(), lr=0.1)
    for step in range(3):
        opt.zero_grad(); F.cross_entropy(net(t), t).backward()
        told[str(sparse)] = [float(p.grad.to_dense().norm()) for p in net.parameters()]
        opt.step()
print(json.dumps(told))
"""


def test_sparse_gradients_and_tied_weights_have_their_norm_once(train: Train):
    run = train(SPARSE_AND_TIED)

    assert run.faults == []
    places = {"True": ["embed.weight", "head.weight", "head.bias"],
              "False": ["embed.weight", "head.bias"]}  # fmt: skip
    for (kind, names), owner in zip(places.items(), ["SGD(Tied)", "SGD(Tied-1)"], strict=True):
        measured = [run.series("param_grad_norm", name, owner)[2] for name in names]
        assert measured == pytest.approx(run.told[kind], rel=1e-5)
        assert run.series("grad_norm", owner=owner)[2] == pytest.approx(
            sum(n**2 for n in run.told[kind]) ** 0.5, rel=1e-5
        )
    assert run.series("param_grad_norm", "head.weight", "SGD(Tied-1)") == {}
