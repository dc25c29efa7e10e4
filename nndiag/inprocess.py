"""Watching a part of a program, in a test or a notebook, where `nndiag watch` cannot start it.

>>> with nndiag.watch() as run:
...     train(model)
>>> run.assert_healthy(ignore=["loss-plateau"])

The block is recorded as `nndiag watch` records a script, and diagnosed in the same way.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any

from nndiag.analysis import analyze, check_settings, project_settings
from nndiag.errors import BadUsage, MissingLibrary, NndiagError
from nndiag.gate import Gate
from nndiag.records import Diagnosis, Finding, Verdict
from nndiag.reports import page, plain
from nndiag.settings import Settings
from nndiag.watcher import run_directory

if TYPE_CHECKING:
    from torch import nn

WIDTH = 100  # columns of a report in an exception or a notebook
MAX_STARTED = 64

STARTED: deque[WatchedRun] = deque(maxlen=MAX_STARTED)  # newest last; the pytest plugin takes them


class UnhealthyRun(AssertionError):
    """A watched block trained badly; `findings` says how, worst first."""

    def __init__(self, report: str, findings: tuple[Finding, ...]) -> None:
        super().__init__(report)
        self.findings = findings


class NothingToJudge(NndiagError):
    """A watched block in which no training was seen."""


class WatchedRun:
    """One watched block; made by `nndiag.watch`.

    A context manager, or `start()` and `stop()` where a block does not fit, as in a notebook's
    cells. `diagnosis` can be asked for at any time, also while the block runs.
    """

    def __init__(
        self,
        models: tuple[nn.Module, ...] = (),
        *,
        run_dir: str | os.PathLike[str] | None = None,
        every: int | str = "auto",
        overhead_percent: float = 2.0,
        settings: Settings | None = None,
    ) -> None:
        _check(models, every, overhead_percent)
        self._models = models
        self._asked_dir = None if run_dir is None else Path(run_dir)
        self._options = {"every": every, "overhead_percent": overhead_percent}
        self._settings = settings
        self._directory: run_directory.RunDirectory | None = None
        self._session: Any = None
        self._began = 0.0
        self._known: tuple[Settings, Diagnosis] | None = None

    # -- the block

    def start(self) -> WatchedRun:
        """Begin to watch. Raises `BadUsage` the second time, `CannotStart` without a place."""
        if self._directory is not None:
            raise BadUsage(where="nndiag.watch", what="was started before", do="make a new one")
        try:
            import torch
        except ImportError:
            raise MissingLibrary(command="nndiag.watch", library="torch", extra="torch") from None
        from nndiag.watcher.session import Session

        name = _name_of_script()
        self._directory = run_directory.make(
            self._asked_dir, stem=Path(name).stem, script=name, settings=self._options
        )
        self._session = Session(torch, str(self._directory.path), self._options)
        self._session.start_inside(self._models)
        self._began = monotonic()
        STARTED.append(self)
        return self

    def stop(self) -> WatchedRun:
        """End the watching; what was recorded stays."""
        self._end(None)
        return self

    def __enter__(self) -> WatchedRun:
        return self.start()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end(kind)

    def _end(self, raised: type[BaseException] | None) -> None:
        session, self._session = self._session, None
        if session is None or self._directory is None:
            return
        session.stop(raised)
        status = 0 if raised is None else 1
        with contextlib.suppress(OSError):  # a record without its end can be read
            self._directory.close(status=status, signal=None, seconds=monotonic() - self._began)

    # -- what was seen

    @property
    def path(self) -> Path:
        """The run directory, as `nndiag analyze` takes it."""
        if self._directory is None:
            raise BadUsage(where="nndiag.watch", what="was not started", do="use it in a `with`")
        return self._directory.path

    def log(self, **metrics: float) -> None:
        """Record metrics that no hook can see, such as `val_loss`, at the present step."""
        if self._session is not None:
            for name, value in metrics.items():
                self._session.report("log", name, float(value))

    @property
    def diagnosis(self) -> Diagnosis:
        """All that can be said of the block so far.

        Raises `NothingToJudge` where no optimizer step was seen.
        """
        return self._diagnosed(self._of_project())

    def _of_project(self) -> Settings:
        if self._settings is None:
            self._settings = project_settings()
        return self._settings

    def _diagnosed(self, settings: Settings) -> Diagnosis:
        if self._known is not None and self._known[0] == settings:
            return self._known[1]
        found = analyze(self.path, settings=settings, jobs=1)
        if found.diagnoses:
            if self._session is None:  # what is still watched will have more to show
                self._known = settings, found.diagnoses[0]
            return found.diagnoses[0]
        why = found.errors[0].what if found.errors else "nothing was recorded"
        do = "train in the watched block, for at least one optimizer.step()"
        raise NothingToJudge(where=str(self.path), what=why, do=do)

    @property
    def findings(self) -> tuple[Finding, ...]:
        """The faults that were found, worst first."""
        return self.diagnosis.findings

    @property
    def verdict(self) -> Verdict:
        return self.diagnosis.verdict

    def assert_healthy(
        self,
        ignore: Iterable[str] = (),
        *,
        fail_on: Iterable[str] = ("warning",),
        strict: bool = False,
    ) -> None:
        """Raise `UnhealthyRun`, an AssertionError with the report, where a finding counts.

        `ignore`: names of findings that do not count. `fail_on`: the severity from which others
        do, or names. `strict`: too little data to judge counts, too. Raises `NothingToJudge` where
        no training was seen, and `BadUsage` for a name that does not exist.
        """
        __tracebackhide__ = True  # pytest shows the line of the test
        asked = replace(
            self._of_project(),
            ignore=(*self._of_project().ignore, *_names(ignore)),
            fail_on=_names(fail_on),
        )
        check_settings(asked)
        diagnosis = self._diagnosed(asked)
        gate = Gate(asked, strict=strict)
        if gate.stops(diagnosis):
            report = f"{gate.doubt(diagnosis)}\n\n{_page(diagnosis)}".lstrip()
            raise UnhealthyRun(report, gate.failing(diagnosis))

    def __repr__(self) -> str:
        if self._directory is None:
            return "<nndiag.watch, not started>"
        try:
            return _page(self.diagnosis)
        except NndiagError as error:
            return f"<nndiag.watch at {self.path}: {error.what}>"


def watch(
    *models: nn.Module,
    run_dir: str | os.PathLike[str] | None = None,
    every: int | str = "auto",
    overhead_percent: float = 2.0,
    settings: Settings | None = None,
) -> WatchedRun:
    """Watch what is trained in a `with` block, of any model and optimizer.

    `models` give their names to what is measured; without them all models alive are searched for.
    The record goes to `run_dir`, by default a new directory under `nndiag-runs/`. Layers are
    measured at `every` Nth step, or as often as `overhead_percent` of the time allows ("auto").
    `settings` are those of the diagnosis, by default the project's.

    Raises `MissingLibrary` without torch, `CannotStart` where the directory cannot hold the run.
    """
    return WatchedRun(
        models,
        run_dir=run_dir,
        every=every,
        overhead_percent=overhead_percent,
        settings=settings,
    )


def _check(models: tuple[Any, ...], every: int | str, overhead_percent: float) -> None:
    for model in models:
        if not callable(getattr(model, "named_modules", None)):
            kind = type(model).__name__
            raise BadUsage(where="nndiag.watch", what=f"models must be nn.Modules, not {kind}")
    if every != "auto" and not (isinstance(every, int) and every > 0):
        raise BadUsage(where=f"every={every!r}", what='must be a positive number or "auto"')
    if not 0 <= overhead_percent <= 100:
        raise BadUsage(where=f"overhead_percent={overhead_percent!r}", what="must be 0 to 100")


def _names(given: Iterable[str]) -> tuple[str, ...]:
    """Names from a list, or from one text as on the command line."""
    return tuple(given.split(",")) if isinstance(given, str) else tuple(given)


def _page(diagnosis: Diagnosis) -> str:
    return plain.text(page.report([diagnosis], width=WIDTH)).rstrip()


def _name_of_script() -> str:
    path = getattr(sys.modules.get("__main__"), "__file__", None)
    if os.environ.get("PYTEST_CURRENT_TEST"):
        return "pytest"
    return os.path.basename(path) if path else "notebook"
