"""Recurrent networks on a sequence task: classify a sequence by its first symbols."""

import argparse

import torch
from torch import nn


class Classifier(nn.Module):
    def __init__(self, cell, symbols=8, hidden=48, gain=None):
        super().__init__()
        self.embed = nn.Embedding(symbols, 16)
        self.rnn = {"rnn": nn.RNN, "gru": nn.GRU, "lstm": nn.LSTM}[cell](
            16, hidden, batch_first=True
        )
        if gain is not None:
            nn.init.orthogonal_(self.rnn.weight_hh_l0, gain=gain)
        self.head = nn.Linear(hidden, symbols)

    def forward(self, x):
        out, _ = self.rnn(self.embed(x))
        return self.head(out[:, -1])


class LinearRNN(nn.Module):
    """A hand-written recurrence, h = relu(W h + U x)."""

    def __init__(self, symbols=8, hidden=48, gain=1.0):
        super().__init__()
        self.hidden = hidden
        self.embed = nn.Embedding(symbols, hidden)
        self.recurrent = nn.Linear(hidden, hidden)
        nn.init.orthogonal_(self.recurrent.weight, gain=gain)
        self.head = nn.Linear(hidden, symbols)

    def forward(self, x):
        h = torch.zeros(len(x), self.hidden)
        for t in range(x.shape[1]):
            h = torch.relu(self.recurrent(h) + self.embed(x[:, t]))
        return self.head(h)


def batch(n, length, lag):
    x = torch.randint(8, (n, length))
    return x, x[:, -1 - lag]


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--cell", default="gru", choices=["rnn", "gru", "lstm", "handmade"])
    p.add_argument("--length", type=int, default=20)
    p.add_argument("--lag", type=int, default=3)
    p.add_argument("--gain", type=float)
    p.add_argument("--clip", type=float, default=1.0)
    p.add_argument("--opt", default="adam")
    p.add_argument("--lr", type=float, default=3e-3)
    p.add_argument("--steps", type=int, default=500)
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)

    if args.cell == "handmade":
        model = LinearRNN(gain=args.gain or 1.0)
    else:
        model = Classifier(args.cell, gain=args.gain)
    make = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD, "rmsprop": torch.optim.RMSprop}
    optimizer = make[args.opt](model.parameters(), lr=args.lr)
    criterion = nn.CrossEntropyLoss()
    for step in range(args.steps):
        x, y = batch(64, args.length, args.lag)
        loss = criterion(model(x), y)
        model.zero_grad()
        loss.backward()
        if args.clip > 0:
            nn.utils.clip_grad_norm_(model.parameters(), max_norm=args.clip)
        optimizer.step()
        if (step + 1) % 50 == 0:
            print(f"step: {step + 1}, loss: {loss.item():.4f}")


if __name__ == "__main__":
    main()
