"""Fine-tuning with low-rank adapters: everything else is frozen."""

import json

import torch
from torch import nn

torch.manual_seed(0)
x, y = torch.randn(32, 6), torch.randint(0, 3, (32,))


class Lora(nn.Module):
    def __init__(self, base, rank=2):
        super().__init__()
        self.base = base
        self.down = nn.Linear(base.in_features, rank, bias=False)
        self.up = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.up.weight)

    def forward(self, x):
        return self.base(x) + self.up(self.down(x))


class Classifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Linear(6, 12), nn.Linear(12, 12)
        self.head = nn.Linear(12, 3)

    def forward(self, x):
        return self.head(torch.relu(self.second(torch.relu(self.first(x)))))


model = Classifier().requires_grad_(False)
model.first, model.second = Lora(model.first), Lora(model.second)
model.head.requires_grad_(True)
optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-2)

history = {"loss": [], "grad_norm": []}
for step in range(8):
    optimizer.zero_grad()
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    history["loss"].append(loss.item())
    history["grad_norm"].append(
        nn.utils.get_total_norm([p.grad for p in model.parameters() if p.grad is not None]).item()
    )
    optimizer.step()

torch.save(model.state_dict(), "model.pt")
with open("history.json", "w") as file:
    json.dump(history, file)
