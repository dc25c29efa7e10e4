"""torch.compile around a small network."""

import argparse

import torch
from torch import nn

from toydata import digits

p = argparse.ArgumentParser()
p.add_argument("--backend", default="aot_eager", help="inductor needs a C++ compiler")
p.add_argument("--whole-step", action="store_true", help="compile model and loss together")
p.add_argument("--bias", type=float, default=0.0)
p.add_argument("--lr", type=float, default=0.1)
p.add_argument("--steps", type=int, default=400)
p.add_argument("--seed", type=int, default=0)
args = p.parse_args()
torch.manual_seed(args.seed)
torch.set_num_threads(1)

x, y = digits(4000, seed=1)
x = x.flatten(1)
net = nn.Sequential(nn.Linear(144, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
for layer in (net[0], net[2]):
    nn.init.constant_(layer.bias, args.bias)
criterion = nn.CrossEntropyLoss()
opt = torch.optim.SGD(net.parameters(), lr=args.lr, momentum=0.5)


def loss_of(inputs, target):
    return criterion(net(inputs), target)


if args.whole_step:
    loss_of = torch.compile(loss_of, backend=args.backend)
else:
    net.compile(backend=args.backend)

for step in range(args.steps):
    rows = torch.randint(len(x), (64,))
    loss = loss_of(x[rows], y[rows])
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 50 == 0:
        print(f"step {step} loss {loss.item():.4f}")
