"""Sparse parity: nothing happens for a long time, then everything."""

import argparse

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--bits", type=int, default=16)
parser.add_argument("--relevant", type=int, default=3)
parser.add_argument("--steps", type=int, default=1500)
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
torch.manual_seed(args.seed)
torch.set_num_threads(1)

model = nn.Sequential(nn.Linear(args.bits, 128), nn.ReLU(), nn.Linear(128, 1))
opt = torch.optim.SGD(model.parameters(), lr=args.lr)
for step in range(args.steps):
    x = torch.randint(2, (128, args.bits)).float() * 2 - 1
    y = x[:, : args.relevant].prod(1, keepdim=True)
    loss = torch.nn.functional.softplus(-y * model(x)).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 100 == 0:
        print(step, f"{loss.item():.4f}")
