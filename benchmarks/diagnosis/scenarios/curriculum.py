"""Easy examples first, harder ones later; optionally a batch size that grows."""

import argparse

import torch
from torch import nn

from toydata import digits

parser = argparse.ArgumentParser()
parser.add_argument("--ramp-batch", action="store_true")
parser.add_argument("--steps", type=int, default=900)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
torch.manual_seed(args.seed)
torch.set_num_threads(1)

stages = [digits(3000, seed=s, noise=n) for s, n in ((1, 0.1), (2, 0.4), (3, 0.7))]
if args.ramp_batch:
    stages = [stages[1]] * 3
net = nn.Sequential(nn.Flatten(), nn.Linear(144, 64), nn.ReLU(), nn.Linear(64, 10))
optimizer = torch.optim.Adam(net.parameters(), lr=2e-3)
for step in range(args.steps):
    stage = 3 * step // args.steps
    x, y = stages[stage]
    rows = torch.randint(len(x), ((16, 64, 256)[stage] if args.ramp_batch else 64,))
    loss = nn.functional.cross_entropy(net(x[rows]), y[rows])
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    if step % 90 == 0:
        print(f"stage {stage} step {step} loss {loss.item():.4f}")
