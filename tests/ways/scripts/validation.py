"""Validation after each epoch, as careful or careless as scripts are about it."""

import contextlib
import json
import sys

import torch
from torch import nn

way = sys.argv[1]
torch.manual_seed(0)
x, y = torch.randn(48, 6), torch.randn(48, 1)
far_x, far_y = 1000 * torch.randn(96, 6), torch.randn(96, 1)  # told apart by its size
model = nn.Sequential(nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 1))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)

history = {"loss": [], "val_loss": [], "abs_max": []}
for epoch in range(4):
    model.train()
    for start in range(0, 48, 16):
        optimizer.zero_grad()
        hidden = model[0](x[start : start + 16]) if way == "in pieces" else None
        output = model[2](model[1](hidden)) if way == "in pieces" else model(x[start : start + 16])
        loss = nn.functional.mse_loss(output, y[start : start + 16])
        loss.backward()
        history["loss"].append(loss.item())
        with torch.no_grad():
            history["abs_max"].append(model[0](x[start : start + 16]).abs().max().item())
        optimizer.step()

    if way != "in train mode":
        model.eval()
    context = {"under no_grad": torch.no_grad, "in inference_mode": torch.inference_mode}.get(
        way, contextlib.nullcontext
    )
    total = 0.0
    with context():
        for start in range(0, 96, 8):
            output = model(far_x[start : start + 8])
            total += nn.functional.mse_loss(output, far_y[start : start + 8]).item()
    history["val_loss"].append(total / 12)
    print(f"epoch {epoch} val_loss {total / 12:.6f}")

torch.save(model.state_dict(), "model.pt")
with open("history.json", "w") as file:
    json.dump(history, file)
