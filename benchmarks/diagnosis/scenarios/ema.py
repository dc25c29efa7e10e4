"""Training with an exponential moving average of the weights, judged on held-out data."""

import argparse
import copy

import torch
from torch import nn

from toydata import digits

p = argparse.ArgumentParser()
p.add_argument("--train-size", type=int, default=3000)
p.add_argument("--epochs", type=int, default=12)
p.add_argument("--early-stopping", action="store_true")
p.add_argument("--weight-decay", type=float, default=1e-2)
p.add_argument("--decay", type=float, default=0.98)
p.add_argument("--hidden", type=int, default=128)
p.add_argument("--noise", type=float, default=0.4)
p.add_argument("--seed", type=int, default=0)
args = p.parse_args()
torch.manual_seed(args.seed)
torch.set_num_threads(1)

x, y = digits(args.train_size, seed=1, noise=args.noise)
xv, yv = digits(1000, seed=2, noise=args.noise)
model = nn.Sequential(
    nn.Flatten(), nn.Linear(144, args.hidden), nn.ReLU(), nn.Linear(args.hidden, 10)
)
ema = copy.deepcopy(model)
for q in ema.parameters():
    q.requires_grad_(False)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=args.weight_decay)
criterion = nn.CrossEntropyLoss()

best, since = float("inf"), 0
for epoch in range(args.epochs):
    model.train()
    train_loss = 0.0
    for rows in torch.randperm(len(x)).split(32):
        loss = criterion(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        train_loss += loss.item() * len(rows) / len(x)
        with torch.no_grad():
            for slow, fast in zip(ema.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 1 - args.decay)
    model.eval()
    with torch.no_grad():
        val_loss = criterion(model(xv), yv).item()
        ema_loss = criterion(ema(xv), yv).item()
    print({"epoch": epoch, "train_loss": round(train_loss, 4), "val_loss": round(val_loss, 4),
           "ema_val_loss": round(ema_loss, 4)})  # fmt: skip
    since = 0 if val_loss < best - 1e-3 else since + 1
    best = min(best, val_loss)
    if args.early_stopping and since >= 2:
        print("stopped early, best", round(best, 4))
        break
