"""Layer-wise learning rates, no decay for biases, warm-up, and a group that thaws later."""

import json

import torch
from torch import nn

torch.manual_seed(0)
x, y = torch.randn(32, 6), torch.randn(32, 1)
model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 1))
groups = [
    {"params": [model[0].weight, model[2].weight], "lr": 1e-3, "weight_decay": 0.1},
    {"params": [model[0].bias, model[2].bias], "lr": 1e-3, "weight_decay": 0.0},
    {"params": model[4].parameters(), "lr": 1e-2},
]
optimizer = torch.optim.AdamW(groups)
warmup = torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, total_iters=5)
model[0].requires_grad_(False)

history = {"loss": [], "lr": []}
for step in range(10):
    if step == 6:
        model[0].requires_grad_(True)
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(x), y)
    loss.backward()
    history["loss"].append(loss.item())
    history["lr"].append([group["lr"] for group in optimizer.param_groups])
    optimizer.step()
    warmup.step()

torch.save(model.state_dict(), "model.pt")
with open("history.json", "w") as file:
    json.dump(history, file)
