"""A tiny character GPT: Pre-LN, AdamW, warm-up and cosine, clipping at 1.0."""

import argparse
import math

import torch
import torch.nn as nn
import torch.nn.functional as F

from toydata import sentences


class Block(nn.Module):
    def __init__(self, dim, heads, dropout):
        super().__init__()
        self.heads = heads
        self.ln_1 = nn.LayerNorm(dim)
        self.attn_qkv = nn.Linear(dim, 3 * dim)
        self.attn_proj = nn.Linear(dim, dim)
        self.ln_2 = nn.LayerNorm(dim)
        self.mlp_fc = nn.Linear(dim, 4 * dim)
        self.mlp_proj = nn.Linear(4 * dim, dim)
        self.drop = nn.Dropout(dropout)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = self.attn_qkv(self.ln_1(x)).view(B, T, 3, self.heads, C // self.heads).unbind(2)
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.drop(self.attn_proj(y.transpose(1, 2).reshape(B, T, C)))
        return x + self.drop(self.mlp_proj(F.gelu(self.mlp_fc(self.ln_2(x)))))


class GPT(nn.Module):
    def __init__(self, vocab, dim=48, layers=2, heads=4, context=32, tied=False, dropout=0.0):
        super().__init__()
        self.wte = nn.Embedding(vocab, dim)
        self.wpe = nn.Embedding(context, dim)
        self.h = nn.ModuleList([Block(dim, heads, dropout) for _ in range(layers)])
        self.ln_f = nn.LayerNorm(dim)
        self.lm_head = nn.Linear(dim, vocab, bias=False)
        for name, p in self.named_parameters():
            if p.dim() >= 2:
                scale = 0.02 / math.sqrt(2 * layers) if "proj" in name else 0.02
                nn.init.normal_(p, std=scale)
        if tied:
            self.lm_head.weight = self.wte.weight

    def forward(self, idx, targets):
        x = self.wte(idx) + self.wpe(torch.arange(idx.shape[1]))
        for block in self.h:
            x = block(x)
        logits = self.lm_head(self.ln_f(x))
        return F.cross_entropy(logits.flatten(0, 1), targets.flatten())


parser = argparse.ArgumentParser()
parser.add_argument("--max-iters", type=int, default=400)
parser.add_argument("--lr", type=float, default=3e-3)
parser.add_argument("--warmup", type=int, default=30)
parser.add_argument("--constant-lr", action="store_true")
parser.add_argument("--clip", type=float, default=1.0)
parser.add_argument("--layers", type=int, default=2)
parser.add_argument("--dropout", type=float, default=0.0)
parser.add_argument("--weight-decay", type=float, default=0.1)
parser.add_argument("--beta2", type=float, default=0.99)
parser.add_argument("--optimizer", default="adamw")
parser.add_argument("--tied", action="store_true")
parser.add_argument("--lr-bump", type=float, default=0.0, help="multiply the LR at mid-run")
parser.add_argument("--frozen-group-lr", action="store_true", help="lr 0 for the decay group")
parser.add_argument("--random-targets", action="store_true")
parser.add_argument("--eval-interval", type=int, default=50)
parser.add_argument("--seed", type=int, default=1337)
args = parser.parse_args()
torch.manual_seed(args.seed)
torch.set_num_threads(1)

text = sentences(2000)
chars = sorted(set(text))
stoi = {c: i for i, c in enumerate(chars)}
data = torch.tensor([stoi[c] for c in text])
split = int(0.9 * len(data))
train_data, val_data = data[:split], data[split:]
block_size, batch_size = 32, 16


def get_batch(source):
    ix = torch.randint(len(source) - block_size - 1, (batch_size,))
    x = torch.stack([source[i : i + block_size] for i in ix])
    y = torch.stack([source[i + 1 : i + 1 + block_size] for i in ix])
    if args.random_targets:
        y = torch.randint_like(y, len(chars))
    return x, y


def get_lr(it):
    if it < args.warmup:
        return args.lr * (it + 1) / args.warmup
    if args.constant_lr:
        return args.lr
    progress = (it - args.warmup) / max(1, args.max_iters - args.warmup)
    return args.lr * (0.1 + 0.45 * (1 + math.cos(math.pi * progress)))


@torch.no_grad()
def estimate_loss():
    model.eval()
    out = {}
    for name, source in (("train", train_data), ("val", val_data)):
        out[name] = sum(model(*get_batch(source)).item() for _ in range(5)) / 5
    model.train()
    return out


model = GPT(len(chars), layers=args.layers, tied=args.tied, dropout=args.dropout)
decay = [p for p in model.parameters() if p.dim() >= 2]
no_decay = [p for p in model.parameters() if p.dim() < 2]
groups = [
    {"params": decay, "weight_decay": args.weight_decay, "scale": 1.0},
    {"params": no_decay, "weight_decay": 0.0, "scale": 1.0},
]
if args.frozen_group_lr:
    groups[0]["scale"] = 0.0
if args.optimizer == "adamw":
    optimizer = torch.optim.AdamW(groups, lr=args.lr, betas=(0.9, args.beta2))
else:
    optimizer = torch.optim.SGD(groups, lr=args.lr, momentum=0.9)

for it in range(args.max_iters):
    lr = get_lr(it)
    if args.lr_bump and it == args.max_iters // 2:
        lr *= args.lr_bump
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]
    if it % args.eval_interval == 0:
        losses = estimate_loss()
        print(f"step {it}: train loss {losses['train']:.4f}, val loss {losses['val']:.4f}")
    loss = model(*get_batch(train_data))
    optimizer.zero_grad(set_to_none=True)
    loss.backward()
    if args.clip:
        torch.nn.utils.clip_grad_norm_(model.parameters(), args.clip)
    optimizer.step()
    if it % 10 == 0:
        print(f"iter {it}: loss {loss.item():.4f}, lr {lr:.2e}")
