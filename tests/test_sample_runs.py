"""Each sample run is diagnosed exactly as its expected.json says, and its script really runs."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SAMPLES = ROOT / "sample_runs"
NAMES = sorted(path.parent.name for path in SAMPLES.glob("*/train.py"))
_spec = importlib.util.spec_from_file_location("record", SAMPLES / "record.py")
assert _spec is not None and _spec.loader is not None
record = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(record)


def expected(name: str) -> dict:
    return json.loads((SAMPLES / name / "expected.json").read_text(encoding="utf-8"))


def test_there_are_at_least_ten_and_two_of_them_are_healthy():
    verdicts = [expected(name)["verdict"] for name in NAMES]

    assert len(verdicts) >= 10
    assert verdicts.count("healthy") >= 2


@pytest.mark.parametrize("name", NAMES)
def test_its_log_is_diagnosed_as_expected(name: str):
    assert json.loads(json.dumps(record.expected(SAMPLES / name))) == expected(name)


@pytest.mark.parametrize("name", NAMES)
def test_its_readme_tells_what_was_done_and_the_lesson(name: str):
    text = (SAMPLES / name / "README.md").read_text(encoding="utf-8")

    for finding in expected(name)["findings"]:
        assert finding["name"] in text


@pytest.mark.parametrize("name", NAMES)
def test_its_script_run_anew_is_diagnosed_alike(name: str, tmp_path: Path):
    pytest.importorskip("torch", reason="the scripts train with torch")
    command = [
        sys.executable,
        "-m",
        "nndiag",
        "watch",
        "--no-live",
        "--run-dir",
        str(tmp_path / "run"),
    ]
    script = SAMPLES / name / "train.py"
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    watched = subprocess.run(
        [*command, str(script)], capture_output=True, text=True, env=environment
    )
    found = record.expected(tmp_path)

    assert watched.returncode == 0
    assert found["verdict"] == expected(name)["verdict"]
    assert main_name(found) == main_name(expected(name))


def main_name(diagnosis: dict) -> str:
    """Last bits of a sum differ between machines; the first finding must not."""
    return next((f["name"] for f in diagnosis["findings"] if f["severity"] != "info"), "")
