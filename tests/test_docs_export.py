"""docs/export.md and docs/wandb.md: examples run, and names are those of the program."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nndiag.exports.csv_tables import FINDINGS
from nndiag.watcher import headlines
from nndiag.watcher.wandb_findings import MOST_ALERTS
from nndiag.watcher.wandb_mirror import ANALYSIS_S

ROOT = Path(__file__).parent.parent
EXPORT = (ROOT / "docs" / "export.md").read_text(encoding="utf-8")
WANDB = (ROOT / "docs" / "wandb.md").read_text(encoding="utf-8")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_the_recipe_reads_what_was_exported(
    nndiag: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for library in ("pandas", "polars", "pyarrow"):
        pytest.importorskip(library)
    shutil.copytree(ROOT / "sample_runs" / "spike_recovered" / "run", tmp_path / "run")
    for form in ("parquet", "csv", "jsonl"):
        assert nndiag("export", "run", "--to", form).stdout == f"run-{form}\n"
    [code] = re.findall(r"```python\n(.*?)```", EXPORT, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    left: dict[str, Any] = {}

    exec(code, left)

    assert left["steps"].loc[420, "loss"] == left["same"]["loss"][420] > 12
    assert set(left["norms"].columns) == {
        f"{layer}.{kind}" for layer in (0, 2, 4) for kind in ("bias", "weight")
    }
    assert left["norms"].shape[0] > 50 and not left["norms"].isna().any().any()
    assert left["findings"]["name"].to_list() == ["loss-spike"]


def test_every_headline_is_in_the_table() -> None:
    names = [*headlines.WHOLE, headlines.NONFINITE, *(one.name for one in headlines.EXTREMES)]

    missing = [name for name in names if name.rpartition("/")[2] not in WANDB]
    assert len(names) == 13 and missing == []


def test_numbers_and_names_are_those_of_the_program() -> None:
    assert f"given up after {ANALYSIS_S:.0f} s" in WANDB
    assert f"{MOST_ALERTS} at most" in WANDB
    named = set(re.findall(r"`(\w+)`", EXPORT))
    assert set(FINDINGS) <= named
