"""House prices from five columns."""

import argparse

import torch
from torch import nn

from toydata import houses

parser = argparse.ArgumentParser()
parser.add_argument("--raw-inputs", action="store_true")
parser.add_argument("--raw-target", action="store_true")
parser.add_argument("--log-target", action="store_true")
parser.add_argument("--missing", choices=["none", "nan", "zero-price"], default="none")
parser.add_argument("--corrupt", action="store_true", help="a few prices in cents")
parser.add_argument("--lr", type=float, default=3e-3)
parser.add_argument("--opt", default="adam")
parser.add_argument("--clip", type=float, default=0.0)
parser.add_argument("--steps", type=int, default=1000)
parser.add_argument("--batch", type=int, default=64)
parser.add_argument("--hidden", type=int, default=64)
parser.add_argument("--act", default="relu")
parser.add_argument("--cosine", action="store_true")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
torch.manual_seed(args.seed)
torch.set_num_threads(1)

X, price = houses(3000)
if not args.raw_inputs:
    X = (X - X.mean(0)) / X.std(0)
if args.missing == "nan":
    X[700, 2] = float("nan")
if args.missing == "zero-price":
    price[700] = 0.0
if args.corrupt:
    price[1500] *= 100
if args.log_target:
    target = torch.log(price / 1000)
elif args.raw_target:
    target = price
else:
    target = (price - price.median()) / 150_000

act = {"relu": nn.ReLU, "tanh": nn.Tanh, "silu": nn.SiLU}[args.act]
net = nn.Sequential(
    nn.Linear(5, args.hidden), act(), nn.Linear(args.hidden, args.hidden), act(),
    nn.Linear(args.hidden, 1),
)  # fmt: skip
opt = (
    torch.optim.Adam(net.parameters(), lr=args.lr)
    if args.opt == "adam"
    else torch.optim.SGD(net.parameters(), lr=args.lr)
)
sched = torch.optim.lr_scheduler.CosineAnnealingLR(opt, args.steps) if args.cosine else None
mse = nn.MSELoss()

order = torch.randperm(len(X))
position = 0
for i in range(args.steps):
    if position + args.batch > len(X):
        order, position = torch.randperm(len(X)), 0
    rows = order[position : position + args.batch]
    position += args.batch
    loss = mse(net(X[rows]), target[rows])
    opt.zero_grad()
    loss.backward()
    if args.clip:
        torch.nn.utils.clip_grad_norm_(net.parameters(), args.clip)
    opt.step()
    if sched:
        sched.step()
    if i % 100 == 0:
        print(i, loss.item())
