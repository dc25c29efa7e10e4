"""Linear least squares by gradient descent, from zero or from the closed-form solution."""

import argparse

import torch

parser = argparse.ArgumentParser()
parser.add_argument("--start", default="zero", choices=["zero", "solution"])
parser.add_argument("--noise", type=float, default=0.3)
parser.add_argument("--lr", type=float, default=0.05)
parser.add_argument("--momentum", type=float, default=0.0)
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--steps", type=int, default=800)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
torch.manual_seed(args.seed)
torch.set_num_threads(1)

X = torch.randn(2000, 12)
w_true = torch.randn(12, 1)
y = X @ w_true + args.noise * torch.randn(2000, 1)
w = torch.zeros(12, 1)
if args.start == "solution":
    w = torch.linalg.lstsq(X[:1000], y[:1000]).solution
w.requires_grad_(True)
opt = torch.optim.SGD([w], lr=args.lr, momentum=args.momentum)
for step in range(args.steps):
    i = torch.randint(len(X), (args.batch,))
    loss = ((X[i] @ w - y[i]) ** 2).mean()
    opt.zero_grad()
    loss.backward()
    opt.step()
    if step % 100 == 0:
        print(f"step {step}, mse {loss.item():.5f}")
