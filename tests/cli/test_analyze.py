"""`nndiag analyze` as a user meets it: what is printed, where, and the exit status."""

from __future__ import annotations

import contextlib
import json
import math
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
COLOUR = re.compile(r"\x1b\[[0-9;]*m")
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def loss_log(path: Path, spike: bool = False, steps: int = 600) -> Path:
    """A CSV log of a loss that falls with some noise, with or without one huge spike."""
    lines = ["step,train_ce,loss"]
    for step in range(steps):
        noise = 0.03 * math.sin(12.9898 * step) * math.cos(78.233 * step)
        loss = 2 * math.exp(-step / 150) + 0.4 + noise
        if spike and 400 <= step < 408:
            loss += 9 * 0.6 ** (step - 400)
        lines.append(f"{step},{loss / 2:.5f},{loss:.5f}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_a_healthy_log_is_a_calm_report(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "log.csv")
    done = nndiag("analyze", "log.csv")

    assert (done.returncode, done.stderr) == (0, "")
    first, second, third = done.stdout.splitlines()[:3]
    assert first == "HEALTHY  log.csv  600 steps (0-599)"
    assert second == "nothing is wrong that this log can show"
    assert third.startswith("loss 2.4 -> 0.4") and third.endswith(", read as csv")
    assert "remedies" not in done.stdout


def test_a_sick_log_names_the_finding_and_the_next_command_and_exits_0(
    nndiag: Run, tmp_path: Path
) -> None:
    loss_log(tmp_path / "log.csv", spike=True)
    done = nndiag("analyze", "log.csv")

    assert done.returncode == 0
    assert "loss-spike" in done.stdout.splitlines()[1]
    assert done.stdout.splitlines()[-1].split() == ["next", "nndiag", "explain", "loss-spike"]


def test_json_alone_goes_to_standard_output(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "log.csv", spike=True)
    done = nndiag("analyze", "--json", "log.csv", "missing.csv")

    document = json.loads(done.stdout)
    assert (done.returncode, done.stderr) == (2, "")
    assert [finding["name"] for finding in document["runs"][0]["findings"]] == ["loss-spike"]
    [error] = document["errors"]
    assert "missing.csv" in error["path"]
    assert nndiag("analyze", "--format", "json", "log.csv", "missing.csv").stdout == done.stdout


def test_a_path_that_cannot_be_read_leaves_the_others_reported(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "log.csv")
    (tmp_path / "empty.csv").touch()
    done = nndiag("analyze", "missing.csv", "empty.csv", "log.csv")

    assert done.returncode == 2
    assert "HEALTHY  log.csv" in done.stdout
    assert "2 paths could not be read" in done.stdout
    assert {"missing.csv", "empty.csv"} <= set(done.stderr.replace(":", " ").split())


UNREADABLE: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: None,
    "an empty folder": lambda path: path.mkdir(),
    "an empty file": lambda path: path.touch(),
    "random bytes": lambda path: path.write_bytes(bytes(range(256)) * 40),
    "no loss in it": lambda path: path.write_text("a,b\n1,2\n2,3\n"),
}


