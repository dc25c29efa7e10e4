"""A small classifier: one loop over epochs, a cosine schedule, clipping, validation."""

import json

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
x = torch.randn(96, 8)
y = (x.sum(1) > 0).long()
train = DataLoader(TensorDataset(x[:64], y[:64]), batch_size=16, shuffle=True)
valid = DataLoader(TensorDataset(x[64:], y[64:]), batch_size=16)

model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2))
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, weight_decay=0.01)
scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=12)
criterion = nn.CrossEntropyLoss()

history = {"loss": [], "lr": [], "grad_norm": [], "val_loss": []}
for epoch in range(3):
    model.train()
    for inputs, targets in train:
        optimizer.zero_grad()
        loss = criterion(model(inputs), targets)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), max_norm=0.5)
        history["loss"].append(loss.item())
        history["lr"].append(optimizer.param_groups[0]["lr"])
        history["grad_norm"].append(norm.item())
        optimizer.step()
        scheduler.step()

    model.eval()
    with torch.no_grad():
        val_loss = sum(criterion(model(inputs), targets).item() for inputs, targets in valid) / 2
    history["val_loss"].append(val_loss)
    print(f"epoch {epoch}: loss {loss.item():.4f} val_loss {val_loss:.6f}")

torch.save(model.state_dict(), "model.pt")
with open("history.json", "w") as file:
    json.dump(history, file)
