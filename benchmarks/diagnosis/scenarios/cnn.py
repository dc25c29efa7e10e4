"""Convolutional network with batch norm, epochs over a DataLoader, validation each epoch."""

import argparse

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from toydata import digits

parser = argparse.ArgumentParser()
parser.add_argument("--epochs", type=int, default=8)
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--train-size", type=int, default=2400)
parser.add_argument("--lr", type=float, default=0.05)
parser.add_argument("--schedule", default="none", help="none, step, step-per-batch, onecycle")
parser.add_argument("--optimizer", default="sgd")
parser.add_argument("--noise", type=float, default=0.5)
parser.add_argument("--label-noise", type=float, default=0.0)
parser.add_argument("--shuffled-labels", action="store_true")
parser.add_argument("--bias", type=float, default=None)
parser.add_argument("--no-batch-norm", action="store_true")
parser.add_argument("--eval-after-first-epoch", action="store_true", help="never back to train()")
parser.add_argument("--val-with-grad", action="store_true")
parser.add_argument("--no-val", action="store_true")
parser.add_argument("--patience", type=int, default=0, help="early stopping")
parser.add_argument("--seed", type=int, default=0)
args = parser.parse_args()
torch.manual_seed(args.seed)
torch.set_num_threads(1)

x, y = digits(args.train_size, seed=1, noise=args.noise)
if args.shuffled_labels:
    y = y[torch.randperm(len(y))]
if args.label_noise:
    wrong = torch.rand(len(y)) < args.label_noise
    y = torch.where(wrong, torch.randint(10, y.shape), y)
xv, yv = digits(500, seed=2, noise=args.noise)
train_loader = DataLoader(TensorDataset(x, y), batch_size=args.batch_size, shuffle=True)
val_loader = DataLoader(TensorDataset(xv, yv), batch_size=100)


def block(inside, outside):
    conv = nn.Conv2d(inside, outside, 3, padding=1)
    norm = nn.Identity() if args.no_batch_norm else nn.BatchNorm2d(outside)
    if args.bias is not None:
        nn.init.constant_(conv.bias if args.no_batch_norm else norm.bias, args.bias)
    return nn.Sequential(conv, norm, nn.ReLU(inplace=True))


model = nn.Sequential(
    block(1, 12),
    nn.MaxPool2d(2),
    block(12, 24),
    nn.MaxPool2d(2),
    block(24, 24),
    nn.AdaptiveAvgPool2d(1),
    nn.Flatten(),
    nn.Linear(24, 10),
)
if args.optimizer == "sgd":
    optimizer = torch.optim.SGD(model.parameters(), lr=args.lr, momentum=0.9)
else:
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr)
criterion = nn.CrossEntropyLoss()

scheduler = None
if args.schedule == "step":
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=3, gamma=0.1)
elif args.schedule == "step-per-batch":
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, step_size=8, gamma=0.1)
elif args.schedule == "onecycle":
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=args.lr, total_steps=args.epochs * len(train_loader)
    )


def validate():
    model.eval()
    total, correct = 0.0, 0
    with torch.set_grad_enabled(args.val_with_grad):
        for images, labels in val_loader:
            output = model(images)
            total += criterion(output, labels).item() * len(labels)
            correct += (output.argmax(1) == labels).sum().item()
    return total / len(yv), correct / len(yv)


best, waited = float("inf"), 0
model.train()
for epoch in range(args.epochs):
    if not args.eval_after_first_epoch:
        model.train()
    total = 0.0
    for images, labels in train_loader:
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        total += loss.item() * len(labels)
        if scheduler and args.schedule in ("onecycle", "step-per-batch"):
            scheduler.step()
    if scheduler and args.schedule == "step":
        scheduler.step()
    line = f"epoch {epoch:3d}  train_loss {total / len(y):.4f}"
    if not args.no_val:
        val_loss, accuracy = validate()
        line += f"  val_loss {val_loss:.4f}  val_acc {accuracy:.3f}"
    print(line, flush=True)
    if args.patience:
        waited = 0 if val_loss < best else waited + 1
        best = min(best, val_loss)
        if waited >= args.patience:
            print("early stop")
            break
