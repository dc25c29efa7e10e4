"""torch's own way to step inside of backward: `_apply_optimizer_in_backward`."""

import json

import torch
from torch import nn
from torch.distributed.optim import _apply_optimizer_in_backward

torch.manual_seed(0)
x, y = torch.randn(32, 6), torch.randn(32, 1)
model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 1))
head = list(model[2].parameters())
body = list(model[0].parameters())
_apply_optimizer_in_backward(torch.optim.SGD, body, {"lr": 0.05})
_apply_optimizer_in_backward(torch.optim.SGD, head, {"lr": 0.01})

history = {"loss": []}
for step in range(5):
    loss = nn.functional.mse_loss(model(x), y)
    loss.backward()
    history["loss"].append(loss.item())

torch.save(model.state_dict(), "model.pt")
with open("history.json", "w") as file:
    json.dump(history, file)
