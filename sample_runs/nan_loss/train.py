"""Entropy written as p * log(p): once a probability underflows to 0, the loss is NaN."""

import torch
from torch import nn

torch.manual_seed(0)


def main() -> None:
    centres = 4 * torch.randn(4, 8)
    model = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for step in range(600):
        y = torch.randint(0, 4, (64,))
        x = centres[y] + torch.randn(64, 8)
        p = model(x).softmax(dim=1)
        entropy = -(p * p.log()).sum(dim=1).mean()
        nll = -p[torch.arange(64), y].clamp_min(1e-9).log().mean()
        loss = nll + 0.1 * entropy
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step} loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
