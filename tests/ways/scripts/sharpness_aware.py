"""SAM: an optimizer that wraps another one and goes forward and backward twice in each step."""

import json

import torch
from torch import nn


class SAM(torch.optim.Optimizer):
    def __init__(self, parameters, base, rho=0.05, **settings):
        super().__init__(parameters, {"rho": rho, **settings})
        self.base = base(self.param_groups, **settings)

    @torch.no_grad()
    def ascend(self):
        norm = torch.stack([p.grad.norm() for p in self.param_groups[0]["params"]]).norm()
        for p in self.param_groups[0]["params"]:
            self.state[p]["old"] = p.detach().clone()
            p.add_(p.grad * (self.param_groups[0]["rho"] / norm))
        self.zero_grad()

    @torch.no_grad()
    def descend(self):
        for p in self.param_groups[0]["params"]:
            p.copy_(self.state[p]["old"])
        self.base.step()
        self.zero_grad()


torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 4))
optimizer = SAM(model.parameters(), torch.optim.SGD, lr=0.1, momentum=0.9)
history = {"loss": []}

for _ in range(12):
    x = torch.randn(32, 8)
    y = x[:, :4].argmax(1)
    loss = nn.functional.cross_entropy(model(x), y)
    loss.backward()
    optimizer.ascend()
    nn.functional.cross_entropy(model(x), y).backward()
    optimizer.descend()
    history["loss"].append(loss.item())

torch.save(model.state_dict(), "model.pt")
with open("history.json", "w") as file:
    json.dump(history, file)
