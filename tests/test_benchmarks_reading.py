"""The measurement of the readers' speed still runs, and says what it is to say."""

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDER = ROOT / "benchmarks" / "reading"


def test_one_command_measures_all_readers(tmp_path):
    out = tmp_path / "lines.json"
    done = subprocess.run(
        [sys.executable, FOLDER / "run.py", "--quick", "--out", out],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    assert done.returncode == 0, done.stderr
    lines = {line["what"]: line for line in json.loads(out.read_text())}
    for begins in ("CSV, ", "its diagnosis", "text, ", "text of", "JSON, ", "trainer_state.json"):
        [what] = [what for what in lines if what.startswith(begins)]
        assert float(lines[what]["ours"].split()[0]) > 0
        assert lines[what]["what"] in done.stdout


def test_a_library_that_is_missing_is_said_and_not_measured():
    program = (
        f"import sys; sys.path.insert(0, {str(FOLDER)!r}); sys.modules['tensorboard'] = None\n"
        "import types; fake = types.ModuleType('fake')\n"
        "def measure(): import tensorboard\n"
        "fake.measure = measure; sys.modules['fake'] = fake\n"
        "import run; print(*run.by_values('TensorBoard', 'fake', 'EventAccumulator'))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    assert "tensorboard is not installed" in done.stdout, done.stderr


def test_the_readme_names_the_command_and_every_line():
    readme = (FOLDER / "README.md").read_text()

    assert "python benchmarks/reading/run.py" in readme
    for word in ("EventAccumulator", "protobuf", "polars", "pandas", "json.loads", "2 GB"):
        assert word in readme
