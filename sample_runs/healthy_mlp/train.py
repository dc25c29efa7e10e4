"""Classify points on three noisy spirals with a small ReLU net; nothing is wrong with it."""

import math

import torch
from torch import nn

torch.manual_seed(0)


def spirals(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    arm = torch.randint(0, 3, (count,))
    radius = torch.rand(count).sqrt()
    angle = 4 * radius + arm * 2 * math.pi / 3 + 0.2 * torch.randn(count)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], dim=1), arm


def main() -> None:
    model = nn.Sequential(
        nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 3)
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    points, arms = spirals(4096)
    held_out, held_out_arms = spirals(1024)
    for epoch in range(12):
        for batch in torch.randperm(len(points)).split(64):
            loss = nn.functional.cross_entropy(model(points[batch]), arms[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            val_loss = nn.functional.cross_entropy(model(held_out), held_out_arms)
        print(f"epoch {epoch + 1}  train_loss={loss.item():.4f}  val_loss={val_loss.item():.4f}")


if __name__ == "__main__":
    main()
