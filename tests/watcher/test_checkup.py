"""The diagnosis of a run that still goes on."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from nndiag.journal.writer import StreamWriter, make_directory
from nndiag.watcher import checkup
from nndiag.watcher.checkup import Checkup, Seen, severities_from

LOSS = [("loss", ""), ("backward_calls", "")]


def wait_for(check: Checkup) -> bool:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if check.poll():
            return True
        time.sleep(0.05)
    return False


def test_findings_come_while_the_run_grows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "FIRST_AFTER_S", 0.0)
    monkeypatch.setattr(checkup, "EVERY_S", 0.0)
    make_directory(str(tmp_path / "rank-0"))
    steps = StreamWriter(str(tmp_path / "rank-0" / "steps-0.arrows"), owner="SGD", columns=LOSS)
    for step in range(200):
        steps.append(step, step / 100, [1.0 / (step + 1), 1])
    check = Checkup(tmp_path)
    assert wait_for(check)
    before = [finding.name for finding in check.findings]
    for step in range(200, 400):
        steps.append(step, step / 100, [float("nan"), 1])

    while wait_for(check) and not check.findings:
        pass
    check.close()
    assert "loss-nonfinite" not in before
    assert "loss-nonfinite" in [finding.name for finding in check.findings]
    assert check.verdict == "critical"


def test_a_run_that_cannot_be_read_gives_no_findings(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checkup, "FIRST_AFTER_S", 0.0)
    (tmp_path / "rank-0").mkdir()
    (tmp_path / "rank-0" / "steps-0.arrows").write_bytes(b"nothing of ours")
    check = Checkup(tmp_path)
    deadline = time.monotonic() + 30
    while check._child is None and time.monotonic() < deadline:
        check.poll()
    while check._child is not None and time.monotonic() < deadline:
        check.poll()

    assert check.findings == ()


def test_closing_leaves_no_process_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkup, "FIRST_AFTER_S", 0.0)
    (tmp_path / "rank-0").mkdir()
    (tmp_path / "rank-0" / "steps-0.arrows").write_bytes(b"x")
    check = Checkup(tmp_path)
    check.poll()
    child = check._child
    assert child is not None
    check.close()

    assert child.returncode is not None


MATCHES = {
    "its name": (("dead-relu",), True),
    "its severity": (("critical",), True),
    "a lower severity": (("warning",), True),
    "another name": (("loss-spike",), False),
    "nothing": ((), False),
}


@pytest.mark.parametrize(("wanted", "does"), MATCHES.values(), ids=MATCHES)
def test_a_finding_matches(wanted: tuple[str, ...], does: bool) -> None:
    assert Seen("dead-relu", "critical").matches(wanted) is does


def test_a_lower_severity_than_asked_for_does_not_match() -> None:
    assert not Seen("converged", "info").matches(("warning", "dead-relu"))
    assert severities_from(("info",)) == ("info", "warning", "critical")
