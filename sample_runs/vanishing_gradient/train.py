"""Ten sigmoid layers: each cuts the gradient to a quarter or less; the first ones never learn."""

import torch
from torch import nn

torch.manual_seed(0)


def main() -> None:
    teacher = torch.randn(24, 8)
    layers: list[nn.Module] = [nn.Linear(24, 48), nn.Sigmoid()]
    for _ in range(9):
        layers += [nn.Linear(48, 48), nn.Sigmoid()]
    model = nn.Sequential(*layers, nn.Linear(48, 8))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for step in range(600):
        x = torch.randn(64, 24)
        y = (x @ teacher).argmax(dim=1)
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step} loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
