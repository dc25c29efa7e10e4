"""One sample in 76,800 comes from a stuck sensor, and its label is wrong: the loss leaps once."""

import torch
from torch import nn

torch.manual_seed(3)


def main() -> None:
    teacher = nn.Sequential(nn.Linear(12, 24), nn.Tanh(), nn.Linear(24, 3))
    model = nn.Sequential(
        nn.Linear(12, 48), nn.ReLU(), nn.Linear(48, 48), nn.ReLU(), nn.Linear(48, 3)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for step in range(600):
        x = torch.randn(128, 12)
        with torch.no_grad():
            y = teacher(3 * x).argmax(dim=1)
        if step == 320:
            x[41, 7] = 60.0  # the sensor of feature 7 is stuck
            with torch.no_grad():
                y[41] = (model(x[41]).argmax() + 1) % 3  # and whoever labelled it was misled
        loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if step % 50 == 0:
            print(f"step {step} loss {loss.item():.4f}")


if __name__ == "__main__":
    main()
