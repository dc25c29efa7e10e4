"""No optimizer: parameters are changed by hand, as in the first lesson of many courses."""

import json
import sys

import torch
from torch import nn

torch.manual_seed(0)
x, y = torch.randn(32, 4), torch.randn(32, 1)
history = {"loss": []}
way = sys.argv[1]

if way == "tensors":
    w1, b1 = torch.randn(4, 8, requires_grad=True), torch.zeros(8, requires_grad=True)
    w2, b2 = torch.randn(8, 1, requires_grad=True), torch.zeros(1, requires_grad=True)
    parameters = [w1, b1, w2, b2]

    def model(x):
        return torch.relu(x @ w1 + b1) @ w2 + b2
else:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    parameters = list(model.parameters())

for step in range(8):
    loss = nn.functional.mse_loss(model(x), y)
    loss.backward()
    history["loss"].append(loss.item())
    if way == "data":
        for parameter in parameters:
            parameter.data -= 0.05 * parameter.grad.data
            parameter.grad = None
    elif way != "nothing":
        with torch.no_grad():
            for parameter in parameters:
                parameter -= 0.05 * parameter.grad
                parameter.grad.zero_()

torch.save([p.detach() for p in parameters], "model.pt")
with open("history.json", "w") as file:
    json.dump(history, file)
