"""What the tests of attributions share: one thread, one seed, scripts in forks of one process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.adapters.conftest import train, zygote

__all__ = ["train", "zygote"]


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    """For the same numbers on every machine; the models are too small for more."""
    torch = pytest.importorskip("torch")
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def seed() -> Iterator[None]:
    torch = pytest.importorskip("torch")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield
