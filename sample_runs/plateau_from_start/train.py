"""The labels were shuffled apart from their inputs: the loss stays at ln 10, whatever the rate."""

import torch
from torch import nn

torch.manual_seed(0)


def main() -> None:
    teacher = torch.randn(24, 10)
    x = torch.randn(20_000, 24)
    y = (x @ teacher).argmax(dim=1)[torch.randperm(len(x))]  # the mistake: y no longer fits x
    model = nn.Sequential(
        nn.Linear(24, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    for step in range(600):
        batch = torch.randint(0, len(x), (128,))
        loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step} loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
