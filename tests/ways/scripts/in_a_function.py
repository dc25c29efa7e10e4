"""Steps by hand inside of a function: when the script ends, nothing of them is alive."""

import json

import torch
from torch import nn


def main():
    torch.manual_seed(0)
    x, y = torch.randn(32, 4), torch.randn(32, 1)
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    losses = []
    for _ in range(6):
        loss = nn.functional.mse_loss(model(x), y)
        model.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter -= 0.05 * parameter.grad
        losses.append(loss.item())
    torch.save(model.state_dict(), "model.pt")
    return losses


with open("history.json", "w") as file:
    json.dump({"loss": main()}, file)
