"""The recipes of docs/journal.md do what they say. Libraries that are missing are left out."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

DOCS = Path(__file__).parents[2] / "docs" / "journal.md"
V1 = Path(__file__).parent / "fixtures" / "v1"
LIBRARIES = {
    "pandas": ("pandas", "pyarrow"),
    "polars": ("polars",),
    "DuckDB": ("duckdb", "pyarrow"),
}


def run_recipe(name: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What the recipe called `name` leaves behind when it is run in `folder`."""
    for library in LIBRARIES[name]:
        pytest.importorskip(library)
    [code] = re.findall(rf"### {name}\n.*?```python\n(.*?)```", DOCS.read_text(), re.DOTALL)
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(code, names)
    return names


@pytest.mark.parametrize("name", LIBRARIES)
def test_a_recipe_reads_a_journal(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    left = run_recipe(name, V1, monkeypatch)

    assert len(left["steps"]) == 6 and len(left["metrics"]) == 6
    assert left["lowest"] == 0.22978387773036957


@pytest.mark.parametrize("name", ["pandas", "polars"])
def test_its_columns_are_named(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    left = run_recipe(name, V1, monkeypatch)

    assert list(left["steps"]["lr group-1"]) == [0.02] * 6
    assert math.isnan(list(left["steps"]["loss"])[-1])
    layers = left["frame"]("rank-0/layers-0.arrows")
    assert min(layers["param_norm 0.weight"]) > 0


def test_a_torn_row_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(V1, tmp_path / "run")
    path = tmp_path / "run" / "rank-0" / "steps-0.arrows"
    whole = path.read_bytes()
    for cut in (1, 100, 300):
        path.write_bytes(whole[:-cut])
        left = run_recipe("pandas", tmp_path / "run", monkeypatch)
        assert len(left["steps"]) == 5
