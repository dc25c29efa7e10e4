"""Activation checkpointing over blocks of a deep residual MLP."""

import argparse

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, checkpoint_sequential

from toydata import digits


class Residual(nn.Module):
    def __init__(self, dim):
        super().__init__()
        self.body = nn.Sequential(
            nn.LayerNorm(dim), nn.Linear(dim, dim), nn.ReLU(), nn.Linear(dim, dim)
        )

    def forward(self, x):
        return x + self.body(x)


parser = argparse.ArgumentParser()
parser.add_argument("--style", default="plain", choices=["plain", "reentrant", "sequential"])
parser.add_argument("--checkpoint-stem", action="store_true", help="the first layer as well")
parser.add_argument("--blocks", type=int, default=6)
parser.add_argument("--steps", type=int, default=400)
parser.add_argument("--lr", type=float, default=1e-3)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
torch.manual_seed(args.seed)
torch.set_num_threads(1)

x, y = digits(4000, seed=1)
x = x.flatten(1)
stem = nn.Linear(144, 64)
blocks = nn.Sequential(*(Residual(64) for _ in range(args.blocks)))
head = nn.Sequential(nn.LayerNorm(64), nn.Linear(64, 10))
model = nn.ModuleDict({"stem": stem, "blocks": blocks, "head": head})
optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)

for step in range(args.steps):
    rows = torch.randint(len(x), (64,))
    reentrant = args.style == "reentrant"
    if args.checkpoint_stem:
        h = checkpoint(stem, x[rows], use_reentrant=reentrant)
    else:
        h = stem(x[rows])
    if args.style == "sequential":
        h = checkpoint_sequential(blocks, 3, h, use_reentrant=False)
    else:
        for block in blocks:
            h = checkpoint(block, h, use_reentrant=reentrant)
    loss = nn.functional.cross_entropy(head(h), y[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 50 == 0:
        print("step", step, "loss", loss.item())
