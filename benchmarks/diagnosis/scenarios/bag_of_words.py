"""Sentiment from bags of words: an embedding bag, rare words seldom get a gradient."""

import argparse

import torch
from torch import nn

from toydata import reviews

parser = argparse.ArgumentParser()
parser.add_argument("--sparse", action="store_true")
parser.add_argument("--optimizer", default="adam", choices=["adam", "sgd", "adagrad"])
parser.add_argument("--lr", type=float, default=3e-3)
parser.add_argument("--epochs", type=int, default=6)
parser.add_argument("--train-size", type=int, default=6000)
parser.add_argument("--dropout", type=float, default=0.3)
parser.add_argument("--dim", type=int, default=24)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
torch.manual_seed(args.seed)
torch.set_num_threads(1)

x, y = reviews(args.train_size, seed=1)
xv, yv = reviews(1000, seed=2)


class TextClassifier(nn.Module):
    def __init__(self):
        super().__init__()
        self.bag = nn.EmbeddingBag(2000, args.dim, sparse=args.sparse)
        self.dropout = nn.Dropout(args.dropout)
        self.fc = nn.Linear(args.dim, 2)

    def forward(self, ids):
        return self.fc(self.dropout(self.bag(ids)))


model = TextClassifier()
if args.sparse:
    optimizers = [
        torch.optim.SparseAdam(model.bag.parameters(), lr=args.lr),
        torch.optim.Adam(model.fc.parameters(), lr=args.lr),
    ]
else:
    make = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD, "adagrad": torch.optim.Adagrad}
    optimizers = [make[args.optimizer](model.parameters(), lr=args.lr)]
loss_fn = nn.CrossEntropyLoss()

for epoch in range(1, args.epochs + 1):
    model.train()
    order = torch.randperm(len(x))
    losses = []
    for rows in order.split(64):
        loss = loss_fn(model(x[rows]), y[rows])
        for o in optimizers:
            o.zero_grad()
        loss.backward()
        for o in optimizers:
            o.step()
        losses.append(loss.item())
    model.eval()
    with torch.no_grad():
        val = loss_fn(model(xv), yv).item()
    print(f"epoch {epoch} train loss {sum(losses) / len(losses):.4f} val loss {val:.4f}")
