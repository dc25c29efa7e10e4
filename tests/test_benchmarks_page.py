"""The measurement of the page still runs, and says what docs/report.md tells of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.page import run

ROOT = Path(__file__).parent.parent


def test_one_command_prints_size_time_and_memory(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = tmp_path / "page.html"
    assert run.main(["--steps", "2000", "--layers", "8", "--every", "20", "--out", str(page)]) == 0

    told = capsys.readouterr().out
    assert re.search(r"^size    0\.\d\d MB", told, re.M) and re.search(r"^time    \d", told, re.M)
    assert "MB at the peak" in told
    assert page.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_size_told_in_the_documentation_is_the_size() -> None:
    from nndiag.reports import html_page

    text = (ROOT / "docs" / "report.md").read_text(encoding="utf-8")
    [told] = re.findall(r"at every 10th step \| (\d\.\d\d) MB", text)
    size = len(html_page.text([run.long_run()]).encode()) / 1e6

    assert abs(size - float(told)) < 0.03
