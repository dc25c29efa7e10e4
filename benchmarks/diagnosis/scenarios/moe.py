"""A tiny mixture of experts, routed to the best expert of four."""

import argparse

import torch
import torch.nn.functional as F
from torch import nn

from toydata import digits


class MoE(nn.Module):
    def __init__(self, dim, experts, use_gate):
        super().__init__()
        self.router = nn.Linear(dim, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(dim, 2 * dim), nn.ReLU(), nn.Linear(2 * dim, dim))
            for _ in range(experts)
        )
        self.use_gate = use_gate
        self.balance = torch.tensor(0.0)

    def forward(self, x):
        gate = self.router(x).softmax(-1)
        best, index = gate.max(-1)
        out = torch.zeros_like(x)
        for i, expert in enumerate(self.experts):
            rows = (index == i).nonzero().squeeze(1)
            if len(rows):
                y = expert(x[rows])
                out[rows] = y * best[rows].unsqueeze(1) if self.use_gate else y
        share = F.one_hot(index, len(self.experts)).float().mean(0)
        self.balance = len(self.experts) * (share * gate.mean(0)).sum()
        return x + out


class Net(nn.Module):
    def __init__(self, use_gate):
        super().__init__()
        self.embed = nn.Linear(144, 48)
        self.norm = nn.LayerNorm(48)
        self.moe = MoE(48, 4, use_gate)
        self.head = nn.Linear(48, 10)

    def forward(self, x):
        return self.head(self.moe(self.norm(self.embed(x))))


parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=500)
parser.add_argument("--lr", type=float, default=2e-3)
parser.add_argument("--hard-routing", action="store_true", help="argmax, gate not multiplied in")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
torch.manual_seed(args.seed)
torch.set_num_threads(1)
x, y = digits(4000, seed=1)
x = x.flatten(1)
net = Net(not args.hard_routing)
opt = torch.optim.AdamW(net.parameters(), lr=args.lr)
for step in range(args.steps):
    i = torch.randint(len(x), (64,))
    loss = F.cross_entropy(net(x[i]), y[i])
    if not args.hard_routing:
        loss = loss + 0.01 * net.moe.balance
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 100 == 99:
        print(f"{step + 1}\t{loss.item():.4f}")
