"""The rule that every input is held to: a sound `Run`, or one `UnreadableLog` in plain words.

`judged` gives the outcome as a short text, or raises `Fault` for anything else: another exception,
a warning, more than `PATIENCE` seconds, more than `MEMORY` bytes, a file left open, a `Run` that
breaks its own rules, a detector that failed, a report with control characters in it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import resource
import signal
import sys
import traceback
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import numpy as np

from nndiag.detectors.base import Detector
from nndiag.diagnosis import diagnose
from nndiag.errors import UnreadableLog
from nndiag.readers import discovery
from nndiag.readers.base import Reader, Store
from nndiag.readers.lines.text_lines import head_of
from nndiag.records import Run
from nndiag.reports import json_report, page, plain

PATIENCE = 2.0  # seconds for one input
MEMORY = 256 << 20  # bytes that the process may grow by one input
LONGEST_TEXT = 8192  # characters of a note or of a part of an error, without its path
MOST_NOTES = 200
SHARE_REPORTED = 4  # of so many diagnoses one is made a report of: the reports have their own tests
RUNS_LOOKED_AT = 3  # of a store
READ = "read:"  # how the outcome of an input begins that a run was made of
OPEN_FILES = "/proc/self/fd"
# C0 and C1, separators of lines and paragraphs, what reorders a line, halves of surrogate pairs
_CONTROLS = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]"
)
_VARIES = re.compile(r"'[^']*'|\"[^\"]*\"|[0-9][0-9.,]*|\([^)]*\)")


class Fault(Exception):
    """An input that broke the rule. `kind` is the same for all that break it in the same way."""

    def __init__(self, kind: str, detail: str = "") -> None:
        super().__init__(f"{kind}\n{detail}".rstrip())
        self.kind = kind


class TooSlow(BaseException):
    """Not an `Exception`: nobody on the way may take it for one of theirs."""


class Judge:
    """Reads inputs with one reader, or as `nndiag analyze` would where `reader` is None.

    Without detectors it diagnoses nothing, which is faster.
    """

    def __init__(self, reader: Reader | ModuleType | None, detectors: Sequence[Detector]) -> None:
        self.reader: Any = reader
        self.detectors = detectors
        self._diagnosed: set[int] = set()

    def judged(self, path: Path, loss: str | None = None) -> str:
        """How this input came out, as a short text that is the same for like outcomes.

        Raises:
            Fault: it broke the rule.
        """
        files, size = _open_files(), _peak()
        ignored: list[str] = []
        try:
            with _hurried(), warnings.catch_warnings(), _heard(ignored):
                warnings.simplefilter("error")
                outcome = self._outcome(path, loss)
        except Fault:
            raise
        except TooSlow as error:
            raise Fault(f"took more than {PATIENCE} s", _where(error)) from None
        except UnreadableLog as error:
            outcome = _refusal(error)
        except BaseException as error:
            if isinstance(error, KeyboardInterrupt | SystemExit):
                raise
            raise Fault(f"{type(error).__name__} at {_place(error)}", _where(error)) from None
        if ignored:
            raise Fault(f"in a finalizer: {_plain(ignored[0])}", ignored[0])
        if _open_files() > files:  # fewer: the garbage of an earlier input went
            raise Fault("a file was left open")
        if _peak() - size > MEMORY:
            raise Fault(f"took {(_peak() - size) >> 20} MiB")
        return outcome

    def _outcome(self, path: Path, loss: str | None) -> str:
        if self.reader is None:
            return self._as_analyze(path, loss)
        head = b"" if path.is_dir() else head_of(path)
        reason = self.reader.recognises(path, head)
        if reason is not None:
            _check_text("the reason", reason)
        outcomes = [self._of_run(self.reader.read, path, loss)]
        if isinstance(self.reader, Store):
            for run in self.reader.runs_in(path)[:RUNS_LOOKED_AT]:
                if not isinstance(run, str):
                    raise Fault(f"a run's id is of type {type(run).__name__}")
                outcomes.append(self._of_run(self.reader.read_run, path, run, loss))
        read = [outcome for outcome in outcomes if outcome.startswith(READ)]
        return (read or outcomes)[-1] + ("" if reason else "; not recognised")

    def _as_analyze(self, path: Path, loss: str | None) -> str:
        sources = []
        for found in discovery.search(path):
            if isinstance(found, discovery.Source):
                sources.append(found)
        outcomes = [self._of_run(discovery.read, source, loss) for source in sources[:4]]
        read = [outcome for outcome in outcomes if outcome.startswith(READ)]
        return (read or outcomes or ["nothing found"])[0]

    def _of_run(self, read: Any, *args: object) -> str:
        try:
            run = read(*args)
        except UnreadableLog as error:
            return _refusal(error)
        check(run)
        self._diagnose(run)
        metrics = sorted({series.metric for series in run.series})
        return f"{READ} {' '.join(metrics)}; {'; '.join(map(_plain, run.notes))}"

    def _diagnose(self, run: Run) -> None:
        """Once for each set of curves: most mutants of a seed have the same ones."""
        if not self.detectors:
            return
        curves = hash(tuple((s.metric, s.steps.tobytes(), s.values.tobytes()) for s in run.series))
        if curves in self._diagnosed:
            return
        self._diagnosed.add(curves)
        diagnosis = diagnose(run, self.detectors)
        for abstention in diagnosis.abstained:
            if abstention.reason.startswith("could not judge: "):
                raise Fault(f"{abstention.name} {abstention.reason}"[:200])
        if curves % SHARE_REPORTED:
            return
        check_reports(plain.text(page.report([diagnosis])), json_report.text([diagnosis], (), ()))


def check(run: Run) -> None:
    """Raise `Fault` where a run breaks what `nndiag.records` promises."""
    if not isinstance(run, Run):
        raise Fault(f"read gives {type(run).__name__}")
    if not run.series:
        raise Fault("a run without a series")
    seen = set()
    for series in run.series:
        steps, values = series.steps, series.values
        if steps.dtype != np.int64 or values.dtype != np.float64:
            raise Fault(f"{steps.dtype} steps, {values.dtype} values")
        if steps.ndim != 1 or steps.shape != values.shape:
            raise Fault("steps and values differ in shape")
        if not len(series) and run.format != "nndiag":  # a journal names what it will measure
            raise Fault("an empty series")
        if steps.size > 1 and not (steps[1:] > steps[:-1]).all():
            raise Fault("steps do not increase")
        if steps.flags.writeable or values.flags.writeable:
            raise Fault("a series can be written to")
        name = series.metric, series.where, series.owner
        if series.metric != "other" and name in seen and run.format != "nndiag":
            raise Fault(f"two series of {series.metric} at one place")
        seen.add(name)
        for text in (series.metric, series.where, series.owner, series.name):
            _check_text("a name", text)
    if len(run.notes) > MOST_NOTES:
        raise Fault(f"{len(run.notes)} notes")
    for note in (*run.notes, *run.blind, run.format):
        _check_text("a note", note)
    if not isinstance(run.path, str):
        raise Fault("a path that is no text")


def check_reports(text: str, document: str) -> None:
    """Raise `Fault` where a report holds what could move a cursor, or is no strict JSON."""
    for shown, name in ((text, "plain"), (document, "JSON")):
        bad = _CONTROLS.search(shown)
        if bad:
            raise Fault(f"control characters in the {name} report", ascii(bad[0]))

    def refuse(name: str) -> object:
        raise Fault(f"{name} in the JSON report")

    try:
        json.loads(document, parse_constant=refuse)
    except ValueError as error:
        raise Fault("the JSON report is no JSON", str(error)) from None


def _check_text(what: str, text: object) -> None:
    if not isinstance(text, str):
        raise Fault(f"{what} is of type {type(text).__name__}")
    if len(text) > LONGEST_TEXT:
        raise Fault(f"{what} of {len(text)} characters")


def _refusal(error: UnreadableLog) -> str:
    for part in (error.what, error.do):
        _check_text("a part of an error", part)
    if not isinstance(error.where, str) or not error.where:
        raise Fault("an error that does not say where")
    if not error.what or "Traceback" in error.what:
        raise Fault("an error that does not say what", repr(error.what))
    return f"refused: {_plain(error.what)}"


def _plain(text: str) -> str:
    return _VARIES.sub("#", text)[:160]


@contextlib.contextmanager
def _hurried() -> Iterator[None]:
    """Raise `TooSlow` in whatever runs after `PATIENCE` seconds."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise TooSlow

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextlib.contextmanager
def _heard(told: list[str]) -> Iterator[None]:
    """Collect what goes wrong where no exception can be raised: in finalizers."""
    before = sys.unraisablehook
    sys.unraisablehook = lambda args: told.append(f"{args.exc_type.__name__} {args.exc_value}")
    try:
        yield
    finally:
        sys.unraisablehook = before


def _open_files() -> int:
    try:
        return len(os.listdir(OPEN_FILES))
    except OSError:  # no /proc here
        return 0


def _peak() -> int:
    """The largest the process has been, in bytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _place(error: BaseException) -> str:
    """The innermost place in the package, or where there is none the innermost of all."""
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if f"{os.sep}nndiag{os.sep}" in frame.filename] or frames
    return f"{Path(ours[-1].filename).name}:{ours[-1].name}" if ours else "?"


def _where(error: BaseException) -> str:
    return "".join(traceback.format_exception(type(error), error, error.__traceback__)[-12:])
