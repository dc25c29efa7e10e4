"""torch.compile of the model, of the optimizer's step, of the whole step, and of all at once."""

import json
import sys

import torch
import torch._dynamo
from torch import nn
from torch._dynamo.utils import counters

BACKEND = "aot_eager"
x, y = None, None


def new(name):
    global x, y
    torch._dynamo.reset()
    counters.clear()
    torch.manual_seed(0)
    x, y = torch.randn(32, 6), torch.randn(32, 1)
    kind = type(name, (nn.Sequential,), {})
    model = kind(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 1))
    return model, torch.optim.Adam(model.parameters(), lr=0.01)


def plain(model, optimizer):
    return model, optimizer.step


def compiled_model(model, optimizer):
    return torch.compile(model, backend=BACKEND, fullgraph=True), optimizer.step


def compiled_step(model, optimizer):
    @torch.compile(fullgraph=False, backend=BACKEND)
    def step():
        optimizer.step()

    return model, step


def compiled_both(model, optimizer):
    return torch.compile(model, backend=BACKEND), torch.compile(optimizer.step, backend=BACKEND)


history, weights = {}, {}
for way in (plain, compiled_model, compiled_step, compiled_both):
    if way.__name__ not in sys.argv[1:]:
        continue
    model, optimizer = new(way.__name__)
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 5, 0.5)
    forward, step = way(model, optimizer)
    told = history[way.__name__] = {"loss": [], "grad_norm": [], "lr": []}
    for _ in range(9):
        loss = nn.functional.mse_loss(forward(x), y)
        loss.backward()
        norm = nn.utils.get_total_norm([p.grad for p in model.parameters()])
        told["lr"].append(optimizer.param_groups[0]["lr"])
        step()
        schedule.step()
        optimizer.zero_grad()
        told["loss"].append(loss.item())
        told["grad_norm"].append(norm.item())
    told["graphs"] = dict(counters["stats"])
    told["graph_breaks"] = sum(counters["graph_break"].values())
    told["recompilations"] = len(counters["recompiles"])
    weights[way.__name__] = model.state_dict()

torch.save(weights, "model.pt")
with open("history.json", "w") as file:
    json.dump(history, file)
