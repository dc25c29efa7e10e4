"""Gradients clipped at 0.01 for plain SGD: every step is cut to almost nothing."""

import torch
from torch import nn

torch.manual_seed(0)


def main() -> None:
    teacher = torch.randn(24, 10)
    model = nn.Sequential(nn.Linear(24, 128), nn.ReLU(), nn.Linear(128, 10))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2)
    for step in range(800):
        x = torch.randn(128, 24)
        y = (x @ teacher).argmax(dim=1)
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.01)
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step} loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
