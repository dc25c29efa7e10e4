"""A small vision transformer on digit images; optional bf16, accumulation, checkpointing."""

import argparse
import contextlib

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from toydata import digits


class EncoderBlock(nn.Module):
    def __init__(self, dim, heads, dropout):
        super().__init__()
        self.norm1 = nn.LayerNorm(dim)
        self.attention = nn.MultiheadAttention(dim, heads, dropout=dropout, batch_first=True)
        self.norm2 = nn.LayerNorm(dim)
        self.mlp = nn.Sequential(
            nn.Linear(dim, 2 * dim), nn.GELU(), nn.Dropout(dropout), nn.Linear(2 * dim, dim)
        )

    def forward(self, x):
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        return x + self.mlp(self.norm2(x))


class ViT(nn.Module):
    def __init__(self, dim=48, depth=2, heads=4, patch=4, dropout=0.0, checkpointing=None):
        super().__init__()
        self.patches = nn.Conv2d(1, dim, patch, stride=patch)
        self.cls = nn.Parameter(torch.zeros(1, 1, dim))
        self.position = nn.Parameter(torch.randn(1, (12 // patch) ** 2 + 1, dim) * 0.02)
        self.blocks = nn.ModuleList(EncoderBlock(dim, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(dim)
        self.head = nn.Linear(dim, 10)
        self.checkpointing = checkpointing

    def forward(self, images):
        x = self.patches(images).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], dim=1) + self.position
        for block in self.blocks:
            if self.checkpointing is None:
                x = block(x)
            else:
                x = checkpoint(block, x, use_reentrant=self.checkpointing == "reentrant")
        return self.head(self.norm(x)[:, 0])


parser = argparse.ArgumentParser()
parser.add_argument("--steps", type=int, default=300, help="optimizer steps")
parser.add_argument("--accumulate", type=int, default=1)
parser.add_argument("--undivided", action="store_true")
parser.add_argument("--batch", type=int, default=32)
parser.add_argument("--lr", type=float, default=2e-3)
parser.add_argument("--bf16", action="store_true")
parser.add_argument("--checkpointing", choices=["reentrant", "plain"])
parser.add_argument("--freeze-patches", action="store_true")
parser.add_argument("--half-lr-zero", action="store_true", help="lr 0 for the first blocks")
parser.add_argument("--compile", action="store_true")
parser.add_argument("--warmup", type=int, default=30)
parser.add_argument("--label-smoothing", type=float, default=0.1)
parser.add_argument("--dropout", type=float, default=0.0)
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
torch.manual_seed(args.seed)
torch.set_num_threads(1)

x, y = digits(4000, seed=1)
model = ViT(checkpointing=args.checkpointing, dropout=args.dropout)
if args.freeze_patches:
    for p in (*model.patches.parameters(), model.position, model.cls):
        p.requires_grad_(False)
forward = torch.compile(model) if args.compile else model
early = list(model.blocks[:1].parameters())
chosen = {id(p) for p in early}
rest = [p for p in model.parameters() if p.requires_grad and id(p) not in chosen]
optimizer = torch.optim.AdamW(
    [
        {"params": early, "lr": 0.0 if args.half_lr_zero else args.lr},
        {"params": rest, "lr": args.lr, "weight_decay": 0.05},
    ]
)
scheduler = torch.optim.lr_scheduler.SequentialLR(
    optimizer,
    [
        torch.optim.lr_scheduler.LinearLR(optimizer, 0.1, 1.0, args.warmup),
        torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps - args.warmup),
    ],
    milestones=[args.warmup],
)
loss_fn = nn.CrossEntropyLoss(label_smoothing=args.label_smoothing)
precision = torch.autocast("cpu", dtype=torch.bfloat16) if args.bf16 else contextlib.nullcontext()

for step in range(args.steps):
    total = 0.0
    for _ in range(args.accumulate):
        index = torch.randint(len(x), (args.batch,))
        with precision:
            loss = loss_fn(forward(x[index]), y[index])
        if args.accumulate > 1 and not args.undivided:
            loss = loss / args.accumulate
        loss.backward()
        total += loss.item()
    optimizer.step()
    optimizer.zero_grad()
    scheduler.step()
    if step % 20 == 0 or step == args.steps - 1:
        print(f"step={step} loss={total:.4f}")
