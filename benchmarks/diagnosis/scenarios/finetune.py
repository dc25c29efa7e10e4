"""A new head (odd or even digit?) on a ready-made backbone, frozen or fine-tuned."""

import argparse

import torch
from torch import nn

from toydata import digits

p = argparse.ArgumentParser()
p.add_argument("--mode", default="frozen", choices=["frozen", "full", "no-grad"])
p.add_argument("--lr", type=float, default=2e-3)
p.add_argument("--steps", type=int, default=400)
p.add_argument("--seed", type=int, default=0)
args = p.parse_args()
torch.manual_seed(args.seed)
torch.set_num_threads(1)

x, y = digits(3000, seed=1)
x = x.flatten(1)

# The backbone's filters are images of the training set, as a nearest-neighbour model has them.
backbone = nn.Sequential(nn.Linear(144, 300), nn.ReLU())
with torch.no_grad():
    backbone[0].weight.copy_(x[:300] / 100)
    backbone[0].bias.fill_(-0.3)
head = nn.Linear(300, 2)
label = y % 2

if args.mode == "frozen":
    for q in backbone.parameters():
        q.requires_grad = False
if args.mode == "frozen":
    opt = torch.optim.Adam(head.parameters(), lr=5 * args.lr)
elif args.mode == "full":
    opt = torch.optim.Adam(
        [
            {"params": backbone.parameters(), "lr": args.lr / 4},
            {"params": head.parameters(), "lr": args.lr},
        ]
    )
else:
    opt = torch.optim.Adam([*backbone.parameters(), *head.parameters()], lr=args.lr)

for step in range(args.steps):
    rows = torch.randint(len(x), (64,))
    if args.mode == "no-grad":  # copied from the evaluation code
        with torch.no_grad():
            features = backbone(x[rows])
    else:
        features = backbone(x[rows])
    loss = nn.functional.cross_entropy(head(features), label[rows])
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 40 == 0:
        print("step", step, "loss", f"{loss.item():.3f}")