@pytest.mark.parametrize("make", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_a_clear_line(
    make: Callable[[Path], object], nndiag: Run, tmp_path: Path
) -> None:
    make(tmp_path / "log")
    done = nndiag("analyze", "log")

    if done.returncode == 0:  # read, but there is no loss to judge
        assert done.stdout.startswith("UNDECIDED  log")
    else:
        assert done.returncode == 2
        assert done.stderr.startswith("log") and "Traceback" not in done.stderr
        assert done.stdout == ""


def test_a_report_can_go_to_a_file(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "log.csv")
    shown = nndiag("analyze", "log.csv").stdout

    assert nndiag("analyze", "log.csv", "-o", "report.txt").stdout == ""
    assert (tmp_path / "report.txt").read_text(encoding="utf-8") == shown
    nndiag("analyze", "log.csv", "--json", "-o", "report.json")
    assert json.loads((tmp_path / "report.json").read_text())["errors"] == []
    refused = nndiag("analyze", "log.csv", "-o", "no/such/folder.txt")
    assert refused.returncode == 2 and "cannot be written" in refused.stderr


def test_findings_are_selected_and_ignored(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "log.csv", spike=True)

    assert "1 finding" not in nndiag("analyze", "log.csv", "--ignore", "loss-spike").stdout
    assert "loss-spike" in nndiag("analyze", "log.csv", "--select", "loss-spike").stdout
    assert "loss-spike" not in nndiag("analyze", "log.csv", "--select", "overfitting").stdout
    typo = nndiag("analyze", "log.csv", "--select", "loss-spik")
    assert typo.returncode == 2 and "loss-spike" in typo.stderr


def test_settings_of_the_project_count(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "log.csv", spike=True)
    (tmp_path / "pyproject.toml").write_text('[tool.nndiag]\nignore = ["loss-spike"]\n')
    assert "1 finding" not in nndiag("analyze", "log.csv").stdout

    (tmp_path / "other.toml").write_text("ignore = []\n")
    assert "loss-spike" in nndiag("analyze", "log.csv", "--config", "other.toml").stdout

    (tmp_path / "pyproject.toml").write_text('[tool.nndiag]\nignore = ["loss-spik"]\n')
    refused = nndiag("analyze", "log.csv")
    assert refused.returncode == 2
    assert "pyproject.toml" in refused.stderr and "loss-spike" in refused.stderr


def test_the_loss_can_be_named(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "log.csv")

    assert "train_ce" in nndiag("analyze", "log.csv", "--loss", "train_ce").stdout
    wrong = nndiag("analyze", "log.csv", "--loss", "train_cee")
    assert wrong.returncode == 2 and "train_ce" in wrong.stderr


def test_formats_that_do_not_exist(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "log.csv")

    assert "no such format" in nndiag("analyze", "log.csv", "--format", "yaml").stderr
    assert "contradicts" in nndiag("analyze", "log.csv", "--json", "--format", "rich").stderr


def test_colour_only_where_it_is_wanted(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "log.csv")

    assert "\x1b" not in nndiag("analyze", "log.csv").stdout
    assert "\x1b[1;32mHEALTHY" in nndiag("analyze", "log.csv", FORCE_COLOR="1", TERM="xterm").stdout
    both = nndiag("analyze", "log.csv", FORCE_COLOR="1", NO_COLOR="1", TERM="xterm").stdout
    assert not any(f"\x1b[{code}" in both for code in ("32", "1;32", "34"))


def test_a_terminal_that_knows_only_ascii_gets_ascii(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "größe.csv", spike=True)
    done = nndiag("analyze", "größe.csv", PYTHONUTF8="0", PYTHONIOENCODING="ascii")

    assert done.returncode == 0
    assert done.stdout.isascii() and "gr\\xf6\\xdfe.csv" in done.stdout


def test_the_same_log_gives_the_same_report(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "log.csv", spike=True)

    reports = {nndiag("analyze", "log.csv", "--json", PYTHONHASHSEED=s).stdout for s in "123"}
    assert len(reports) == 1


def test_of_many_runs_each_is_a_line_that_grep_finds(nndiag: Run, tmp_path: Path) -> None:
    for i in range(7):
        loss_log(tmp_path / f"run{i}.csv", spike=i in (2, 5))
    (tmp_path / "config.csv").write_text("a,b\n1,2\n2,3\n3,4\n")
    done = nndiag("analyze", ".", "missing.csv")

    verdicts = [line.split()[:2] for line in done.stdout.splitlines()[:7]]
    assert [path for _, path in verdicts] == [f"run{i}.csv" for i in (2, 5, 0, 1, 3, 4, 6)]
    assert "7 runs: " in done.stdout and "1 path could not be read" in done.stdout
    assert "nndiag analyze config.csv --loss a" in done.stdout
    assert done.returncode == 2 and done.stderr.startswith("missing.csv: ")
    assert "evidence" not in done.stdout
    assert "evidence" in nndiag("analyze", ".", "-v").stdout


def test_on_a_terminal_the_pages_of_the_worst_come_before_the_overview(
    nndiag: Run, tmp_path: Path
) -> None:
    for i in range(7):
        loss_log(tmp_path / f"run{i}.csv", spike=i in (2, 5))
    shown = nndiag(
        "analyze", ".", FORCE_COLOR="1", NO_COLOR="1", TERM="xterm", COLUMNS="100"
    ).stdout
    plain = COLOUR.sub("", shown)

    assert plain.count("evidence") == 2
    assert plain.rindex("evidence") < plain.index("7 runs  ") < plain.index("next  ")


def test_a_report_does_not_depend_on_the_number_of_processes(nndiag: Run, tmp_path: Path) -> None:
    for i in range(6):
        loss_log(tmp_path / f"run{i}.csv", spike=i == 3, steps=200 + 100 * i)

    alone, both = (nndiag("analyze", ".", "--json", "--jobs", jobs).stdout for jobs in "12")
    assert len(json.loads(alone)["runs"]) == 6 and alone == both
    assert nndiag("analyze", ".", "--jobs", "0").returncode == 2


def test_a_run_that_takes_too_long_is_said_to(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "log.csv")
    done = nndiag("analyze", "log.csv", "--timeout", "0.01")

    assert done.returncode == 2
    assert done.stderr.startswith("log.csv: took longer than 0.01 s")


def children(process: int) -> list[str]:
    """The processes that a process has started and that still run."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, parent = stat.read_text().rpartition(")")[2].split()[:2]
            if int(parent) == process and state != "Z":
                found.append(stat.parent.name)
    return found


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_a_ctrl_c_tells_what_is_known_and_leaves_no_process(tmp_path: Path) -> None:
    for i in range(6):
        loss_log(tmp_path / f"run{i}.csv", spike=i == 3)
    process = subprocess.Popen(
        [sys.executable, "-m", "nndiag", "analyze", "--jobs", "2", ".", "-"],
        stdin=subprocess.PIPE,  # which it waits for at last
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        cwd=tmp_path,
    )
    deadline = time.monotonic() + 60
    while not children(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    while children(process.pid) and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(0.2)  # until it waits
    process.send_signal(signal.SIGINT)
    shown, told = process.communicate(timeout=30)

    assert process.returncode == 130
    assert shown.startswith("critical  run3.csv") or shown.startswith("warning  run3.csv")
    assert "6 runs: " in shown
    assert told == "interrupted: 1 run not analysed\n"


HOSTILE = "\x1b]0;x\x07\x1b[2J\u202eevil\u2066[bold]\n CRITICAL"


@pytest.mark.parametrize("options", [(), ("-v",), ("--json",), ("--format", "rich")])
def test_hostile_names_of_files_and_series_come_out_as_text(
    options: tuple[str, ...], nndiag: Run, tmp_path: Path
) -> None:
    for i in range(6):
        log = loss_log(tmp_path / f"run{i}{HOSTILE}.csv", spike=i == 2)
        log.write_text(log.read_text().replace(",loss", ',"loss\x1b[31m\u202e"'), encoding="utf-8")
    (tmp_path / f"none{HOSTILE}.csv").write_text("a,b\n1,2\n2,3\n3,4\n")
    done = nndiag("analyze", ".", f"missing{HOSTILE}", *options)

    assert done.returncode == 2
    for written in (done.stdout, done.stderr):
        assert not set("\x07\x1b\u202e\u2066") & set(COLOUR.sub("", written))
    lines = done.stdout.splitlines()
    assert not any(line.startswith(" CRITICAL") for line in lines)


@pytest.mark.parametrize("name", ["it's a log.csv", "-log.csv", "-"])
def test_the_command_that_names_the_loss_can_be_pasted(
    name: str, nndiag: Run, tmp_path: Path
) -> None:
    text = "step,my number,b\n" + "".join(f"{i},{2 / (1 + i)},{i}\n" for i in range(40))
    if name != "-":
        (tmp_path / name).write_text(text)
    path = f"./{name}" if name.startswith("-l") else name
    refused = nndiag("analyze", path, stdin=text)
    advice = refused.stderr.partition("name it: nndiag ")[2].partition("  (")[0]

    assert refused.returncode == 2 and "'my number'" in advice
    taken = nndiag(*shlex.split(" ".join(advice.split())), stdin=text)
    assert taken.returncode == 0 and "my number" in taken.stdout
