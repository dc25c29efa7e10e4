"""Forty noisy examples and a wide net: it learns them by heart, and the held-out loss turns up."""

import torch
from torch import nn

torch.manual_seed(0)


def noisy(count: int, teacher: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.randn(count, 16)
    return x, (x @ teacher + 1.5 * torch.randn(count, 4)).argmax(dim=1)


def main() -> None:
    teacher = torch.randn(16, 4)
    x, y = noisy(40, teacher)
    held_out, held_out_y = noisy(1000, teacher)
    model = nn.Sequential(nn.Linear(16, 256), nn.ReLU(), nn.Linear(256, 4))
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for epoch in range(60):
        model.train()
        for batch in torch.randperm(len(x)).split(8):
            loss = nn.functional.cross_entropy(model(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            train_loss = nn.functional.cross_entropy(model(x), y).item()
            val_loss = nn.functional.cross_entropy(model(held_out), held_out_y).item()
        print(f"epoch {epoch + 1:3d}  train_loss={train_loss:.4f}  val_loss={val_loss:.4f}")


if __name__ == "__main__":
    main()
