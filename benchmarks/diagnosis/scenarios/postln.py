"""Sequence reversal with torch's own TransformerEncoder (Post-LN by default)."""

import argparse

import torch
from torch import nn


class Reverser(nn.Module):
    def __init__(self, symbols, length, dim, layers, norm_first):
        super().__init__()
        self.embedding = nn.Embedding(symbols, dim)
        self.position = nn.Parameter(torch.randn(length, dim) * 0.5)
        layer = nn.TransformerEncoderLayer(
            dim, 4, 4 * dim, dropout=0.0, batch_first=True, norm_first=norm_first
        )
        self.encoder = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.out = nn.Linear(dim, symbols)

    def forward(self, x):
        return self.out(self.encoder(self.embedding(x) + self.position))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--lr", type=float, default=1e-3)
    p.add_argument("--warmup", type=int, default=60)
    p.add_argument("--layers", type=int, default=2)
    p.add_argument("--pre-ln", action="store_true")
    p.add_argument("--train-encoder", default="all", choices=["all", "head-only-by-mistake"])
    p.add_argument("--steps", type=int, default=400)
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)
    model = Reverser(10, 12, 64, args.layers, args.pre_ln)
    if args.train_encoder == "all":
        parameters = model.parameters()
    else:
        parameters = list(model.embedding.parameters()) + list(model.out.parameters())
    optimizer = torch.optim.Adam(parameters, lr=args.lr, betas=(0.9, 0.98))
    warmup = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda s: min(1.0, (s + 1) / max(1, args.warmup))
    )
    criterion = nn.CrossEntropyLoss()
    model.train()
    for step in range(args.steps):
        x = torch.randint(10, (32, 12))
        logits = model(x)
        loss = criterion(logits.reshape(-1, 10), x.flip(1).reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        warmup.step()
        if step % 20 == 0:
            accuracy = (logits.argmax(-1) == x.flip(1)).float().mean()
            print(f"{step:>5} loss={loss.item():.4f} acc={accuracy.item():.3f}")


if __name__ == "__main__":
    main()
