"""Weights drawn from N(0, 1) instead of N(0, 2/n): each of eight layers multiplies the signal."""

import torch
from torch import nn

torch.manual_seed(0)


def main() -> None:
    teacher = torch.randn(24, 8)
    layers: list[nn.Module] = [nn.Linear(24, 64), nn.ReLU()]
    for _ in range(7):
        layers += [nn.Linear(64, 64), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Linear(64, 8))
    for layer in model:
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=1.0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    for step in range(500):
        x = torch.randn(64, 24)
        y = (x @ teacher).argmax(dim=1)
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step} loss {loss.item():.4g}")


if __name__ == "__main__":
    main()
