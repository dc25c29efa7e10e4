"""What `nndiag watch` wrote: a run directory, see docs/journal.md."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from nndiag.errors import UnreadableLog
from nndiag.journal.reader import (
    Journal,
    JsonObject,
    RankJournal,
    Stream,
    UnknownVersion,
    open_run,
    read_stream,
)
from nndiag.readers import run_ranks, run_structure
from nndiag.readers.run_notes import RankRead, ending, notes, observation
from nndiag.readers.run_outliers import outliers
from nndiag.readers.run_ranks import Sharding, Team
from nndiag.readers.run_series import Columns, recorded_series, reported_series
from nndiag.records import Fact, NonfiniteOrigin, Parameter, Run, Series

name = "nndiag"

MOST_LAYER_BYTES = 2 << 30  # of all ranks but the first; each byte takes two while it is merged
NO_STEP = "watch a script that trains with torch.optim, for at least one optimizer.step()"
NO_TORCH = "watch a script that trains with torch, by a Python that runs sitecustomize (no -I, -S)"


def recognises(path: Path, head: bytes = b"") -> str | None:
    """Why `path` looks like a run directory; None if it does not."""
    if not path.is_dir():
        return None
    try:
        journal = open_run(path)
    except UnknownVersion:
        return "its run.json is nndiag's, of another version"
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
    team = run_ranks.peers(main, ranks)
    if len(team) > 1 or Sharding.of(main, with_owner=with_owner):
        merged = _merged(main, team, journal.ranks, with_owner=with_owner)
    else:
        streams = [*main.steps.values(), *main.layers.values()]
        merged = _Merged(recorded_series(streams, with_owner=with_owner))
    recorded = merged.series
    reported = reported_series(_reports(main, team), recorded, with_owner=with_owner)
    series = [*recorded, *reported]
    if not series:
        raise _no_series(path, journal, main)
    if loss is not None:
        series = list(_with_loss(series, loss, str(path)))
    return Run(
        path=str(path),
        format=name,
        series=tuple(series),
        layers=run_structure.layers(main.process),
        parameters=_parameters(main, team),
        optimizers=run_structure.optimizers(main.process, steps),
        nonfinite=tuple(_origins(main, team)),
        facts=tuple(_facts(main, with_owner=with_owner)),
        notes=notes(journal.manifest, main, ranks, merged.notes),
        environment=run_structure.environment(journal.manifest, main.process),
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


@dataclass(frozen=True, slots=True)
class _Merged:
    """The recorded series of a run, and how they came about."""

    series: list[Series]
    notes: Sequence[str] = ()


def _merged(
    main: RankRead, team: Sequence[RankRead], journals: Sequence[RankJournal], *, with_owner: bool
) -> _Merged:
    """The series of all ranks together, as far as they fit together."""
    owners = sorted(_steps_by_owner(main.steps.values())) if with_owner else [""]
    odd = run_ranks.strangers(main, team)
    ranks = [main, *(rank for rank in team if rank is not main and rank not in odd)]
    columns = [Columns(rank.steps.values(), with_owner=with_owner) for rank in ranks]
    sharding = Sharding.of(main, with_owner=with_owner)
    found = outliers([rank.rank for rank in ranks], columns, owners, sharding)
    told = run_ranks.Membership(main, team, odd, [ranks[i] for i in sorted(found.out_of_step)])
    kept = [i for i in range(len(ranks)) if i not in found.out_of_step]
    complete = len(kept) >= run_ranks.world_of(main)
    series = list(Team([columns[i] for i in kept], sharding, complete=complete).series())
    by_place = {(journal.rank, journal.attempt): journal for journal in journals}
    layers, all_of_them = _layers_of([ranks[i] for i in kept], by_place, with_owner=with_owner)
    series += Team(layers, sharding, complete=complete and all_of_them).series()
    told_of_layers = [] if all_of_them else [f"layer statistics are those of {len(layers)} ranks"]
    return _Merged(series, [*told.notes(sharding, complete), *found.notes, *told_of_layers])


def _layers_of(
    ranks: Sequence[RankRead],
    journals: Mapping[tuple[int, int], RankJournal],
    *,
    with_owner: bool,
) -> tuple[list[Columns], bool]:
    """The layer statistics of the ranks, the first of which has been read; whether of all."""
    columns = [Columns(ranks[0].layers.values(), with_owner=with_owner)]
    room = MOST_LAYER_BYTES
    for rank in ranks[1:]:
        paths = journals[rank.rank, rank.attempt].layer_files
        room -= sum(os.path.getsize(path) for path in paths if os.path.isfile(path))
        if room < 0:
            return columns, False
        streams = _streams(paths, [])
        columns.append(Columns(streams.values(), with_owner=with_owner))
    return columns, True


def _parameters(main: RankRead, team: Sequence[RankRead]) -> tuple[Parameter, ...]:
    """The parameters; a gradient that any rank has is there, for one may hold nothing of it."""
    with_grad = {
        (parameter.model, parameter.name)
        for rank in team
        for parameter in run_structure.parameters(rank.process)
        if parameter.has_grad
    }
    return tuple(
        replace(parameter, has_grad=True)
        if (parameter.model, parameter.name) in with_grad
        else parameter
        for parameter in run_structure.parameters(main.process)
    )


def _reports(main: RankRead, team: Sequence[RankRead]) -> list[JsonObject]:
    """The metrics that the script reported: the main rank's, and what only others have told.

    Most scripts print on the first rank, some on the last.
    """
    events = list(main.events)
    for rank in team:
        told = {str(event.get("name")) for event in events if event.get("event") == "metric"}
        events += [
            event
            for event in rank.events
            if event.get("event") == "metric" and str(event.get("name")) not in told
        ]
    return events


def _origins(main: RankRead, team: Sequence[RankRead]) -> list[NonfiniteOrigin]:
    """The tensors that went bad, on whatever rank, in the order in which it was seen.

    What goes bad on one rank is in the gradients of all a moment later; so the earliest counts, and
    of one step what is not a gradient.
    """
    ranks = [main, *(rank for rank in team if rank is not main)]
    found = [origin for rank in ranks for origin in run_structure.origins(rank.events)]
    if len(ranks) > 1:
        found.sort(key=lambda origin: (origin.step, origin.kind == "gradient"))
    unique = {(origin.step, origin.kind, origin.where): origin for origin in reversed(found)}
    return [origin for origin in found if unique[origin.step, origin.kind, origin.where] is origin]


def _facts(main: RankRead, *, with_owner: bool) -> Iterator[Fact]:
    """The facts of code and data: those of one rank, for all run the same code."""
    for fact in run_structure.facts(main.events):
        yield fact if with_owner else replace(fact, owner="")


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
