"""One model under several learning-rate schedules; prints one line an epoch, rewritten in place."""

import argparse
import sys

import torch
from torch import nn
from torch.optim import lr_scheduler
from torch.utils.data import DataLoader, TensorDataset

from toydata import digits


def get_scheduler(name, optimizer, epochs, per_epoch, lr):
    if name == "multistep":
        return lr_scheduler.MultiStepLR(optimizer, [epochs // 2, 3 * epochs // 4], gamma=0.1)
    if name == "early":  # milestones copied from a run that was much shorter
        return lr_scheduler.MultiStepLR(optimizer, [1], gamma=1e-3)
    if name == "restarts":
        return lr_scheduler.CosineAnnealingWarmRestarts(optimizer, T_0=max(1, epochs // 3))
    if name == "onecycle":
        return lr_scheduler.OneCycleLR(optimizer, max_lr=lr, total_steps=epochs)
    if name == "exponential":
        return lr_scheduler.ExponentialLR(optimizer, 0.9)
    if name == "too-fast":
        return lr_scheduler.ExponentialLR(optimizer, 0.2)
    if name == "plateau":
        return lr_scheduler.ReduceLROnPlateau(optimizer, patience=2)
    return lr_scheduler.ConstantLR(optimizer, factor=1.0)


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--schedule", default="constant")
    p.add_argument("--lr", type=float, default=0.05)
    p.add_argument("--epochs", type=int, default=15)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--noise", type=float, default=0.5)
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    x, y = digits(3000, seed=1, noise=args.noise)
    loader = DataLoader(TensorDataset(x.flatten(1), y), batch_size=args.batch, shuffle=True)
    net = nn.Sequential(
        nn.Linear(144, 80), nn.LayerNorm(80), nn.SiLU(), nn.Linear(80, 40), nn.SiLU(),
        nn.Linear(40, 10),
    )  # fmt: skip
    optimizer = torch.optim.SGD(net.parameters(), lr=args.lr, momentum=0.9, nesterov=True)
    scheduler = get_scheduler(args.schedule, optimizer, args.epochs, len(loader), args.lr)
    criterion = nn.CrossEntropyLoss()
    for epoch in range(args.epochs):
        running = 0.0
        for inputs, labels in loader:
            optimizer.zero_grad()
            loss = criterion(net(inputs), labels)
            loss.backward()
            optimizer.step()
            running += loss.item()
        mean = running / len(loader)
        if args.schedule == "plateau":
            scheduler.step(mean)
        else:
            scheduler.step()
        sys.stdout.write(f"\repoch {epoch + 1}/{args.epochs} loss {mean:.4f}")
    sys.stdout.write("\n")


if __name__ == "__main__":
    main()
