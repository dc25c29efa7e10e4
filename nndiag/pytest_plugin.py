"""The pytest plugin: a fixture that watches, and a section in the summary.

    def test_training_is_healthy(nndiag_watch):
        with nndiag_watch() as run:
            train(make_model())
        run.assert_healthy(ignore=["slow-convergence"])

Nothing but pytest is imported until a test watches something.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from nndiag.inprocess import WatchedRun

PROPERTY = "nndiag"  # of a test's report: how pytest-xdist brings it to the main process
FINDINGS_SHOWN = 3  # of one run


@pytest.fixture
def nndiag_watch(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., WatchedRun]]:
    """`nndiag.watch`, with its record among pytest's temporary files.

    What is still watched when the test ends is stopped.
    """
    from nndiag.inprocess import watch

    runs: list[WatchedRun] = []

    def watched(*models: Any, **options: Any) -> WatchedRun:
        options.setdefault("run_dir", tmp_path_factory.mktemp("nndiag") / "run")
        run = watch(*models, **options)
        runs.append(run)
        return run

    yield watched
    for run in runs:
        run.stop()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Note how the runs stand that the test has watched, with the fixture or without."""
    yield
    inprocess = sys.modules.get("nndiag.inprocess")
    while inprocess is not None and inprocess.STARTED:
        item.user_properties.append((PROPERTY, _told(inprocess.STARTED.popleft())))


def _told(run: WatchedRun) -> str:
    """ "critical|loss-spike, dead-relu|path" """
    from nndiag.errors import NndiagError

    try:
        diagnosis = run.diagnosis
    except NndiagError as error:
        return f"nothing|{error.what}|{run.path}"
    names = [finding.name for finding in diagnosis.findings]
    more = f" and {len(names) - FINDINGS_SHOWN} more" if len(names) > FINDINGS_SHOWN else ""
    return f"{diagnosis.verdict}|{', '.join(names[:FINDINGS_SHOWN])}{more}|{run.path}"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """Each watched run in a line; where something was found, the command that shows it."""
    ends = [
        (report.nodeid, str(told))
        for reports in terminalreporter.stats.values()
        for report in reports
        if getattr(report, "when", "") == "teardown"
        for name, told in report.user_properties
        if name == PROPERTY
    ]
    if ends:
        terminalreporter.section("nndiag")
    for test, told in ends:
        verdict, found, path = told.split("|", 2)
        line = f"{verdict.upper():<10}{test}{f': {found}' if found else ''}"
        terminalreporter.line(line, **_colour(verdict))
        if found and verdict != "nothing":
            terminalreporter.line(f"{'':10}nndiag analyze {path}")


def _colour(verdict: str) -> dict[str, bool]:
    colours = {"healthy": "green", "warning": "yellow", "critical": "red"}
    return {colours[verdict]: True} if verdict in colours else {}
