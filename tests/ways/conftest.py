"""`watch(script)`: a script of this folder, run plain and watched, and what was recorded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.conftest import zygote
from tests.adapters.observed import Zygote
from tests.ways.watching import Watch, watch_in

__all__ = ["zygote"]


@pytest.fixture
def watch(tmp_path: Path, zygote: Zygote) -> Watch:
    return watch_in(tmp_path, zygote)
