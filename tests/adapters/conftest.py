"""`train(script)`: runs a script watched and gives back what was recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters.observed import Train, Zygote, train_in


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    pytest.importorskip("torch")
    process = Zygote()
    yield process
    process.close()


@pytest.fixture
def train(tmp_path: Path, zygote: Zygote) -> Train:
    return train_in(tmp_path, zygote)
