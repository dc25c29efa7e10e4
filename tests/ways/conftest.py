"""`watch(script)`: a script of this folder, run plain and watched, and what was recorded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.adapters.observed import Zygote
from tests.ways.watching import Watch, watch_in


@pytest.fixture(scope="session")
def zygote() -> Iterator[Zygote]:
    pytest.importorskip("torch")
    process = Zygote()
    yield process
    process.close()


@pytest.fixture
def watch(tmp_path: Path, zygote: Zygote) -> Watch:
    return watch_in(tmp_path, zygote)
