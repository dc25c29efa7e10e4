"""What a script sees of its own mistakes around backward, and of torch.compile around autograd."""

import json
import traceback

import torch
import torch._dynamo
from torch import nn
from torch._dynamo.utils import counters

torch.manual_seed(0)
model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
x = torch.randn(16, 4)
losses = []


def not_a_scalar():
    model(x).backward()


def twice():
    loss = model(x).mean()
    loss.backward()
    loss.backward()


def wrong_shape():
    torch.autograd.backward([model(x)], [torch.ones(3)])


def unused():
    torch.autograd.grad(model(x).mean(), [torch.ones(1, requires_grad=True)])


def no_graph():
    torch.autograd.backward(torch.ones(()))


def bad_hook():
    output = model(x)
    output.register_hook(lambda gradient: 1 / 0)
    output.mean().backward()


for mistake in (not_a_scalar, twice, wrong_shape, unused, no_graph, bad_hook):
    try:
        mistake()
    except Exception:
        print(traceback.format_exc())
    optimizer.zero_grad()


@torch.compile(backend="aot_eager")
def slope(inputs):
    inputs = inputs.detach().requires_grad_()
    (gradient,) = torch.autograd.grad(model(inputs).square().sum(), inputs)
    return gradient.square().mean()


@torch.compile(backend="aot_eager")
def fresh():
    weight = torch.ones(3, requires_grad=True)
    other = torch.optim.SGD([weight], lr=0.1)
    weight.square().sum().backward()
    other.step()
    return weight.detach().clone()


print(slope(x), fresh(), slope(x))
print(dict(counters["stats"]), sum(counters["graph_break"].values()))
for _ in range(3):
    optimizer.zero_grad()
    loss = model(x).square().mean() + 0.1 * slope(x)
    loss.backward()
    optimizer.step()
    losses.append(loss.item())

torch.save(model.state_dict(), "model.pt")
with open("history.json", "w") as file:
    json.dump({"loss": losses}, file)
