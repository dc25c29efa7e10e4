"""A deep plain network: which activation, which initialisation, how deep."""

import argparse

import torch
from torch import nn

from toydata import digits


def build(depth, width, act, init, norm):
    activation = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU, "gelu": nn.GELU}[act]
    layers = [nn.Flatten()]
    inside = 144
    for _ in range(depth):
        layers.append(nn.Linear(inside, width))
        if norm:
            layers.append(nn.LayerNorm(width))
        layers.append(activation())
        inside = width
    layers.append(nn.Linear(inside, 10))
    model = nn.Sequential(*layers)
    for m in model:
        if isinstance(m, nn.Linear) and init != "default":
            nn.init.zeros_(m.bias)
            if init == "he":
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")
            elif init == "xavier":
                nn.init.xavier_uniform_(m.weight)
            elif init == "orthogonal":
                nn.init.orthogonal_(m.weight)
            else:
                nn.init.normal_(m.weight, std=float(init))
    return model


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--depth", type=int, default=8)
    p.add_argument("--width", type=int, default=64)
    p.add_argument("--act", default="relu")
    p.add_argument("--init", default="default", help="default, he, xavier, orthogonal or a std")
    p.add_argument("--norm", action="store_true")
    p.add_argument("--opt", default="sgd", choices=["sgd", "adam"])
    p.add_argument("--lr", type=float, default=0.05)
    p.add_argument("--steps", type=int, default=800)
    p.add_argument("--input-scale", type=float, default=1.0)
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)

    x, y = digits(4000, seed=1)
    x = x * args.input_scale
    model = build(args.depth, args.width, args.act, args.init, args.norm)
    if args.opt == "sgd":
        optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)
    else:
        optimizer = torch.optim.Adam(model.parameters(), lr=args.lr)
    loss_fn = nn.CrossEntropyLoss()

    running = None
    for step in range(1, args.steps + 1):
        index = torch.randint(len(x), (64,))
        optimizer.zero_grad()
        loss = loss_fn(model(x[index]), y[index])
        loss.backward()
        optimizer.step()
        running = loss.item() if running is None else 0.95 * running + 0.05 * loss.item()
        if step % 100 == 0:
            print(f"[{step:5d}] train_loss: {running:.4f}")


if __name__ == "__main__":
    main()
