"""An optimizer for each parameter, which steps as soon as its gradient has been accumulated."""

import json
import math

import torch
from torch import nn

torch.manual_seed(0)
x, y = torch.randn(32, 6), torch.randn(32, 1)
layers = [layer for _ in range(10) for layer in (nn.Linear(6, 6), nn.ReLU())]
model = nn.Sequential(*layers, nn.Linear(6, 1))

squares = []
optimizers = {p: torch.optim.AdamW([p], lr=1e-3) for p in model.parameters()}


def step_now(parameter):
    squares.append(parameter.grad.double().square().sum().item())
    optimizers[parameter].step()
    optimizers[parameter].zero_grad()


for parameter in model.parameters():
    parameter.register_post_accumulate_grad_hook(step_now)

history = {"loss": [], "grad_norm": []}
for step in range(6):
    loss = nn.functional.mse_loss(model(x), y)
    loss.backward()
    history["loss"].append(loss.item())
    history["grad_norm"].append(math.sqrt(sum(squares)))
    squares.clear()

torch.save(model.state_dict(), "model.pt")
with open("history.json", "w") as file:
    json.dump(history, file)
