"""The measurement of attributions still runs, and says what it is to say."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("captum")

ROOT = Path(__file__).parent.parent


def test_one_command_measures_truth_time_memory_and_watching():
    done = subprocess.run(
        [sys.executable, "-W", "ignore", ROOT / "benchmarks" / "attribution" / "run.py", "--quick"],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    assert done.returncode == 0, done.stderr
    rows = [line.split(" | ") for line in done.stdout.splitlines() if line.startswith("| ")]
    shares = {row[2]: float(row[3]) for row in rows if row[:2] == ["| table", "output"][:2]
              and row[3].replace(".", "").isdigit()}  # fmt: skip
    assert len(shares) == 4 and min(shares.values()) > 0.4  # 10 % of the features
    costs = [row for row in rows if row[0] == "| tabular"]
    assert {row[2] for row in costs} >= {"integrated-gradients", "saliency", "layer-conductance"}
    assert any("refused" in row for row in costs)
    assert [row[1] for row in rows[-3:]] == ["bare", "watch", "watch --attribute auto"]
    assert "MB parameters" in rows[-1][4]
