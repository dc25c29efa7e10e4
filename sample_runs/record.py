"""Record the sample runs anew: `python sample_runs/record.py [NAME...]`, all without a name.

Each folder's train.py runs under `nndiag watch`; the run directory replaces the folder's `run/`.
What `nndiag analyze` says of it goes to expected.json: read it in the diff before you commit it.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import nndiag

HERE = Path(__file__).parent
OPTIONS = {"broken_sample": ("--attribute", "auto")}


def record(folder: Path) -> None:
    run = folder / "run"
    shutil.rmtree(run, ignore_errors=True)
    watch = [sys.executable, "-m", "nndiag", "watch", "--no-live", *OPTIONS.get(folder.name, ())]
    command = [*watch, "--run-dir", "run", "train.py"]
    one_thread = os.environ | {"OMP_NUM_THREADS": "1"}
    subprocess.run(command, cwd=folder, check=True, env=one_thread, capture_output=True)
    for marker in run.glob("attached-*"):
        marker.unlink()
    text = json.dumps(expected(folder), indent=2, ensure_ascii=False)
    (folder / "expected.json").write_text(text + "\n", encoding="utf-8")


def expected(folder: Path) -> dict[str, object]:
    """What is compared of a diagnosis: all that a user acts on, without wording and statistics."""
    [diagnosis] = nndiag.analyze(folder).diagnoses
    return {
        "verdict": str(diagnosis.verdict),
        "findings": [
            {
                "name": finding.name,
                "severity": str(finding.severity),
                "layers": list(finding.layers),
                "step_start": finding.step_start,
                "step_end": finding.step_end,
                "symptoms": [symptom.name for symptom in finding.symptoms],
                "remedies": [
                    {"name": r.name, "setting": r.setting, "from": r.old, "to": r.new}
                    for r in finding.remedies
                ],
            }
            for finding in diagnosis.findings
        ],
    }


if __name__ == "__main__":
    names = sys.argv[1:] or sorted(path.parent.name for path in HERE.glob("*/train.py"))
    for name in names:
        record(HERE / name)
        print(name, flush=True)
