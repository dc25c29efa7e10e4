"""Paths in, diagnoses out: the way of `nndiag analyze`, and the same from Python.

>>> result = nndiag.analyze("runs/resnet", "runs/vit/metrics.csv")
>>> result.diagnoses  # one for each run that was found
>>> result.errors  # one for each path that could not be read

Many runs are read and judged on all cores, each by itself: a log that breaks its reader, eats all
memory or never ends costs its own diagnosis and no other. The result does not depend on the number
of processes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from nndiag import workers
from nndiag.detectors import catalogue
from nndiag.detectors.base import Detector
from nndiag.diagnosis import diagnose
from nndiag.errors import BadUsage, UnreadableLog
from nndiag.outline import outline
from nndiag.readers import discovery
from nndiag.readers.discovery import STANDARD_INPUT, Skipped, Source
from nndiag.readers.duplicates import Sketch, repeated, sketch_of
from nndiag.records import Diagnosis
from nndiag.settings import SEVERITIES, Settings, load_settings

TIMEOUT_S = 600.0  # for a run that others wait for; gigabytes of text take as long
# What a run and a byte of it take, and how much work is worth starting processes for, which take a
# third of a second each: measured with a thousand small logs of four formats on two cores.
RUN_S = 0.01
BYTE_S = 6e-8
WORTH_S = 1.0
_FOLDER_ENTRIES = 1000  # of a run directory that are looked at for their size


@dataclass(frozen=True, slots=True)
class Analysis:
    """What came of some paths."""

    diagnoses: tuple[Diagnosis, ...]  # one for each run, in the order of the paths
    errors: tuple[UnreadableLog, ...] = ()  # paths that could not be read
    skipped: tuple[UnreadableLog, ...] = ()  # what a search of a folder looked at and left out
    unfinished: int = 0  # runs that were found but, because of a Ctrl-C, not analysed


class Interrupted(KeyboardInterrupt):
    """Ctrl-C while many runs are analysed; `known` holds those that were done."""

    def __init__(self, known: Analysis) -> None:
        super().__init__()
        self.known = known


class Progress(Protocol):
    """Somebody who is told how far an analysis is."""

    def found(self, sources: int) -> None:
        """So many possible runs in all, so far."""

    def judged(self, word: str) -> None:
        """One more is done; its verdict, or "unread"."""


def analyze(
    *paths: str | os.PathLike[str],
    settings: Settings | None = None,
    loss: str | None = None,
    reader: str | None = None,
    jobs: int | None = None,
    timeout_s: float | None = None,
    whole_runs: bool | None = None,
    progress: Progress | None = None,
) -> Analysis:
    """Read and diagnose every run under `paths`: files, folders, globs, or "-".

    `loss` names the series to take for the loss, `reader` forces a format; without `settings`,
    those of the working directory count. At most `jobs` processes work, by default one for each
    core, and none besides this one where that is no faster. A run that takes longer than
    `timeout_s` seconds is given up; by default, where others wait for it, after `TIMEOUT_S`.
    `Diagnosis.run` is complete where `paths` hold one run;
    of several it is an outline, with the loss thinned to what can be drawn, unless `whole_runs`.

    A path that cannot be read is an error in the result, not an exception; `BadUsage` is raised for
    a setting or a reader that does not exist, and `Interrupted` on Ctrl-C.
    """
    asked = settings if settings is not None else project_settings()
    detectors = catalogue.selected(asked.select, asked.ignore, asked.thresholds)
    places = [_Place(os.fspath(path)) for path in paths]
    outcomes: dict[int, Outcome] = {}
    try:
        sources = _search(places, reader, progress)
        several = len(sources) > 1
        whole = whole_runs if whole_runs is not None else not several
        judge = Judge(tuple(detectors), loss, whole)
        count = _processes(sources, jobs, is_limited=timeout_s is not None)
        limit_s = TIMEOUT_S if timeout_s is None else timeout_s
        for index, outcome in _outcomes(judge, sources, count, limit_s):
            outcomes[index] = outcome
            if progress is not None:
                progress.judged(outcome.word)
    except KeyboardInterrupt:
        raise Interrupted(_together(places, outcomes)) from None
    return _together(places, outcomes)


@dataclass(slots=True)
class _Place:
    """A path that was asked for, and what was found under it."""

    path: str
    sources: dict[int, Source] = field(default_factory=dict)  # by their place among all
    skipped: list[Skipped] = field(default_factory=list)
    error: UnreadableLog | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of one source: a diagnosis, or why there is none."""

    diagnosis: Diagnosis | None = None
    sketch: Sketch | None = None  # to know the same training again in another log
    what: str = ""
    do: str = ""
    is_fault: bool = False  # of this program or this machine, not of the log

    @property
    def word(self) -> str:
        return "unread" if self.diagnosis is None else str(self.diagnosis.verdict)


