"""A small classifier that should learn, and does not. What is wrong with it?

    python train.py            trains it
    nndiag watch train.py      says why it fails

Five noisy rings around the origin, to be told apart by a network of five layers.
"""

import argparse

import torch
from torch import nn
from torch.nn import functional as F


def rings(examples: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Points in the plane and the number of the ring each belongs to."""
    label = torch.randint(classes, (examples,))
    radius = 0.5 + 0.5 * label + 0.08 * torch.randn(examples)
    angle = 6.2832 * torch.rand(examples)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), label


class Classifier(nn.Module):
    def __init__(self, hidden: int, classes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Linear(2, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
        )
        self.head = nn.Linear(hidden, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.body(x))


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--lr", type=float, default=0.5)  # was fine without momentum
    options.add_argument("--epochs", type=int, default=20)
    options.add_argument("--batch", type=int, default=256)
    chosen = options.parse_args()

    torch.manual_seed(3)
    torch.set_num_threads(1)
    x, y = rings(10240, classes=5)
    x_val, y_val = rings(1000, classes=5)
    model = Classifier(hidden=64, classes=5)
    optimizer = torch.optim.SGD(model.parameters(), lr=chosen.lr, momentum=0.9)

    for epoch in range(chosen.epochs):
        model.train()
        for batch in torch.randperm(len(x)).split(chosen.batch):
            loss = F.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            guess = model(x_val)
            val_loss = F.cross_entropy(guess, y_val).item()
            accuracy = (guess.argmax(1) == y_val).float().mean().item()
        print(
            f"epoch {epoch + 1:2}  loss {loss.item():.3f}  "
            f"val_loss {val_loss:.3f}  val_accuracy {accuracy:.2f}",
            flush=True,
        )


if __name__ == "__main__":
    main()
