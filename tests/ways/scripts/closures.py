"""Optimizers that are given a closure: LBFGS with a line search, Adam, SAM-like double steps."""

import json
import sys

import torch
from torch import nn

way = sys.argv[1]
torch.manual_seed(0)
x, y = torch.randn(32, 6), torch.randn(32, 1)
model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 1))
if way == "lbfgs":
    optimizer = torch.optim.LBFGS(
        model.parameters(), lr=0.5, max_iter=5, line_search_fn="strong_wolfe"
    )
else:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)

history = {"loss": [], "evaluations": []}
evaluated = []


def closure():
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(x), y)
    loss.backward()
    evaluated.append(loss.item())
    return loss


for step in range(8):
    loss = optimizer.step(closure)
    history["loss"].append(loss.item())
    history["evaluations"].append(len(evaluated))
    evaluated.clear()

torch.save(model.state_dict(), "model.pt")
with open("history.json", "w") as file:
    json.dump(history, file)