@dataclass(frozen=True, slots=True)
class Judge:
    """Reads and judges one source after the other; can be sent to another process."""

    detectors: tuple[Detector, ...]
    loss: str | None
    whole_runs: bool

    def __call__(self, source: Source) -> Outcome:
        """Never raises: what goes wrong with one run must not cost the others."""
        try:
            run = discovery.read(source, self.loss)
            diagnosis = diagnose(run, self.detectors)
            kept = diagnosis if self.whole_runs else outline(diagnosis)
            return Outcome(kept, sketch_of(run))
        except UnreadableLog as error:
            return Outcome(what=error.what, do=error.do)
        except MemoryError:
            return Outcome(what="does not fit into memory", is_fault=True)
        except Exception as error:
            if os.environ.get("NNDIAG_TRACEBACK"):
                raise
            return Outcome(
                what=f"a fault of nndiag itself: {type(error).__name__}: {error}",
                do="please report it; NNDIAG_TRACEBACK=1 in the environment and --jobs 1 show "
                "where it happened",
                is_fault=True,
            )


def _search(
    places: Sequence[_Place], reader: str | None, progress: Progress | None
) -> list[Source]:
    """Every source under the paths, each one once, however often it was asked for."""
    seen: dict[tuple[str, str], int] = {}
    sources: list[Source] = []
    for place in places:
        try:
            for one in _under(place.path, reader):
                if isinstance(one, Skipped):
                    place.skipped.append(one)
                    continue
                key = (os.path.abspath(one.path), one.run)
                if key not in seen or one.path == STANDARD_INPUT:
                    seen[key] = len(sources)
                    sources.append(one)
                    if progress is not None:
                        progress.found(len(sources))
                place.sources[seen[key]] = one
        except UnreadableLog as error:
            place.error = error
    return sources


def _under(path: str, reader: str | None) -> Iterator[Source | Skipped]:
    """What `search` finds; of "store#run", as reports call a run of a store, only that one."""
    store, mark, run = path.rpartition("#")
    if not mark or os.path.lexists(path) or not os.path.exists(store):
        yield from discovery.search(path, reader=reader)
        return
    found = [one for one in discovery.search(store, reader=reader) if isinstance(one, Source)]
    wanted = [one for one in found if one.run == run]
    if not wanted:
        ids = [one.run for one in found if one.run]
        known = f"its runs: {', '.join(ids[:9])}{' ...' if len(ids) > 9 else ''}" if ids else ""
        raise UnreadableLog(where=path, what=f"there is no run {run!r} in {store}", do=known)
    yield from wanted


def _processes(sources: Sequence[Source], jobs: int | None, is_limited: bool) -> int:
    """How many processes besides this one are worth their start; 0: none.

    A run can only be given up in another process, so with a limit there is at least one.
    """
    most = min(workers.cores() if jobs is None else jobs, len(sources))
    if os.name != "posix" or most < 1:
        return 0
    if is_limited:
        return most
    if most < 2:
        return 0
    if jobs is None:
        work_s = 0.0
        for source in sources:
            work_s += RUN_S + BYTE_S * _bytes_of(source)
            if work_s > WORTH_S:
                break
        else:
            return 0
    return most


def _bytes_of(source: Source) -> int:
    """The size of a file, or of a folder and the folders in it, as far as it can be had."""
    with contextlib.suppress(OSError, ValueError):
        if not os.path.isdir(source.path):
            return os.stat(source.path).st_size
        sizes, pending = 0, [source.path]
        for here in pending[:_FOLDER_ENTRIES]:
            with os.scandir(here) as listing:
                for entry in listing:
                    if entry.is_dir(follow_symlinks=False):
                        pending.append(entry.path)
                    else:
                        sizes += entry.stat(follow_symlinks=False).st_size
        return sizes
    return 0


