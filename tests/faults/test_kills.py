"""F18, F19, F21: SIGKILL, SIGTERM and SIGINT at random times; the soak does a thousand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent


def test_fifty_kills_lose_no_acknowledged_step(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "soak" / "kills.py", "--kills", "50"],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)},
        capture_output=True,
        text=True,
    )

    told = json.loads(done.stdout)
    assert (told["kills"], told["wrong"]) == (50, [])
    assert told["while training"] > 10 and done.returncode == 0
