"""A GAN on a ring of eight Gaussians: two networks, two optimizers."""

import argparse
import math

import torch
from torch import nn

p = argparse.ArgumentParser()
p.add_argument("--iterations", type=int, default=600)
p.add_argument("--lr-g", type=float, default=1e-3)
p.add_argument("--lr-d", type=float, default=1e-3)
p.add_argument("--wrong-parameters", action="store_true", help="opt_g got D's parameters")
p.add_argument("--wgan", action="store_true")
p.add_argument("--seed", type=int, default=0)
args = p.parse_args()
torch.manual_seed(args.seed)
torch.set_num_threads(1)


def real_samples(n):
    angle = torch.randint(8, (n,)) * (2 * math.pi / 8)
    return torch.stack([angle.cos(), angle.sin()], 1) * 2 + 0.1 * torch.randn(n, 2)


G = nn.Sequential(nn.Linear(8, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 2))
D = nn.Sequential(
    nn.Linear(2, 64), nn.LeakyReLU(0.2), nn.Linear(64, 64), nn.LeakyReLU(0.2), nn.Linear(64, 1)
)
opt_g = torch.optim.Adam(
    (D if args.wrong_parameters else G).parameters(), lr=args.lr_g, betas=(0.5, 0.999)
)
opt_d = torch.optim.Adam(D.parameters(), lr=args.lr_d, betas=(0.5, 0.999))
bce = nn.BCEWithLogitsLoss()

for i in range(args.iterations):
    # discriminator
    real = real_samples(128)
    fake = G(torch.randn(128, 8))
    d_real, d_fake = D(real), D(fake.detach())
    if args.wgan:
        loss_d = d_fake.mean() - d_real.mean()
    else:
        loss_d = bce(d_real, torch.ones(128, 1)) + bce(d_fake, torch.zeros(128, 1))
    opt_d.zero_grad()
    loss_d.backward()
    opt_d.step()
    if args.wgan:
        with torch.no_grad():
            for w in D.parameters():
                w.clamp_(-0.1, 0.1)

    # generator
    score = D(fake)
    loss_g = -score.mean() if args.wgan else bce(score, torch.ones(128, 1))
    opt_g.zero_grad()
    loss_g.backward()
    opt_g.step()
    if i % 100 == 0:
        print(f"[{i}/{args.iterations}] Loss_D: {loss_d.item():.4f} Loss_G: {loss_g.item():.4f}")
