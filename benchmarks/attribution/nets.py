"""Nets of a realistic size, untrained: for time and memory it is all one what they learnt.

B samples, T steps or tokens, F features, C channels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class Net:
    """A model, a batch, and its loss."""

    kind: str
    words: str
    model: nn.Module
    inputs: tuple[Tensor, ...]
    targets: Tensor

    def loss_of(self, model: nn.Module) -> Tensor:
        return F.cross_entropy(model(*self.inputs), self.targets)


class Block(nn.Module):
    def __init__(self, c: int) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(c, c, 3, padding=1), nn.Conv2d(c, c, 3, padding=1)
        self.norm_one, self.norm_two = nn.BatchNorm2d(c), nn.BatchNorm2d(c)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        inner = F.relu(self.norm_one(self.one(x_BCHW)))
        return F.relu(x_BCHW + self.norm_two(self.two(inner)))


class Transformer(nn.Module):
    def __init__(self, words: int, width: int, layers: int) -> None:
        super().__init__()
        self.embed = nn.Embedding(words, width)
        layer = nn.TransformerEncoderLayer(width, 4, 4 * width, 0.1, batch_first=True)
        self.layers = nn.TransformerEncoder(layer, layers, enable_nested_tensor=False)
        self.head = nn.Linear(width, 10)

    def forward(self, ids_BT: Tensor) -> Tensor:
        return self.head(self.layers(self.embed(ids_BT)).mean(dim=1))


class Recurrent(nn.Module):
    def __init__(self, features: int, width: int) -> None:
        super().__init__()
        self.gru, self.head = nn.GRU(features, width, 2, batch_first=True), nn.Linear(width, 10)

    def forward(self, x_BTF: Tensor) -> Tensor:
        return self.head(self.gru(x_BTF)[0][:, -1])


def image() -> Net:
    model = nn.Sequential(
        *(nn.Conv2d(3, 32, 3, padding=1), nn.ReLU(), Block(32), nn.MaxPool2d(2), Block(32)),
        *(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(512, 10)),
    )
    x = torch.randn(16, 3, 64, 64)
    return Net("image", "residual net, 3 x 64 x 64", model, (x,), torch.arange(16) % 10)


def tokens() -> Net:
    ids = torch.randint(0, 5000, (16, 128))
    model = Transformer(5000, 128, 4)
    return Net("tokens", "transformer, 4 x 128, 128 tokens", model, (ids,), torch.arange(16) % 10)


def table() -> Net:
    hidden = [part for _ in range(4) for part in (nn.Linear(512, 512), nn.ReLU())]
    model = nn.Sequential(nn.Linear(100, 512), nn.ReLU(), *hidden, nn.Linear(512, 10))
    return Net("tabular", "MLP, 5 x 512", model, (torch.randn(64, 100),), torch.arange(64) % 10)


def sequence() -> Net:
    x = torch.randn(16, 100, 8)
    return Net("sequence", "GRU, 2 x 128", Recurrent(8, 128), (x,), torch.arange(16) % 10)


NETS: tuple[Callable[[], Net], ...] = (image, tokens, table, sequence)
