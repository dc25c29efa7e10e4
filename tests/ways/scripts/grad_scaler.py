"""Mixed precision with a gradient scaler: plain, unscaled and clipped, fused, with overflows."""

import json
import sys

import torch
from torch import nn

way = sys.argv[1]
torch.manual_seed(0)
x, y = torch.randn(32, 6), torch.randn(32, 1)
model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-2, fused=way == "fused")
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10, growth_interval=4)

history = {"loss": [], "scale": [], "grad_norm": [], "skipped": []}
for step in range(12):
    optimizer.zero_grad()
    with torch.autocast("cpu", dtype=torch.float16):
        loss = nn.functional.mse_loss(model(x), y)
    scaler.scale(loss).backward()
    scale = scaler.get_scale()
    if way == "overflowing" and step in (0, 5):
        model[0].weight.grad[0, 0] = float("inf")
    if way == "clipped":
        scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.05)
    else:
        norm = nn.utils.get_total_norm([p.grad / scale for p in model.parameters()])
    scaler.step(optimizer)
    scaler.update()
    skipped = scaler.get_scale() < scale
    history["skipped"].append(skipped)
    if not skipped or way == "fused":
        history["loss"].append(loss.item())
        history["scale"].append(scale)
        history["grad_norm"].append(norm.item())

torch.save(model.state_dict(), "model.pt")
with open("history.json", "w") as file:
    json.dump(history, file)
