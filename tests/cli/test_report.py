"""`nndiag report` and `--format html` as a user meets them: files, exit status, what is told."""

from __future__ import annotations

import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from nndiag.cli import output
from nndiag.cli.report import OURS
from nndiag.errors import BadUsage
from tests.cli.test_analyze import loss_log
from tests.reports.html_data import Tags, blocks

ROOT = Path(__file__).parent.parent.parent
SAMPLES = ROOT / "sample_runs"
Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_a_page_is_written_and_its_size_is_told(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "log.csv", spike=True)
    done = nndiag("report", "log.csv", "-o", "page.html")

    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("page.html: 1 run, 0.") and done.stderr.endswith(" MB\n")
    text = Tags((tmp_path / "page.html").read_text(encoding="utf-8")).text
    assert "loss-spike" in text and "log.csv" in text


def test_layers_are_on_the_page_of_one_run_and_of_several(nndiag: Run, tmp_path: Path) -> None:
    one, two = SAMPLES / "dead_relu" / "run", SAMPLES / "healthy_mlp" / "run"
    assert nndiag("report", one, "-o", "one.html").returncode == 0
    assert nndiag("report", one, two, "-o", "two.html", "--jobs", "2").returncode == 0

    [alone] = blocks((tmp_path / "one.html").read_text(encoding="utf-8"))
    first, second = blocks((tmp_path / "two.html").read_text(encoding="utf-8"))
    assert alone["layers"]["names"] == first["layers"]["names"] and second["layers"]
    assert [t["key"] for t in alone["tracks"]] == [t["key"] for t in first["tracks"]]


def test_a_path_that_cannot_be_read_is_status_2_and_the_others_are_shown(
    nndiag: Run, tmp_path: Path
) -> None:
    loss_log(tmp_path / "log.csv")
    done = nndiag("report", "log.csv", "missing.csv", "-o", "page.html")

    assert done.returncode == 2 and "missing.csv" in done.stderr
    text = Tags((tmp_path / "page.html").read_text(encoding="utf-8")).text
    assert "log.csv" in text and "missing.csv" in text


def test_where_nothing_could_be_read_no_page_is_written(nndiag: Run, tmp_path: Path) -> None:
    done = nndiag("report", "missing.csv", "-o", "page.html")

    assert done.returncode == 2 and "missing.csv" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_without_a_name_the_page_has_ours_and_replaces_only_a_page_of_ours(
    nndiag: Run, tmp_path: Path
) -> None:
    loss_log(tmp_path / "log.csv")
    page = tmp_path / "nndiag-report.html"
    for _ in range(2):
        done = nndiag("report", "log.csv")
        assert done.returncode == 0 and done.stderr.startswith("nndiag-report.html: ")
    assert OURS in page.read_bytes()

    page.write_text("<p>mine</p>")
    refused = nndiag("report", "log.csv")
    assert refused.returncode == 2 and "no page of ours" in refused.stderr
    assert page.read_text() == "<p>mine</p>"


def test_analyze_and_check_write_the_page_to_standard_output(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "log.csv", spike=True)
    analyzed = nndiag("analyze", "log.csv", "--format", "html")
    checked = nndiag("check", "log.csv", "--format", "html")

    assert (analyzed.returncode, checked.returncode) == (0, 1)
    for done in (analyzed, checked):
        assert done.stdout.startswith("<!doctype html>") and done.stdout.endswith("</html>")
        assert "loss-spike" in Tags(done.stdout).text
    assert "check: failed" in Tags(checked.stdout).text
    assert "check:" not in Tags(analyzed.stdout).text


def test_check_writes_a_page_to_a_file_and_tells_its_verdict(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "log.csv", spike=True)
    done = nndiag("check", "log.csv", "--format", "html", "-o", "page.html")

    assert done.returncode == 1 and "FAILED" in done.stderr
    assert (tmp_path / "page.html").read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_browser_is_opened_only_when_asked(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "log.csv")
    seen = tmp_path / "seen"
    browser = tmp_path / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" >> {seen}\n')
    browser.chmod(0o755)

    assert nndiag("report", "log.csv", BROWSER=str(browser)).returncode == 0
    assert not seen.exists()
    assert nndiag("report", "log.csv", "--open", BROWSER=str(browser)).returncode == 0
    assert seen.read_text().strip() == (tmp_path / "nndiag-report.html").as_uri()


def test_a_hostile_path_is_text(nndiag: Run, tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>'\"`{{7*7}}.csv"
    loss_log(tmp_path / name)
    assert nndiag("report", name, "-o", "page.html").returncode == 0

    tags = Tags((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert name in tags.text and "img" not in tags.tags


def test_a_page_keeps_the_rights_of_the_file_it_replaces_and_follows_links(tmp_path: Path) -> None:
    page, link = tmp_path / "page.html", tmp_path / "link.html"
    page.write_text("old")
    page.chmod(0o640)
    link.symlink_to(page)
    output.write("new", link)

    assert page.read_text() == "new" and link.is_symlink()
    assert stat.S_IMODE(page.stat().st_mode) == 0o640
    output.write("new", tmp_path / "other.html")
    assert stat.S_IMODE((tmp_path / "other.html").stat().st_mode) == 0o666 & ~output._umask()


@pytest.mark.parametrize("fault", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_or_a_ctrl_c_leaves_what_was_there(
    fault: BaseException, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "page.html"
    page.write_text("old")

    def broken(*_: object) -> None:
        raise fault

    monkeypatch.setattr(os, "replace", broken)
    expected = BadUsage if isinstance(fault, OSError) else KeyboardInterrupt
    with pytest.raises(expected):
        output.write("new", page)

    assert page.read_text() == "old" and list(tmp_path.iterdir()) == [page]


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
def test_a_device_is_written_to_and_its_fault_is_told(nndiag: Run, tmp_path: Path) -> None:
    loss_log(tmp_path / "log.csv")
    done = nndiag("report", "log.csv", "-o", "/dev/full")

    assert done.returncode == 2
    assert "-o /dev/full: cannot be written: No space left on device" in done.stderr


def test_a_ctrl_c_while_runs_are_read_leaves_no_file(tmp_path: Path) -> None:
    for i in range(40):
        loss_log(tmp_path / f"{i}.csv", steps=20_000)
    program = subprocess.Popen(
        [sys.executable, "-m", "nndiag", "report", ".", "-o", "page.html", "--jobs", "1"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    time.sleep(1.0)
    program.send_signal(signal.SIGINT)
    program.communicate(timeout=60)

    assert program.returncode in (130, -signal.SIGINT)
    left = {path.name for path in tmp_path.iterdir() if path.suffix != ".csv"}
    assert left <= {"page.html"}  # whole, of the runs that were done; or none
    if left:
        Tags((tmp_path / "page.html").read_text(encoding="utf-8"))
