"""Variational autoencoder; with --density the decoder learns its variance as well."""

import argparse

import torch
import torch.nn.functional as F
from torch import nn

from toydata import digits


class VAE(nn.Module):
    def __init__(self, latent=8, density=False):
        super().__init__()
        self.enc = nn.Linear(144, 128)
        self.mu = nn.Linear(128, latent)
        self.logvar = nn.Linear(128, latent)
        self.dec = nn.Linear(latent, 128)
        self.out = nn.Linear(128, 144)
        if density:
            self.log_sigma = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        h = F.silu(self.enc(x))
        mu, logvar = self.mu(h), self.logvar(h)
        z = mu + torch.exp(0.5 * logvar) * torch.randn_like(mu)
        return self.out(F.silu(self.dec(z))), mu, logvar


def main(a):
    torch.manual_seed(a.seed)
    torch.set_num_threads(1)
    x, _ = digits(3000, seed=1, noise=0.2)
    x = x.flatten(1)
    if not a.density:
        x = (x * 0.6 + 0.35).clamp(0, 1)
    vae = VAE(density=a.density)
    optimizer = torch.optim.Adam(vae.parameters(), lr=a.lr)
    for epoch in range(a.epochs):
        summed = 0.0
        for batch in x[torch.randperm(len(x))].split(64):
            out, mu, logvar = vae(batch * a.input_scale)
            if a.density:
                sigma = vae.log_sigma
                nll = (0.5 * ((batch - out) / sigma.exp()) ** 2 + sigma).sum(1).mean()
            else:
                nll = F.binary_cross_entropy_with_logits(out, batch, reduction="none").sum(1).mean()
            kl = -0.5 * (1 + logvar - mu**2 - logvar.exp()).sum(1).mean()
            loss = nll + a.beta * kl
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            summed += loss.item()
        print(f"====> Epoch: {epoch} Average loss: {summed / (len(x) // 64):.4f}")


if __name__ == "__main__":
    p = argparse.ArgumentParser()
    p.add_argument("--epochs", type=int, default=12)
    p.add_argument("--lr", type=float, default=2e-3)
    p.add_argument("--beta", type=float, default=1.0)
    p.add_argument("--density", action="store_true")
    p.add_argument("--input-scale", type=float, default=1.0)
    p.add_argument("--seed", type=int, default=0)
    main(p.parse_args())
