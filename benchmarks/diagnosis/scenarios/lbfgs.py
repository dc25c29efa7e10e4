"""Curve fitting with LBFGS and a closure, full batch."""

import argparse

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=150)
parser.add_argument("--lr", type=float, default=0.5)
parser.add_argument("--line-search", action="store_true")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
torch.manual_seed(args.seed)
torch.set_num_threads(1)

x = torch.linspace(-3, 3, 256).unsqueeze(1)
y = torch.sin(2 * x) * torch.exp(-x.abs() / 2) + 0.05 * torch.randn_like(x)
net = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh(), nn.Linear(32, 1))
opt = torch.optim.LBFGS(
    net.parameters(),
    lr=args.lr,
    max_iter=5,
    line_search_fn="strong_wolfe" if args.line_search else None,
)


def closure():
    opt.zero_grad()
    loss = ((net(x) - y) ** 2).mean()
    loss.backward()
    return loss


for step in range(args.steps):
    loss = opt.step(closure)
    if step % 10 == 0:
        print(f"{step}: {float(loss):.6f}")
