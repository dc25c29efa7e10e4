"""One trunk, two heads: which digit, and how bright."""

import argparse

import torch
import torch.nn.functional as F
from torch import nn

from toydata import digits


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(144, 96), nn.GELU(), nn.Linear(96, 48), nn.GELU())
        self.digit = nn.Linear(48, 10)
        self.brightness = nn.Sequential(nn.Linear(48, 24), nn.GELU(), nn.Linear(24, 1))

    def forward(self, x):
        h = self.trunk(x)
        return self.digit(h), self.brightness(h)


def train(args):
    x, y = digits(3000, seed=1)
    x = x.flatten(1)
    bright = x.clamp(min=0).mean(1, keepdim=True)
    bright = (bright - bright.mean()) / bright.std()
    model = Model()
    opt = torch.optim.AdamW(model.parameters(), lr=args.lr)
    for step in range(args.steps):
        i = torch.randint(len(x), (64,))
        logits, b = model(x[i])
        ce = F.cross_entropy(logits, y[i])
        mse = F.mse_loss(b, bright[i])
        loss = ce + args.weight * mse
        if args.forget_second:
            loss = ce
        if args.log_items:  # a float made of the second loss: it no longer trains
            loss = ce + args.weight * mse.item()
        opt.zero_grad()
        loss.backward()
        opt.step()
        if step % 50 == 0:
            print(f"step {step:4d} total {loss.item():.3f} ce {ce.item():.3f} mse {mse.item():.3f}")


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--weight", type=float, default=0.5)
    p.add_argument("--steps", type=int, default=500)
    p.add_argument("--forget-second", action="store_true")
    p.add_argument("--log-items", action="store_true")
    p.add_argument("--seed", type=int, default=0)
    a = p.parse_args()
    torch.manual_seed(a.seed)
    torch.set_num_threads(1)
    train(a)
