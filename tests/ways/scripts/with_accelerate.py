"""Accelerate: prepare, accumulate, clip_grad_norm_."""

import json
import sys

import torch
from accelerate import Accelerator
from accelerate.utils import set_seed
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

micro_batches = int(sys.argv[1])
precision = sys.argv[2]
set_seed(0)
accelerator = Accelerator(
    cpu=True, gradient_accumulation_steps=micro_batches, mixed_precision=precision
)
x = torch.randn(64, 8)
y = (x.sum(1) > 0).long()
loader = DataLoader(TensorDataset(x, y), batch_size=8, shuffle=True)
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
scheduler = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.1, total_iters=16)
model, optimizer, loader, scheduler = accelerator.prepare(model, optimizer, loader, scheduler)

history = {"loss": [], "lr": [], "grad_norm": []}
losses = []
for epoch in range(2):
    for inputs, targets in loader:
        with accelerator.accumulate(model):
            loss = nn.functional.cross_entropy(model(inputs), targets)
            accelerator.backward(loss)
            losses.append(loss.item())
            if accelerator.sync_gradients:
                norm = accelerator.clip_grad_norm_(model.parameters(), 0.2)
                history["grad_norm"].append(float(norm))
                history["lr"].append(optimizer.param_groups[0]["lr"])
                history["loss"].append(sum(losses) / len(losses))
                losses = []
            optimizer.step()
            scheduler.step()
            optimizer.zero_grad()

torch.save(accelerator.unwrap_model(model).state_dict(), "model.pt")
with open("history.json", "w") as file:
    json.dump(history, file)
