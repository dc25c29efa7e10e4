"""Models with planted features, trained once for all tests of a session."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache

import pytest

pytest.importorskip("torch")
pytest.importorskip("captum")

import torch
import torch.nn.functional as F
from torch import nn

from tests.attribution import trainings as t


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """For the same numbers on every machine; the models are too small for more."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


@cache
def trained(name: str) -> t.Trained:
    """One of the models of `MAKE`."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return MAKE[name]()


def _image(bright: float, noise: float, ground: float) -> t.Trained:
    draw = t.image_draw(bright, noise, ground)
    planted = {"0": (slice(None), slice(4, 8), slice(8, 12))}
    return t.trained("image", t.Cnn(), draw, F.cross_entropy, planted, lambda y: y == 1, 60)


def _words(way: str) -> t.Trained:
    planted = {"input_ids": t.PLACE}
    return t.trained(way, t.Words(way), t.word_draw, t.of_logits, planted, lambda y: y == 1, 100)


def _table() -> t.Trained:
    model = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Dropout(0.1), nn.Linear(32, 2))
    planted = {"0": [3, 11]}
    return t.trained("table", model, t.table_draw, F.cross_entropy, planted, lambda y: y >= 0, 300)


def _steps(way: str) -> t.Trained:
    draw, has = t.step_draw, lambda y: y == 1
    return t.trained(way, t.Steps(way), draw, F.cross_entropy, {"0": (6, 2)}, has, 100)


def _two() -> t.Trained:
    planted = {"0": 4, "ids": 2}
    return t.trained("two", t.Two(), t.two_draw, t.of_two, planted, lambda y: y > -9, 400, 0.02)


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
