"""The trainings that are timed: four nets, each with a step that does what a plain script does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Size = Literal["quick", "usual", "full"]


@dataclass(frozen=True)
class Training:
    """One training, ready to run. `step` makes one optimizer step and gives its loss."""

    model: nn.Module
    optimizer: torch.optim.Optimizer
    inputs: Tensor
    targets: Tensor

    def step(self) -> Tensor:
        self.optimizer.zero_grad()
        outputs = self.model(self.inputs)
        loss = F.cross_entropy(outputs.flatten(0, -2), self.targets.flatten())
        loss.backward()
        self.optimizer.step()
        return loss


class Block(nn.Module):
    """Two convolutions with batch norm beside a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.shortcut = nn.Sequential()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        return self.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class ResNet(nn.Module):
    """ResNet-18 for images of 32 x 32; `width` channels in the first stage."""

    def __init__(self, width: int) -> None:
        super().__init__()
        widths = [width, 2 * width, 4 * width, 8 * width]
        layers: list[nn.Module] = [nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)]
        layers.append(nn.ReLU())
        before = width
        for stage, channels in enumerate(widths):
            layers += [
                Block(before, channels, 1 if stage == 0 else 2),
                Block(channels, channels, 1),
            ]
            before = channels
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(before, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean(dim=(2, 3)))


class Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.project = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        n, t, c = x.shape
        q, k, v = (
            part.view(n, t, self.heads, c // self.heads).transpose(1, 2)
            for part in self.qkv(x).split(c, dim=2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.project(y.transpose(1, 2).reshape(n, t, c))


class Layer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width), nn.Dropout(0.1)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.mlp(self.norm2(x))


class Gpt(nn.Module):
    """A small GPT over 512 tokens."""

    def __init__(self, layers: int, width: int, length: int) -> None:
        super().__init__()
        self.tokens = nn.Embedding(512, width)
        self.places = nn.Embedding(length, width)
        self.layers = nn.Sequential(*(Layer(width, 6) for _ in range(layers)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 512, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        places = torch.arange(x.shape[1])
        return self.head(self.norm(self.layers(self.tokens(x) + self.places(places))))


def mlp(size: Size) -> Training:
    """Eight ReLU layers of 1024, batch 256."""
    width = 64 if size == "quick" else 1024
    layers = [part for _ in range(8) for part in (nn.Linear(width, width), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(width, 10))
    x, y = torch.randn(256, width), torch.randint(0, 10, (256,))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    return Training(model, optimizer, x, y)


def cnn(size: Size) -> Training:
    """ResNet-18 on 32 x 32, batch 64, or 16."""
    batch = {"quick": 2, "usual": 16, "full": 64}[size]
    model = ResNet(4 if size == "quick" else 64)
    x, y = torch.randn(batch, 3, 32, 32), torch.randint(0, 10, (batch,))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    return Training(model, optimizer, x, y)


def gpt(size: Size) -> Training:
    """Six layers of width 384, sequences of 256, batch 8, or 2."""
    batch = {"quick": 1, "usual": 2, "full": 8}[size]
    length, width = (16, 12) if size == "quick" else (256, 384)
    model = Gpt(6, width, length)
    x = torch.randint(0, 512, (batch, length + 1))
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4)
    return Training(model, optimizer, x[:, :-1].contiguous(), x[:, 1:].contiguous())


def deep(size: Size) -> Training:
    """Two hundred ReLU layers of 64, batch 32: all calls and no arithmetic, the worst case."""
    count = 10 if size == "quick" else 200
    layers = [part for _ in range(count) for part in (nn.Linear(64, 64), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(64, 10))
    for part in model:
        if isinstance(part, nn.Linear):
            nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
    x, y = torch.randn(32, 64), torch.randint(0, 10, (32,))
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    return Training(model, optimizer, x, y)


WORKLOADS: dict[str, Callable[[Size], Training]] = {
    "mlp": mlp,
    "cnn": cnn,
    "gpt": gpt,
    "deep": deep,
}


def make(name: str, size: Size) -> Training:
    """The training of this name, the same one each time."""
    torch.manual_seed(0)
    return WORKLOADS[name](size)
