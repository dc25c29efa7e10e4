"""A learning rate far too high for Adam knocks out the hidden units, and they stay dead."""

import torch
from torch import nn

torch.manual_seed(0)


def main() -> None:
    teacher = torch.randn(20, 6)
    model = nn.Sequential(
        nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 6)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=0.3)
    for step in range(800):
        x = torch.randn(64, 20)
        y = (x @ teacher).argmax(dim=1)
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 100 == 0:
            print(f"step {step} loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
