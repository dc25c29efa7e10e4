"""Small models trained in the test, with features that are known to decide; and their batches.

What is captured goes the way of a watched run: the code that the hooks call, files on the disk.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nndiag.adapters.base import Capture
from nndiag.adapters.pytorch.captures import Captures
from nndiag.adapters.pytorch.leaps import Leaps
from nndiag.attribution.attribute import Request, Result, attribute
from nndiag.attribution.captured import Captured, read_capture
from nndiag.watcher import capture_files


class Recorded:
    """A sink that writes captures down, and keeps the notes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.notes: list[str] = []

    def capture(self, capture: Capture, replaces: str = "") -> None:
        capture_files.write(str(self.folder), capture, replaces)

    def note(self, text: str) -> None:
        self.notes.append(text)


class AlwaysLeaps(Leaps):
    """Whatever the loss is, it is far above those before."""

    def score(self, loss: float) -> float:
        return 100.0 if math.isfinite(loss) else math.inf


class Watched:
    """A model whose calls and backward passes are followed as in a watched training."""

    def __init__(self, model: nn.Module, folder: Path) -> None:
        self.model = model
        self.sink = Recorded(folder)
        self.parts = SimpleNamespace(
            forward=SimpleNamespace(recording=True),
            stats=SimpleNamespace(modules={id(model): model}),
            observers=SimpleNamespace(steps=7, of_parameters=lambda parameters: None),
            sink=self.sink,
        )
        self.captures = Captures(self.parts)  # type: ignore[arg-type]
        self.captures._choose([model])
        self._handle = model.register_forward_hook(
            lambda module, args, kwargs, output: self.captures.saw_call(args, kwargs, output),
            with_kwargs=True,
        )

    def backward(self, loss: Tensor, *, leaps: bool = True) -> None:
        """What the tap on backward does; `leaps`: all losses before were small."""
        if leaps:
            self.captures._leaps = AlwaysLeaps()
        with torch.no_grad():
            self.captures.saw_backward([loss], float(loss))

    def end(self) -> None:
        self.captures.end_step()
        self.captures.end()
        self._handle.remove()

    def read(self, name: str = "step-7") -> Captured:
        return read_capture(str(self.sink.folder / "captures" / name))


def capture(
    folder: Path,
    model: nn.Module,
    loss_of: Callable[[nn.Module], Tensor],
    *,
    why: str = "spike",
) -> Captured:
    """The batch of one backward call: `loss_of` calls the model."""
    watched = Watched(model, folder)
    watched.backward(loss_of(model), leaps=why == "spike")
    watched.end()
    found = watched.read("step-7" if why == "spike" else "end")
    return replace(found, why=why)


def ask(
    model: nn.Module,
    captured: Captured,
    method: str = "integrated-gradients",
    weights: Mapping[str, Tensor] | None = None,
    **asked: Any,
) -> Result:
    return attribute(model, captured, weights, Request(method=method, **asked))


def share(result: Result, planted: Mapping[str, Any], sample: int = 0) -> float:
    """Share of |attribution| of one sample on the planted places: input name -> index."""
    inside = total = 0.0
    for i, feature in enumerate(result.features):
        found = result.samples[sample].found.values[i][0].abs().double()
        total += float(found.sum())
        if feature.name in planted:
            inside += float(found[planted[feature.name]].sum())
    return inside / total if total else 0.0


@dataclass(frozen=True)
class Trained:
    """A trained model, a batch of its data, and where the planted features are."""

    name: str
    model: nn.Module
    args: tuple[Tensor, ...]
    kwargs: dict[str, Tensor]
    targets: Tensor
    loss: Callable[[Any, Tensor], Tensor]
    planted: Mapping[str, Any]
    rows: tuple[int, ...]  # samples in which they are there

    def loss_of(self, model: nn.Module) -> Tensor:
        return self.loss(model(*self.args, **self.kwargs), self.targets)


def fit(
    model: nn.Module, batches: Callable[[], Tensor], steps: int = 150, lr: float = 0.01
) -> nn.Module:
    """Train it: `batches()` draws a batch and gives its loss."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        batches().backward()
        optimizer.step()
    return model


def train(
    name: str,
    model: nn.Module,
    draw: Callable[[], tuple[tuple[Tensor, ...], dict[str, Tensor], Tensor]],
    loss: Callable[[Any, Tensor], Tensor],
    planted: Mapping[str, Any],
    has: Callable[[Tensor], Iterable[bool]],
    steps: int = 150,
    lr: float = 0.01,
) -> Trained:
    def one() -> Tensor:
        args, kwargs, targets = draw()
        return loss(model(*args, **kwargs), targets)

    fit(model, one, steps, lr)
    args, kwargs, targets = draw()
    rows = tuple(i for i, there in enumerate(has(targets)) if there)
    return Trained(name, model, args, kwargs, targets, loss, planted, rows)


# -- models and data


class Cnn(nn.Module):
    """Two convolutions with batch norm; functional and in-place ReLU."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.norm, self.relu = nn.BatchNorm2d(8), nn.ReLU(inplace=True)
        self.head = nn.Linear(8 * 16, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.one(x))), 2)
        x = self.relu(self.two(x))
        return self.head(F.adaptive_avg_pool2d(x, 4).flatten(1))


