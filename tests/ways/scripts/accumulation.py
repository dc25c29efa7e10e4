"""Gradient accumulation: the loss divided by the micro-batches, a last group that is shorter."""

import json

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
x, y = torch.randn(72, 6), torch.randn(72, 1)
loader = DataLoader(TensorDataset(x, y), batch_size=8)
model = nn.Sequential(nn.Linear(6, 12), nn.GELU(), nn.Linear(12, 1))
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
accumulated = 4

history = {"loss": [], "grad_norm": [], "backward_calls": []}
losses = []
for epoch in range(2):
    for i, (inputs, targets) in enumerate(loader):
        loss = nn.functional.mse_loss(model(inputs), targets)
        (loss / accumulated).backward()
        losses.append(loss.item())
        if (i + 1) % accumulated == 0 or i + 1 == len(loader):
            norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            optimizer.zero_grad()
            history["grad_norm"].append(norm.item())
            history["loss"].append(sum(losses) / len(losses))
            history["backward_calls"].append(len(losses))
            losses = []

torch.save(model.state_dict(), "model.pt")
with open("history.json", "w") as file:
    json.dump(history, file)
