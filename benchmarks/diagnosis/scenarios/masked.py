"""Attention over sets of different sizes; padding is masked out."""

import argparse

import torch
from torch import nn

parser = argparse.ArgumentParser()
parser.add_argument("--empty-sets", action="store_true", help="some sets have no element at all")
parser.add_argument("--pool", default="attention", choices=["attention", "mean"])
parser.add_argument("--skip-nonfinite", action="store_true")
parser.add_argument("--steps", type=int, default=400)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
torch.manual_seed(args.seed)
torch.set_num_threads(1)


class SetModel(nn.Module):
    def __init__(self, dim=32):
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(4, dim), nn.GELU(), nn.Linear(dim, dim))
        if args.pool == "attention":
            self.score = nn.Linear(dim, 1)
        self.out = nn.Linear(dim, 1)

    def forward(self, x, mask):
        h = self.embed(x)
        if args.pool == "mean":
            n = mask.sum(1, keepdim=True)
            total = (h * mask.unsqueeze(-1)).sum(1)
            return self.out(torch.where(n > 0, total / n, torch.zeros_like(total))).squeeze(-1)
        score = self.score(h).squeeze(-1).masked_fill(~mask, float("-inf"))
        weight = score.softmax(-1)
        return self.out((weight.unsqueeze(-1) * h).sum(1)).squeeze(-1)


model = SetModel()
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
skipped = 0
for step in range(args.steps):
    x = torch.randn(32, 10, 4)
    smallest = 0 if args.empty_sets and step > 100 and step % 3 == 0 else 1
    size = torch.randint(smallest, 11, (32,))
    mask = torch.arange(10) < size.unsqueeze(1)
    target = (x[..., 0] * mask).sum(1) / size.clamp(min=1)
    loss = ((model(x, mask) - target) ** 2).mean()
    optimizer.zero_grad()
    loss.backward()
    norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    if args.skip_nonfinite and not torch.isfinite(norm):
        skipped += 1
        continue
    optimizer.step()
    if step % 40 == 0:
        print(f"step {step:3d} loss {loss.item():.4f}")
print("steps skipped:", skipped)