def image_draw(bright: float, noise: float, ground: float) -> Callable[[], Any]:
    def draw() -> Any:
        x = ground + noise * torch.randn(16, 3, 16, 16)
        y = torch.arange(16) % 2
        x[y == 1, :, 4:8, 8:12] = bright
        return (x,), {}, y

    return draw


class Words(nn.Module):
    """Token ids to two classes, in one of three ways."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.embed = nn.Embedding(50, 16, padding_idx=0)
        if way == "lstm":
            self.mix: nn.Module = nn.LSTM(16, 16, batch_first=True)
        elif way == "attention":
            self.mix = nn.TransformerEncoderLayer(16, 2, 32, 0.1, batch_first=True)
        self.head = nn.Linear(16, 2)

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> Any:
        mask = input_ids.new_ones(input_ids.shape) if attention_mask is None else attention_mask
        x = self.embed(input_ids)
        if self.way == "lstm":
            x = self.mix(x)[0]
        elif self.way == "attention":
            x = self.mix(x, src_key_padding_mask=mask == 0)
        x = (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)
        return SimpleNamespace(logits=self.head(x))


TOKEN, PLACE = 7, 5


def word_draw() -> Any:
    ids = torch.randint(8, 50, (16, 12))
    y = torch.arange(16) % 2
    ids[y == 1, PLACE] = TOKEN
    mask = torch.ones_like(ids)
    mask[:, 10:] = 0
    return (), {"input_ids": ids, "attention_mask": mask}, y


def of_logits(out: Any, y: Tensor) -> Tensor:
    return F.cross_entropy(out.logits, y)


def table_draw() -> Any:
    x = torch.randn(32, 20)
    return (x,), {}, (x[:, 3] - x[:, 11] > 0).long()


class Steps(nn.Module):
    """(B, T, F) by a GRU or a convolution over time."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way
        self.gru = nn.GRU(4, 16, batch_first=True)
        self.conv, self.head = nn.Conv1d(4, 16, 3, padding=1), nn.Linear(16, 2)

    def forward(self, x: Tensor) -> Tensor:
        if self.way == "gru":
            return self.head(self.gru(x)[0].mean(1))
        return self.head(torch.relu(self.conv(x.transpose(1, 2))).mean(2))


def step_draw() -> Any:
    x = 0.5 * torch.randn(16, 10, 4)
    y = torch.arange(16) % 2
    x[y == 1, 6, 2] += 6.0
    return (x,), {}, y


class Two(nn.Module):
    """A table and words."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.table, self.head = nn.Embedding(50, 8), nn.Linear(5, 8), nn.Linear(16, 1)

    def forward(self, table: Tensor, *, ids: Tensor) -> dict[str, Tensor]:
        mixed = torch.cat([self.table(table), self.embed(ids).mean(1)], dim=1)
        return {"aux": mixed.detach(), "logits": self.head(torch.tanh(mixed))}


def two_draw() -> Any:
    table, ids = torch.randn(32, 5), torch.randint(8, 50, (32, 6))
    has = torch.rand(32) < 0.5
    ids[has, 2] = TOKEN
    return (table,), {"ids": ids}, 2 * table[:, 4] + 2 * has.float()


def of_two(out: Any, y: Tensor) -> Tensor:
    return F.mse_loss(out["logits"].squeeze(1), y)


# -- all of them, trained once


@cache
def trained(name: str) -> Trained:
    """One of the models of `MAKE`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MAKE[name]()


def _image(bright: float, noise: float, ground: float) -> Trained:
    draw = image_draw(bright, noise, ground)
    planted = {"0": (slice(None), slice(4, 8), slice(8, 12))}
    return train("image", Cnn(), draw, F.cross_entropy, planted, lambda y: y == 1, 60)


def _words(way: str) -> Trained:
    planted = {"input_ids": PLACE}
    return train(way, Words(way), word_draw, of_logits, planted, lambda y: y == 1, 100)


def _table() -> Trained:
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 2))
    planted = {"0": [3, 11]}
    return train("table", model, table_draw, F.cross_entropy, planted, lambda y: y >= 0, 300)


def _steps(way: str) -> Trained:
    draw, has = step_draw, lambda y: y == 1
    return train(way, Steps(way), draw, F.cross_entropy, {"0": (6, 2)}, has, 100)


def _two() -> Trained:
    planted = {"0": 4, "ids": 2}
    return train("two", Two(), two_draw, of_two, planted, lambda y: y > -9, 400, 0.02)


MAKE = {
    "image": lambda: _image(2.0, 0.5, 0.0),
    "dark patch": lambda: _image(0.0, 0.05, 0.8),
    "pooled words": lambda: _words("pool"),
    "attended words": lambda: _words("attention"),
    "lstm words": lambda: _words("lstm"),
    "table": _table,
    "gru": lambda: _steps("gru"),
    "conv1d": lambda: _steps("conv"),
    "two inputs": _two,
}
