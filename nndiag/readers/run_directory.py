"""What `nndiag watch` wrote: a run directory, see docs/journal.md."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from nndiag.errors import UnreadableLog
from nndiag.journal.reader import Journal, JsonObject, RankJournal, Stream, open_run, read_stream
from nndiag.readers import run_structure
from nndiag.readers.run_notes import RankRead, ending, notes, observation
from nndiag.readers.run_series import recorded_series, reported_series
from nndiag.records import Run, Series

name = "nndiag"

NO_STEP = "watch a script that trains with torch.optim, for at least one optimizer.step()"
NO_TORCH = "watch a script that trains with torch, by a Python that runs sitecustomize (no -I, -S)"


def recognises(path: Path, head: bytes = b"") -> str | None:
    """Why `path` looks like a run directory; None if it does not."""
    if not path.is_dir():
        return None
    try:
        journal = open_run(path)
    except UnreadableLog:
        return None
    if journal.manifest:
        return "its run.json is nndiag's"
    if any(rank.step_files for rank in journal.ranks):
        return "it holds ranks recorded by nndiag"
    return None


def read(path: Path, loss: str | None = None) -> Run:
    """The run in this directory; `loss` names the series to take for the loss.

    Raises:
        UnreadableLog: nothing was recorded, or no series is called `loss`.
    """
    journal = open_run(path)
    if not journal.ranks:
        raise _no_rank(path, journal)
    ranks = [_read_rank(rank) for rank in journal.ranks]
    chosen = _chosen(ranks)
    main = ranks[chosen] = _with_layers(ranks[chosen], journal.ranks[chosen])
    steps = _steps_by_owner(main.steps.values())
    with_owner = len(steps) > 1
    recorded = recorded_series([*main.steps.values(), *main.layers.values()], with_owner=with_owner)
    series = [*recorded, *reported_series(main.events, recorded, with_owner=with_owner)]
    if not series:
        raise _no_series(path, journal, main)
    if loss is not None:
        series = list(_with_loss(series, loss, str(path)))
    return Run(
        path=str(path),
        format=name,
        series=tuple(series),
        layers=run_structure.layers(main.process),
        parameters=run_structure.parameters(main.process),
        optimizers=run_structure.optimizers(main.process, steps),
        nonfinite=tuple(run_structure.origins(main.events)),
        notes=notes(journal.manifest, main, ranks),
    )


def _read_rank(rank: RankJournal) -> RankRead:
    """What of a rank can be read, but for its layers: only one rank shows those."""
    problems: list[UnreadableLog] = []
    process: JsonObject = {}
    events: tuple[JsonObject, ...] = ()
    skipped = 0
    try:
        process = rank.process()
    except UnreadableLog as problem:
        problems.append(problem)
    try:
        events, skipped = rank.events()
    except UnreadableLog as problem:
        problems.append(problem)
    steps = _streams(rank.step_files, problems)
    return RankRead(rank.rank, rank.attempt, process, events, skipped, steps, {}, tuple(problems))


def _with_layers(read: RankRead, rank: RankJournal) -> RankRead:
    problems = list(read.problems)
    layers = _streams(rank.layer_files, problems)
    return replace(read, layers=layers, problems=tuple(problems))


def _chosen(ranks: Sequence[RankRead]) -> int:
    """Which one is shown: the lowest rank that made steps, and its longest attempt."""
    stepping = [rank for rank in ranks if rank.last_step is not None]
    if not stepping:
        return 0
    attempts = [i for i, rank in enumerate(ranks) if rank.rank == stepping[0].rank]
    return max(attempts, key=lambda i: ranks[i].last_step or 0)


def _streams(paths: Iterable[str], problems: list[UnreadableLog]) -> dict[str, Stream]:
    """The streams by file name; those that cannot be read go to `problems`."""
    streams = {}
    for path in paths:
        try:
            streams[Path(path).name] = read_stream(path)
        except UnreadableLog as problem:
            problems.append(problem)
    return streams


def _steps_by_owner(streams: Iterable[Stream]) -> dict[str, int]:
    """How many steps each optimizer made, as its newest row tells."""
    steps: dict[str, int] = {}
    for stream in streams:
        if stream.steps.size:
            steps[stream.owner] = max(steps.get(stream.owner, 0), int(stream.steps.max()) + 1)
    return steps


def _with_loss(series: Sequence[Series], loss: str, where: str) -> Iterator[Series]:
    """The series with the one called `loss` as the loss, and no other."""
    of_run = [one for one in series if not one.where]
    wanted = next((one for one in of_run if one.label == loss), None)
    if wanted is None:
        names = ", ".join(dict.fromkeys(one.label for one in of_run))
        raise UnreadableLog(where=where, what=f"no series is called {loss}", do=f"it has: {names}")
    for one in series:
        if not one.where and (one.metric, one.name) == (wanted.metric, wanted.name):
            yield replace(one, metric="loss", name=loss)
        elif one.metric == "loss":
            yield replace(one, metric="other", name=one.label)
        else:
            yield one


def _no_rank(path: Path, journal: Journal) -> UnreadableLog:
    """Why nothing was recorded: the script never met torch, we failed, or it never stepped."""
    if journal.failures:
        what, do = f"watching did not start: {journal.failures[0][:300]}", "please report this"
    elif journal.attached:
        what, do = "no optimizer step was seen", NO_STEP
    else:
        what, do = "no process of the run imported torch", NO_TORCH
    how = next(ending(journal.manifest, ()), "")
    return UnreadableLog(where=str(path), what="; ".join(filter(None, [what, how])), do=do)


def _no_series(path: Path, journal: Journal, main: RankRead) -> UnreadableLog:
    why = [*observation(main), *ending(journal.manifest, main.events)]
    what = "; ".join(["no optimizer step was seen", *why])
    return UnreadableLog(where=str(path), what=what, do=NO_STEP)
