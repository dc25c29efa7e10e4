"""`nndiag preflight`: what it runs, says and leaves behind, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

TRAIN = """
import torch
from torch import nn
torch.manual_seed(0)
model = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 4))
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
print("a word of the script")
for step in range(1000):
    x = torch.randn(64, 8)
    {before}
    loss = nn.functional.cross_entropy(model(x), x[:, :4].argmax(1))
    loss.backward()
    optimizer.step()
    {after}
"""


# Stands for a training without importing torch: leaves the journal of a sample run where its own
# would be.
REPLAY = """
import os, shutil, time
shutil.copytree({run!r}, os.path.join(os.environ["NNDIAG_RUN"], "rank-0"))
{after}
"""


def replay(sample: str, after: str = "") -> str:
    return REPLAY.format(run=str(ROOT / "sample_runs" / sample / "run" / "rank-0"), after=after)


def training(before: str = "optimizer.zero_grad()", after: str = "") -> str:
    return TRAIN.format(before=before, after=after)


def environment(**variables: str) -> dict[str, str]:
    left_out = ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY", "FORCE_COLOR", "NO_COLOR")
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return {**kept, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", **variables}


def preflight(
    folder: Path, text: str, *options: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    (folder / "x.py").write_text(textwrap.dedent(text))
    (folder / "tmp").mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "nndiag", "preflight", *options, "x.py"],
        cwd=folder,
        env=environment(TMPDIR=str(folder / "tmp"), **variables),
        capture_output=True,
        text=True,
        timeout=240,
    )


def leaves_nothing(folder: Path) -> bool:
    """Nothing of ours: torch makes a folder of its own among the temporary files."""
    here = sorted(path.name for path in folder.iterdir())
    return here == ["tmp", "x.py"] and not any((folder / "tmp").glob("nndiag*"))


def test_a_healthy_script_passes_in_a_few_lines_and_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    done = preflight(tmp_path, training())

    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[0].startswith("HEALTHY  x.py  first 20 steps, then stopped")
    assert "a word of the script" not in done.stdout
    assert "chance is 1.386 (ln 4)" in done.stdout
    assert lines[-2].startswith("PASSED")
    assert len(lines) < 20 and max(map(len, lines)) <= 100
    assert leaves_nothing(tmp_path)


def test_a_sick_script_fails_by_name_as_json_for_programs(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    done = preflight(tmp_path, training(before=""), "--json", "--steps", "12")

    assert done.returncode == 1
    told = json.loads(done.stdout)
    [run] = told["runs"]
    states = {check["name"]: check["state"] for check in run["checks"]}
    assert (told["schema"], run["path"]) == ("nndiag.report/1", "x.py")
    assert [finding["name"] for finding in run["findings"]] == ["missing-zero-grad"]
    assert states["zero_grad"] == "wrong" and states["loss"] == "ok"
    assert run["preflight"]["steps"] == 12 and run["preflight"]["ended"] == "stopped"
    assert told["check"]["status"] == 1


def test_what_is_ignored_does_not_fail_and_is_still_worth_a_look(tmp_path: Path) -> None:
    sick = replay("dead_relu")
    done = preflight(tmp_path, sick, "--steps", "5000", "--ignore", "dead-relu,loss-spike")

    assert done.returncode == 0, done.stdout
    assert "look     dead units" in done.stdout
    assert "the script ended by itself after 800 of 5000 steps" in done.stdout


def test_a_script_that_fails_before_its_first_step_shows_its_traceback(tmp_path: Path) -> None:
    done = preflight(tmp_path, "print('loading')\nraise LookupError('no data')")

    assert done.returncode == 2
    assert done.stdout == ""
    assert "LookupError: no data" in done.stderr and "  loading" in done.stderr
    assert "x.py: failed with exit status 1 before its first optimizer step" in done.stderr
    assert leaves_nothing(tmp_path)


def test_a_script_that_fails_on_its_way_is_judged_so_far_and_not_passed(tmp_path: Path) -> None:
    failing = replay("healthy_mlp", "raise MemoryError('full')")
    done = preflight(tmp_path, failing, "--steps", "5000")

    assert done.returncode == 2
    assert "first 768 steps, then it failed" in done.stdout
    assert "PASSED" not in done.stdout
    assert "MemoryError: full" in done.stderr
    assert "failed with exit status 1 after 768 steps" in done.stderr


NOTHING = {
    "no torch": ("print('hi')", "never imported torch"),
    "no step": ("import torch", "no optimizer made a step"),
}


@pytest.mark.parametrize(("text", "told"), NOTHING.values(), ids=NOTHING)
def test_no_training_is_an_error_that_says_what_to_do(text: str, told: str, tmp_path: Path) -> None:
    if "torch" in text:
        pytest.importorskip("torch")
    done = preflight(tmp_path, text, "--json")

    assert done.returncode == 2
    [error] = json.loads(done.stdout)["errors"]
    assert told in error["what"] and "arguments" in error["do"]


def test_a_script_that_takes_too_long_to_begin_is_stopped_and_shows_where_it_was(
    tmp_path: Path,
) -> None:
    waits = "import time\ndef load():\n    time.sleep(600)\nload()\n"
    done = preflight(tmp_path, waits, "--timeout", "2")

    assert done.returncode == 2
    assert "no optimizer step within 2 s" in done.stderr and "--timeout" in done.stderr
    assert "in load" in done.stderr


def test_a_time_limit_on_the_way_judges_the_steps_that_were_made(tmp_path: Path) -> None:
    slow = replay("healthy_mlp", "time.sleep(600)")
    done = preflight(tmp_path, slow, "--steps", "5000", "--timeout", "3")

    assert done.returncode == 0, done.stdout + done.stderr
    assert "first 768 steps, then the time was over" in done.stdout
    assert "stopped after 3 s (--timeout), before step 5000" in done.stdout


WORKERS = """
import multiprocessing, time
def forever():
    time.sleep(600)
