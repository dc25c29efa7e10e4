"""One batch in 700 was not normalised: the loss jumps, and the net finds its way back."""

import torch
from torch import nn

torch.manual_seed(1)


def main() -> None:
    teacher = nn.Sequential(nn.Linear(20, 32), nn.Tanh(), nn.Linear(32, 5))
    model = nn.Sequential(
        nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 5)
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    for step in range(700):
        x = torch.randn(64, 20)
        with torch.no_grad():
            y = teacher(3 * x).argmax(dim=1)
        if step == 420:
            x = 40 * x  # raw sensor values: somebody forgot to scale this shard
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step} loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
