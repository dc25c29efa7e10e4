"""What `nndiag watch` says: before the start, and after the end."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def nndiag(cwd: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **variables}
    return subprocess.run(
        [sys.executable, "-m", "nndiag", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=240,
    )


def script(folder: Path, text: str, name: str = "x.py") -> str:
    (folder / name).write_text(textwrap.dedent(text))
    return name


REFUSED = {
    "a missing script": (["missing.py"], "missing.py: no such file"),
    "a missing program": (["--", "no-such-program"], "no such script or program"),
    "a directory": (["empty"], "without a __main__.py"),
    "no script": ([], "watch"),
    "an unknown option": (["--evry", "3", "x.py"], "no such option"),
    "a wrong --every": (["--every", "often", "x.py"], "neither auto nor a number"),
    "--every 0": (["--every", "0", "x.py"], "neither auto nor a number"),
    "--max-steps 0": (["--max-steps", "0", "x.py"], "--max-steps"),
    "an unknown finding": (["--fail-on", "loss-spik", "x.py"], "did you mean loss-spike"),
    "an unknown finding to stop on": (["--stop-on", "dead-rel", "x.py"], "did you mean dead-relu"),
    "a run directory that is a file": (["--run-dir", "x.py", "x.py"], "not a directory"),
    "a run directory under a file": (["--run-dir", "x.py/r", "x.py"], "cannot hold the run"),
    "a run directory that is used": (["--run-dir", "used", "x.py"], "holds a run already"),
    "--attribute": (["--attribute", "lime", "x.py"], "one of: auto, integrated-gradients"),
}


@pytest.mark.parametrize(("arguments", "told"), REFUSED.values(), ids=REFUSED)
def test_refuses_before_anything_is_run_or_written(
    arguments: list[str], told: str, tmp_path: Path
) -> None:
    script(tmp_path, "open('ran', 'w')")
    (tmp_path / "empty").mkdir()
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "run.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    done = nndiag(tmp_path, "watch", *arguments)

    assert done.returncode == 2
    assert done.stdout == ""
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 2
    assert sorted(tmp_path.rglob("*")) == before


def test_a_place_that_cannot_hold_runs_is_told_before_the_start(tmp_path: Path) -> None:
    (tmp_path / "nndiag-runs").touch()
    done = nndiag(tmp_path, "watch", script(tmp_path, "open('ran', 'w')"))

    assert done.returncode == 2
    assert "--run-dir" in done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_program_that_cannot_be_started_leaves_no_run_behind(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELF nothing")
    broken.chmod(0o755)
    done = nndiag(tmp_path, "watch", "--", "./broken")

    assert done.returncode == 2
    assert "could not be started" in done.stderr
    assert not (tmp_path / "nndiag-runs").exists()


def test_a_script_without_torch_is_said_in_one_line(tmp_path: Path) -> None:
    done = nndiag(tmp_path, "watch", script(tmp_path, "print('hi')"))

    assert (done.returncode, done.stdout) == (0, "hi\n")
    recording, nothing = done.stderr.splitlines()
    assert recording.startswith("nndiag: recording to nndiag-runs/x-")
    assert nothing == "nndiag: the script never imported torch: nothing to diagnose"


@pytest.mark.parametrize("flag", ["-I", "-E", "-S"])
def test_a_python_that_ignores_us_is_said(flag: str, tmp_path: Path) -> None:
    name = script(tmp_path, "print('hi')")
    done = nndiag(tmp_path, "watch", "--", sys.executable, flag, name)

    assert (done.returncode, done.stdout) == (0, "hi\n")
    assert f"nndiag: {flag} keeps Python from loading us" in done.stderr


def test_run_directories_do_not_collide_and_stay_out_of_commits(tmp_path: Path) -> None:
    name = script(tmp_path, "")
    for _ in range(3):
        assert nndiag(tmp_path, "watch", name).returncode == 0

    assert len(list(tmp_path.glob("nndiag-runs/x-*/run.json"))) == 3
    assert (tmp_path / "nndiag-runs" / ".gitignore").read_text() == "*\n"


def test_a_module_is_named_in_its_run_directory(tmp_path: Path) -> None:
    script(tmp_path, "", "part.py")
    nndiag(tmp_path, "watch", "-m", "part")

    [manifest] = tmp_path.glob("nndiag-runs/part-*/run.json")
    assert json.loads(manifest.read_text())["script"] == "-m part"


def test_help_tells_of_every_form(tmp_path: Path) -> None:
    done = nndiag(tmp_path, "watch", "--help")

    assert done.returncode == 0
    for word in (
        "SCRIPT",
        "-m MODULE",
        "torchrun",
        "--run-dir",
        "--fail-on",
        "--stop-on",
        "--every",
    ):
        assert word in done.stdout


torch = pytest.importorskip("torch", reason="trainings need torch")

TRAINING = """
    import sys, time, torch
    from torch import nn
    torch.manual_seed(0); torch.set_num_threads(1)
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=float(sys.argv[1]))
    x = torch.randn(64, 8); y = x[:, :3].argmax(1)
    for step in range(int(sys.argv[2])):
        loss = nn.functional.cross_entropy(model(x), y)
        if len(sys.argv) > 3 and step > 50: loss = loss * float('nan')
        optimizer.zero_grad(); loss.backward(); optimizer.step()
        if len(sys.argv) > 3: time.sleep(float(sys.argv[3]))
    print('weights', sum(p.double().sum().item() for p in model.parameters()))
    """


def test_a_training_is_recorded_and_reported_on_standard_error(tmp_path: Path) -> None:
    name = script(tmp_path, TRAINING)
    plain = subprocess.run(
        [sys.executable, name, "0.1", "100"], cwd=tmp_path, capture_output=True, text=True
    )
    done = nndiag(tmp_path, "watch", "--run-dir", "r", name, "0.1", "100")

    assert (done.returncode, done.stdout) == (0, plain.stdout)
    assert "100 steps (0-99)" in done.stderr
    assert "nndiag: the report again: nndiag analyze r" in done.stderr
    again = nndiag(tmp_path, "analyze", "r")
    assert again.returncode == 0
    assert again.stdout.splitlines()[0] in done.stderr


def test_fail_on_changes_the_status_of_a_script_that_succeeds(tmp_path: Path) -> None:
    name = script(tmp_path, TRAINING)
    arguments = (name, "0.1", "100", "0")  # the loss is NaN from step 51 on
    assert nndiag(tmp_path, "watch", *arguments).returncode == 0
    assert nndiag(tmp_path, "watch", "--fail-on", "critical", *arguments).returncode == 1
    assert nndiag(tmp_path, "watch", "--fail-on", "loss-nonfinite", *arguments).returncode == 1
    assert nndiag(tmp_path, "watch", "--fail-on", "overfitting", *arguments).returncode == 0


def test_fail_on_leaves_the_status_of_a_script_that_fails(tmp_path: Path) -> None:
    name = script(tmp_path, textwrap.dedent(TRAINING) + "\nsys.exit(7)")
    done = nndiag(tmp_path, "watch", "--fail-on", "info", name, "0.1", "100", "0")

    assert done.returncode == 7


def test_stop_on_ends_a_run_that_is_lost(tmp_path: Path) -> None:
    name = script(tmp_path, TRAINING)
    done = nndiag(tmp_path, "watch", "--stop-on", "loss-nonfinite", name, "0.1", "100000", "0.02")

    assert done.returncode == -15
    assert "weights" not in done.stdout
    assert "nndiag: stopped the script: loss-nonfinite (--stop-on)" in done.stderr


def test_torch_without_a_step_is_said_in_one_line(tmp_path: Path) -> None:
    done = nndiag(tmp_path, "watch", script(tmp_path, "import torch"))

    assert done.returncode == 0
    assert "no optimizer made a step" in done.stderr.splitlines()[-1]
    assert len(done.stderr.splitlines()) == 2


def test_a_fault_in_our_report_leaves_the_status(tmp_path: Path) -> None:
    """The journal is broken by the script itself."""
    name = script(
        tmp_path,
        textwrap.dedent(TRAINING)
        + "\nimport os, shutil; shutil.rmtree(os.environ['NNDIAG_RUN']); os._exit(6)",
    )
    done = nndiag(tmp_path, "watch", name, "0.1", "30")

    assert done.returncode == 6
    assert "Traceback" not in done.stderr
    assert "nndiag: " in done.stderr.splitlines()[-1]


def test_the_demo_finds_what_is_wrong_with_it(tmp_path: Path) -> None:
    done = nndiag(tmp_path, "demo", "--run-dir", "r")

    assert done.returncode == 0
    assert "epoch 20" in done.stdout
    assert "CRITICAL" in done.stderr
    assert "lower-lr" in done.stderr
    report = json.loads(nndiag(tmp_path, "analyze", "r", "--json").stdout)
    findings = report["runs"][0]["findings"]
    findings += [symptom for finding in findings for symptom in finding["symptoms"]]
    assert "dead-relu" in [finding["name"] for finding in findings]