if __name__ == "__main__":
    multiprocessing.set_start_method("fork")
    child = multiprocessing.Process(target=forever, daemon=True)
    child.start()
    with open("pid", "w") as file:
        file.write(str(child.pid))
    import os, subprocess, sys
    other = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"],
                             start_new_session=True)
    with open("pid", "a") as file:
        file.write(f" {other.pid}")
"""


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="processes are found by /proc")
def test_processes_of_the_script_do_not_outlive_it(tmp_path: Path) -> None:
    done = preflight(tmp_path, WORKERS)
    pids = [int(word) for word in (tmp_path / "pid").read_text().split()]

    assert done.returncode == 2
    assert len(pids) == 2 and not any(map(is_alive, pids))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_script_too_and_leaves_nothing(number: int, tmp_path: Path) -> None:
    (tmp_path / "tmp").mkdir()
    text = "import os, time\nopen('pid', 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    (tmp_path / "x.py").write_text(text)
    running = subprocess.Popen(
        [sys.executable, "-m", "nndiag", "preflight", "x.py"],
        cwd=tmp_path,
        env=environment(TMPDIR=str(tmp_path / "tmp")),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    while not (tmp_path / "pid").exists() or not (tmp_path / "pid").read_text():
        assert time.monotonic() < until
        time.sleep(0.05)
    running.send_signal(number)
    told = "".join(running.communicate(timeout=60))

    assert running.returncode == (130 if number == signal.SIGINT else -number)
    assert not is_alive(int((tmp_path / "pid").read_text()))
    assert "Traceback" not in told
    assert not any((tmp_path / "tmp").iterdir())


REFUSED = {
    "a missing script": (["missing.py"], "missing.py: no such file"),
    "no script": ([], "preflight"),
    "an unknown option": (["--stepps", "3", "x.py"], "nndiag preflight --help"),
    "an unknown finding": (["--ignore", "dead-rel", "x.py"], "did you mean dead-relu"),
    "no steps": (["--steps", "0", "x.py"], "--steps"),
    "an unknown format": (["--format", "pdf", "x.py"], "no such format"),
    "a Python that keeps us out": (["--", "python3", "-I", "x.py"], "-I keeps Python from"),
}


@pytest.mark.parametrize(("arguments", "told"), REFUSED.values(), ids=REFUSED)
def test_refuses_before_anything_is_run(
    arguments: list[str], told: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from nndiag.cli.app import main

    (tmp_path / "x.py").write_text("open('ran', 'w')")
    before = os.getcwd()
    os.chdir(tmp_path)
    try:
        status = main(["preflight", *arguments])
    finally:
        os.chdir(before)
    shown = capsys.readouterr()

    assert (status, shown.out) == (2, "")
    assert told in shown.err
    assert [path.name for path in tmp_path.iterdir()] == ["x.py"]


@pytest.mark.parametrize("name", ["NNDIAG_RUN", "TORCHELASTIC_RUN_ID"])
def test_refuses_inside_a_watched_run_and_in_a_rank(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nndiag.cli.app import main

    monkeypatch.setenv(name, "something")
    (tmp_path / "x.py").touch()

    assert main(["preflight", str(tmp_path / "x.py")]) == 2
    assert capsys.readouterr().err.startswith("nndiag preflight:")


def test_a_run_directory_that_was_asked_for_is_kept_and_can_be_analysed(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    done = preflight(tmp_path, training(), "--run-dir", "kept", "-o", "report.txt", "--show-output")

    assert done.returncode == 0, done.stderr
    assert done.stdout == "" and "a word of the script" in done.stderr
    assert (tmp_path / "report.txt").read_text().startswith("HEALTHY  x.py")
    assert (tmp_path / "kept" / "run.json").exists()


def test_in_github_actions_annotations_and_summary_are_written(tmp_path: Path) -> None:
    summary = tmp_path / "summary.md"
    done = preflight(
        tmp_path,
        replay("dead_relu"),
        *("--steps", "5000"),
        GITHUB_ACTIONS="true",
        GITHUB_STEP_SUMMARY=str(summary),
    )

    assert done.returncode == 1
    assert any(line.startswith("::") for line in done.stdout.splitlines())
    assert "dead-relu" in summary.read_text()


def test_junit_lists_only_what_a_first_look_asks(tmp_path: Path) -> None:
    done = preflight(tmp_path, replay("healthy_mlp"), "--steps", "5000", "--format", "junit")

    assert done.returncode == 0
    assert "dead-relu" in done.stdout and "loss-plateau" not in done.stdout