def _outcomes(
    judge: Judge, sources: Sequence[Source], count: int, limit_s: float
) -> Iterator[tuple[int, Outcome]]:
    """(place of a source, what came of it), as they come."""
    here = set(range(len(sources)))
    if count:
        # standard input is this process's own
        apart = [i for i, source in enumerate(sources) if source.path != STANDARD_INPUT]
        pieces = [sources[i] for i in apart]
        with (
            contextlib.suppress(workers.NoWorkers),
            contextlib.closing(workers.each(judge, pieces, jobs=count, limit_s=limit_s)) as answers,
        ):
            for place, answer in answers:
                here.discard(apart[place])
                yield apart[place], _lost(answer) if isinstance(answer, workers.Lost) else answer
    for i in sorted(here):
        yield i, judge(sources[i])


def _lost(loss: workers.Lost) -> Outcome:
    if loss.too_slow:
        return Outcome(
            what=f"{loss.why}: given up", do="give it more time: --timeout SECONDS", is_fault=True
        )
    return Outcome(what=f"the process that read it {loss.why}", is_fault=True)


def _together(places: Sequence[_Place], outcomes: Mapping[int, Outcome]) -> Analysis:
    """All that is known, in the order of the paths and of what was found under them."""
    diagnoses: list[Diagnosis] = []
    errors: list[UnreadableLog] = []
    skipped: list[UnreadableLog] = []
    told: set[int] = set()  # a run under two paths is told once
    for place in places:
        if place.error is not None:
            errors.append(place.error)
            continue
        mine = {i: one for i, one in place.sources.items() if i not in told}
        told.update(mine)
        unread = [(one, outcomes[i]) for i, one in mine.items() if _is_unread(outcomes.get(i))]
        faults = [_error(*both) for both in unread if _is_error(*both)]
        left_out = [_error(*both) for both in unread if not _is_error(*both)]
        judged, again = _without_repeated([outcomes[i] for i in mine if i in outcomes])
        if left_out and len(unread) == len(place.sources) and not faults:
            faults.append(_nothing_in(place, left_out))
        diagnoses += judged
        errors += faults
        skipped += (UnreadableLog(where=one.path, what=one.reason) for one in place.skipped)
        skipped += [*left_out, *again]
    return Analysis(tuple(diagnoses), tuple(errors), tuple(skipped), len(told) - len(outcomes))


def _without_repeated(outcomes: Iterable[Outcome]) -> tuple[list[Diagnosis], list[UnreadableLog]]:
    """Diagnoses, and what is left out because another log tells of the same training."""
    judged = [(one.diagnosis, one.sketch) for one in outcomes if one.diagnosis and one.sketch]
    others = repeated([sketch for _, sketch in judged])
    diagnoses = [diagnosis for diagnosis, _ in judged]
    left_out = [
        UnreadableLog(
            where=diagnoses[i].run.path, what=f"the same training as {diagnoses[kept].run.path}"
        )
        for i, kept in others.items()
    ]
    return [one for i, one in enumerate(diagnoses) if i not in others], left_out


def _is_unread(outcome: Outcome | None) -> bool:
    return outcome is not None and outcome.diagnosis is None


def _is_error(source: Source, outcome: Outcome) -> bool:
    """What a search found and could not read is left out, and no error."""
    return outcome.is_fault or (source.is_named and not source.run)


def _error(source: Source, outcome: Outcome) -> UnreadableLog:
    return UnreadableLog(where=str(source), what=outcome.what, do=outcome.do)


def _nothing_in(place: _Place, left_out: Sequence[UnreadableLog]) -> UnreadableLog:
    """The one error for a folder with logs none of which could be read."""
    reasons = [Skipped(one.where, one.what) for one in left_out]
    error = discovery.nothing_in(place.path, [*reasons, *place.skipped])
    do = next((one.do for one in left_out if one.do), error.do)
    return UnreadableLog(where=error.where, what=error.what, do=do)


def project_settings(config: Path | None = None) -> Settings:
    """The settings of `config`, or of the project around the working directory.

    Raises `BadUsage` for a name in them that does not exist, with the file that holds it.
    """
    settings = load_settings(config)
    try:
        check_settings(settings)
    except BadUsage as error:
        raise BadUsage(
            where=f"{settings.source}, {error.where}", what=error.what, do=error.do
        ) from None
    return settings


def check_settings(settings: Settings) -> None:
    """Raise `BadUsage` for a finding or a threshold that does not exist."""
    catalogue.selected(settings.select, settings.ignore, settings.thresholds)
    for name in settings.fail_on:
        if name not in SEVERITIES:
            catalogue.named(name)
