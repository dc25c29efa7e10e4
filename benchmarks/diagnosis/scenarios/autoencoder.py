"""Autoencoder with a sigmoid output; the loss is binary cross entropy or squared error."""

import argparse

import torch
from torch import nn

from toydata import digits

ap = argparse.ArgumentParser()
ap.add_argument("--loss", default="bce", choices=["bce", "mse", "manual-bce", "rmse"])
ap.add_argument("--pixels", default="unit", choices=["unit", "binary", "bytes"])
ap.add_argument("--optimizer", default="adam")
ap.add_argument("--lr", type=float, default=2e-3)
ap.add_argument("--hidden-act", default="relu")
ap.add_argument("--steps", type=int, default=600)
ap.add_argument("--seed", type=int, default=0)
args = ap.parse_args()
torch.manual_seed(args.seed)
torch.set_num_threads(1)

images, _ = digits(3000, seed=1, noise=0.15)
images = (images.flatten(1) * 0.6 + 0.35).clamp(0, 1).round(decimals=1)
if args.pixels == "binary":
    images = (images > 0.5).float()
if args.pixels == "bytes":
    images = images * 255

act = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid}[args.hidden_act]


class AutoEncoder(nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(144, 96), act(), nn.Linear(96, 16))
        self.decoder = nn.Sequential(nn.Linear(16, 96), act(), nn.Linear(96, 144), nn.Sigmoid())

    def forward(self, x):
        return self.decoder(self.encoder(x))


net = AutoEncoder()
cls = {"adam": torch.optim.Adam, "sgd": torch.optim.SGD, "rmsprop": torch.optim.RMSprop}
opt = cls[args.optimizer](net.parameters(), lr=args.lr)


def loss_of(output, target):
    if args.loss == "bce":
        return nn.functional.binary_cross_entropy(output, target)
    if args.loss == "manual-bce":
        return -(target * torch.log(output) + (1 - target) * torch.log(1 - output)).mean()
    if args.loss == "rmse":
        return torch.sqrt(((output - target) ** 2).mean())
    return ((output - target) ** 2).mean()


done = 0
while done < args.steps:
    for batch in images[torch.randperm(len(images))].split(100):
        loss = loss_of(net(batch), batch)
        opt.zero_grad()
        loss.backward()
        opt.step()
        done += 1
    print("steps", done, "reconstruction", round(loss.item(), 5))
