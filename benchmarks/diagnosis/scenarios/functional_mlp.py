"""A classifier written as a class; the activation is a call in forward()."""

import argparse

import torch
import torch.nn.functional as F
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from toydata import digits


class Net(nn.Module):
    def __init__(self, relu, hidden=96, bias=None):
        super().__init__()
        self.fc1 = nn.Linear(144, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, 10)
        self.relu = relu
        if bias is not None:
            nn.init.constant_(self.fc1.bias, bias)
            nn.init.constant_(self.fc2.bias, bias)

    def forward(self, x):
        x = x.flatten(1)
        if self.relu == "F.relu":
            x = F.relu(self.fc1(x))
            x = F.relu(self.fc2(x))
        elif self.relu == "torch.relu":
            x = torch.relu(self.fc1(x))
            x = torch.relu(self.fc2(x))
        elif self.relu == "x.relu":
            x = self.fc1(x).relu()
            x = self.fc2(x).relu()
        elif self.relu == "clamp":
            x = self.fc1(x).clamp(min=0)
            x = self.fc2(x).clamp(min=0)
        else:
            x = F.relu_(self.fc1(x))
            x = F.relu(self.fc2(x), inplace=True)
        return self.fc3(x)


def train(args):
    x, y = digits(3000, seed=1)
    loader = DataLoader(TensorDataset(x, y), batch_size=50, shuffle=True)
    net = Net(args.relu, bias=args.bias)
    opt = torch.optim.Adam(net.parameters(), lr=args.lr)
    for epoch in range(args.epochs):
        total = 0.0
        for data, target in loader:
            opt.zero_grad()
            loss = F.cross_entropy(net(data), target)
            loss.backward()
            opt.step()
            total += loss.item()
        print(f"Epoch {epoch + 1}/{args.epochs}  loss={total / len(loader):.4f}")


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--relu", default="F.relu")
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--bias", type=float)
    p.add_argument("--epochs", type=int, default=10)
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    train(args)
