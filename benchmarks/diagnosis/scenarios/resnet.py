"""A small ResNet, SGD with momentum and a cosine schedule."""

import argparse
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from toydata import digits


class BasicBlock(nn.Module):
    def __init__(self, c_in, c_out, stride=1, groups=0):
        super().__init__()
        norm = (lambda c: nn.GroupNorm(groups, c)) if groups else nn.BatchNorm2d
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = norm(c_out)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = norm(c_out)
        self.shortcut = nn.Identity()
        if stride != 1 or c_in != c_out:
            self.shortcut = nn.Sequential(
                nn.Conv2d(c_in, c_out, 1, stride, bias=False), norm(c_out)
            )

    def forward(self, x):
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return F.relu(out + self.shortcut(x))


class ResNet(nn.Module):
    def __init__(self, width=8, groups=0, auxiliary=False, detach=False):
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, 1, 1, bias=False)
        self.layer1 = BasicBlock(width, width, groups=groups)
        self.layer2 = BasicBlock(width, 2 * width, 2, groups=groups)
        self.layer3 = BasicBlock(2 * width, 4 * width, 2, groups=groups)
        self.fc = nn.Linear(4 * width, 10)
        if auxiliary:  # from an older version of the model
            self.aux_head = nn.Sequential(nn.Linear(2 * width, 64), nn.ReLU(), nn.Linear(64, 10))
        self.detach = detach

    def forward(self, x):
        x = self.layer1(self.stem(x))
        x = self.layer2(x)
        if self.detach:
            x = x.detach()
        x = self.layer3(x)
        return self.fc(x.mean(dim=(2, 3)))


def main():
    p = argparse.ArgumentParser()
    p.add_argument("--steps", type=int, default=300)
    p.add_argument("--batch", type=int, default=64)
    p.add_argument("--lr", type=float, default=0.1)
    p.add_argument("--warmup", type=int, default=20)
    p.add_argument("--group-norm", type=int, default=0)
    p.add_argument("--auxiliary", action="store_true")
    p.add_argument("--detach", action="store_true", help="features as constants")
    p.add_argument("--train-only", default="", help="only parameters with this prefix")
    p.add_argument("--freeze", default="", help="requires_grad = False for these prefixes")
    p.add_argument("--noise", type=float, default=0.5)
    p.add_argument("--seed", type=int, default=0)
    args = p.parse_args()
    torch.manual_seed(args.seed)
    torch.set_num_threads(1)

    net = ResNet(groups=args.group_norm, auxiliary=args.auxiliary, detach=args.detach)
    for name, parameter in net.named_parameters():
        if args.freeze and name.startswith(tuple(args.freeze.split(","))):
            parameter.requires_grad_(False)
    params = [
        parameter
        for name, parameter in net.named_parameters()
        if parameter.requires_grad and name.startswith(tuple(args.train_only.split(",")))
    ]
    optimizer = torch.optim.SGD(params, lr=args.lr, momentum=0.9, weight_decay=5e-4)

    def schedule(step):
        if step < args.warmup:
            return (step + 1) / args.warmup
        return 0.5 * (1 + math.cos(math.pi * (step - args.warmup) / (args.steps - args.warmup)))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, schedule)
    images, labels = digits(3000, seed=1, noise=args.noise)

    net.train()
    for step in range(args.steps):
        index = torch.randint(len(images), (args.batch,))
        loss = F.cross_entropy(net(images[index]), labels[index])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        scheduler.step()
        if step % 25 == 0:
            lr = optimizer.param_groups[0]["lr"]
            print(f"iter {step:04d} | loss {loss.item():.3f} | lr {lr:.4f}")


main()
