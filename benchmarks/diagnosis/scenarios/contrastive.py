"""Learn an embedding from pairs of noisy views of one image."""

import argparse

import torch
import torch.nn.functional as F
from torch import nn

from toydata import digits

parser = argparse.ArgumentParser()
parser.add_argument("--loss", default="infonce", choices=["infonce", "distance"])
parser.add_argument("--same-views", action="store_true", help="augmentation switched off")
parser.add_argument("--skip-nonfinite", action="store_true", help="skip a step with a bad gradient")
parser.add_argument("--steps", type=int, default=400)
parser.add_argument("--lr", type=float, default=1e-3)
parser.add_argument("--temperature", type=float, default=0.2)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
torch.manual_seed(args.seed)
torch.set_num_threads(1)

x, _ = digits(3000, seed=1, noise=0.1)
x = x.flatten(1)
encoder = nn.Sequential(nn.Linear(144, 128), nn.LayerNorm(128), nn.GELU(), nn.Linear(128, 32))
opt = torch.optim.Adam(encoder.parameters(), lr=args.lr)
skipped = 0


def view(images):
    if args.same_views:
        return images
    return images + 0.5 * torch.randn_like(images)


for step in range(args.steps):
    images = x[torch.randint(len(x), (64,))]
    a, b = encoder(view(images)), encoder(view(images))
    if args.loss == "infonce":
        a, b = F.normalize(a, dim=1), F.normalize(b, dim=1)
        loss = F.cross_entropy(a @ b.T / args.temperature, torch.arange(len(a)))
    else:  # pull pairs together, push neighbours apart up to a margin
        near = torch.sqrt(((a - b) ** 2).sum(1))
        far = torch.sqrt(((a - b.roll(1, 0)) ** 2).sum(1))
        loss = (near + F.relu(4.0 - far)).mean()
    opt.zero_grad()
    loss.backward()
    norm = torch.nn.utils.clip_grad_norm_(encoder.parameters(), 10.0)
    if args.skip_nonfinite and not torch.isfinite(norm):
        skipped += 1
        continue
    opt.step()
    if step % 50 == 0:
        print(f"step {step} loss {loss.item():.4f}")
print("skipped", skipped)
