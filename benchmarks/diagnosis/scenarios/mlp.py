"""MLP on small digit images, one random batch a step."""

import argparse

import torch
from torch import nn

from toydata import digits

parser = argparse.ArgumentParser()
parser.add_argument("--seed", type=int, default=0)
parser.add_argument("--steps", type=int, default=800)
parser.add_argument("--batch", type=int, default=64)
parser.add_argument("--lr", type=float, default=0.1)
parser.add_argument("--optimizer", default="sgd")
parser.add_argument("--momentum", type=float, default=0.0)
parser.add_argument("--weight-decay", type=float, default=0.0)
parser.add_argument("--clip", type=float, default=0.0)
parser.add_argument("--dropout", type=float, default=0.0)
parser.add_argument("--smoothing", type=float, default=0.0)
parser.add_argument("--noise", type=float, default=0.4)
parser.add_argument("--init-std", type=float)
parser.add_argument("--bias-init", type=float)
parser.add_argument("--cosine", action="store_true")
parser.add_argument("--print-every", type=int, default=50)
parser.add_argument(
    "--fault",
    default="none",
    choices=["none", "lr-bump", "bad-batch", "label-burst", "shuffled-labels", "no-zero-grad",
             "softmax", "nan-pixel"],
)  # fmt: skip
args = parser.parse_args()

torch.manual_seed(args.seed)
torch.set_num_threads(1)

x, y = digits(4000, seed=1, noise=args.noise)
if args.fault == "shuffled-labels":
    y = y[torch.randperm(len(y))]
if args.fault == "nan-pixel":
    x[1234, 0, 3, 3] = float("nan")

model = nn.Sequential(
    nn.Flatten(),
    nn.Linear(144, 64),
    nn.ReLU(),
    nn.Dropout(args.dropout),
    nn.Linear(64, 64),
    nn.ReLU(),
    nn.Dropout(args.dropout),
    nn.Linear(64, 10),
)
for m in model:
    if isinstance(m, nn.Linear) and args.init_std is not None:
        nn.init.normal_(m.weight, std=args.init_std)
        nn.init.zeros_(m.bias)
for m in (model[1], model[4]):
    if args.bias_init is not None:
        nn.init.constant_(m.bias, args.bias_init)
if args.fault == "softmax":
    model.append(nn.Softmax(dim=1))

if args.optimizer == "sgd":
    optimizer = torch.optim.SGD(
        model.parameters(), args.lr, momentum=args.momentum, weight_decay=args.weight_decay
    )
else:
    cls = {
        "adam": torch.optim.Adam,
        "adamw": torch.optim.AdamW,
        "rmsprop": torch.optim.RMSprop,
        "adagrad": torch.optim.Adagrad,
    }[args.optimizer]
    optimizer = cls(model.parameters(), lr=args.lr, weight_decay=args.weight_decay)
scheduler = None
if args.cosine:
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.steps)
criterion = nn.CrossEntropyLoss(label_smoothing=args.smoothing)

for step in range(args.steps):
    index = torch.randint(len(x), (args.batch,))
    inputs, target = x[index], y[index]
    if args.fault == "bad-batch" and step == args.steps // 2:
        inputs = inputs * 20
    if args.fault == "label-burst" and args.steps // 2 <= step < args.steps // 2 + 3:
        target = (target + 1) % 10
    if args.fault == "lr-bump" and args.steps // 2 <= step < args.steps // 2 + 2:
        optimizer.param_groups[0]["lr"] = args.lr * 30
    loss = criterion(model(inputs), target)
    if args.fault != "no-zero-grad":
        optimizer.zero_grad()
    loss.backward()
    if args.clip:
        nn.utils.clip_grad_norm_(model.parameters(), args.clip)
    optimizer.step()
    if args.fault == "lr-bump":
        optimizer.param_groups[0]["lr"] = args.lr
    if scheduler:
        scheduler.step()
    if step % args.print_every == 0:
        print(f"step {step} loss {loss.item():.4f}")

model.eval()
with torch.no_grad():
    xt, yt = digits(1000, seed=2, noise=args.noise)
    print("test accuracy", (model(xt).argmax(1) == yt).float().mean().item())
