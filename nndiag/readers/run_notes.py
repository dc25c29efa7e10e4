"""What the report says of a run directory besides its series: its end, and what is missing."""

from __future__ import annotations

import signal
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nndiag.errors import UnreadableLog
from nndiag.journal.reader import Stream
from nndiag.readers.run_series import number
from nndiag.readers.run_structure import text

JsonObject = Mapping[str, Any]

NOTE_LENGTH = 300  # characters
MOST_NOTES = 50
KNOWN_EVENTS = frozenset(
    {"metric", "nonfinite", "fact", "note", "exit", "observation-ended", "overhead"}
)


@dataclass(frozen=True, slots=True)
class RankRead:
    """All that was read of one rank."""

    rank: int
    attempt: int
    process: JsonObject
    events: Sequence[JsonObject]
    skipped_events: int
    steps: Mapping[str, Stream]  # by file name
    layers: Mapping[str, Stream]
    problems: Sequence[UnreadableLog]

    @property
    def name(self) -> str:
        return f"rank {self.rank}" + (f", attempt {self.attempt + 1}" if self.attempt else "")

    @property
    def last_step(self) -> int | None:
        lasts = [int(stream.steps.max()) for stream in self.steps.values() if stream.steps.size]
        return max(lasts, default=None)


def notes(
    manifest: JsonObject, main: RankRead, ranks: Sequence[RankRead], merged: Sequence[str] = ()
) -> tuple[str, ...]:
    """All notes of a run, the most telling first.

    `main` is the rank that is judged, `merged` tells how others were merged into it.
    """
    told = [
        *_ended(manifest, main, ranks),
        *observation(main),
        *_extent(main),
        *_ranks(main, ranks, merged),
        *_damage(main),
        *(text(event, "text") for event in main.events if event["event"] == "note"),
    ]
    unique = list(dict.fromkeys(note[:NOTE_LENGTH] for note in told if note))
    if len(unique) > MOST_NOTES:
        unique[MOST_NOTES:] = [f"and {len(unique) - MOST_NOTES} more notes"]
    return tuple(unique)


def ending(manifest: JsonObject, events: Iterable[JsonObject]) -> Iterator[str]:
    """How the run ended, unless it ended well."""
    exits = [event for event in events if event["event"] == "exit"]
    raised = [text(event, "what") for event in exits if event.get("how") == "exception"]
    ended = manifest.get("ended")
    if not manifest:
        yield "run.json is missing or unreadable: how the run ended is not known"
    elif not isinstance(ended, dict):
        yield "the run was still going on when it was read, or it was killed with its watcher"
    elif ended.get("signal"):
        yield f"the script was ended by {_signal_name(ended['signal'])}"
    elif raised:
        yield f"the script ended with {raised[-1] or 'an exception'}"
    elif ended.get("status"):
        yield f"the script exited with status {ended['status']}"


def _ended(manifest: JsonObject, main: RankRead, ranks: Sequence[RankRead]) -> Iterator[str]:
    """The same; of ranks that were watched each by itself, their own ends are all there is."""
    ends = [[e for e in rank.events if e["event"] == "exit"] for rank in ranks]
    if manifest.get("launcher") and "ended" not in manifest and all(ends):
        manifest = {**manifest, "ended": {}}
    yield from ending(manifest, main.events)


def _signal_name(told: object) -> str:
    try:
        return signal.Signals(told).name if isinstance(told, int) else str(told)
    except ValueError:
        return f"signal {told}"


def observation(main: RankRead) -> Iterator[str]:
    for event in main.events:
        if event["event"] == "observation-ended":
            reason = text(event, "reason") or "for an unknown reason"
            yield f"observation ended at step {event.get('step')}: {reason}"


def _extent(main: RankRead) -> Iterator[str]:
    percents = [number(e.get("percent")) for e in main.events if e["event"] == "overhead"]
    if percents and percents[-1] is not None:
        yield f"watching took {percents[-1]:.1f} % of the run's time"
    if main.last_step is None:
        yield "no optimizer step was seen: these are the metrics that the script reported"


def _ranks(main: RankRead, ranks: Sequence[RankRead], merged: Sequence[str]) -> Iterator[str]:
    numbers = {rank.rank for rank in ranks}
    world = main.process.get("world_size")
    if isinstance(world, int) and world > len(numbers):
        yield f"{len(numbers)} of {world} ranks were recorded"
    if len(ranks) < 2:
        yield from merged
        return
    is_distributed = any(rank.process.get("rank") is not None for rank in ranks)
    if not is_distributed:  # a script that started others: their steps have nothing in common
        yield f"{len(ranks)} processes trained; the series are those of {main.name}"
        return
    yield from merged or [
        f"{len(numbers)} ranks were recorded; the series are those of {main.name}"
    ]
    # A launcher that lost a rank ends the others: then nobody has the last word.
    has_ending = {id(rank): any(e["event"] == "exit" for e in rank.events) for rank in ranks}
    furthest = max((rank.last_step for rank in ranks if rank.last_step is not None), default=None)
    for rank in ranks:
        if rank is not main:
            yield from (f"{rank.name}: {told}" for told in observation(rank))
            yield from (f"{rank.name}: {told}" for told in sorted(_said(rank) - _said(main)))
            yield from (f"{rank.name}: left out {p.where}: {p.what}" for p in rank.problems)
        for event in rank.events:
            if rank is not main and event["event"] == "exit" and event.get("how") == "exception":
                yield f"{rank.name} ended with {text(event, 'what') or 'an exception'}"
        if rank.last_step is None:
            yield f"{rank.name} made no optimizer step"
        elif furthest is not None and rank.last_step < furthest - 1:  # the last row may be missing
            yield f"{rank.name} stopped at step {rank.last_step}, another at step {furthest}"
        if any(has_ending.values()) and not has_ending[id(rank)]:
            yield f"{rank.name} left no ending: it was killed, or ended by os._exit"


def _said(rank: RankRead) -> set[str]:
    """The notes of one rank."""
    return {text(event, "text") for event in rank.events if event["event"] == "note"}


def _damage(main: RankRead) -> Iterator[str]:
    for problem in main.problems:
        yield f"left out {problem.where}: {problem.what}"
    for name, stream in {**main.steps, **main.layers}.items():
        if stream.damaged_records:
            yield f"{stream.damaged_records} damaged rows of {name} were left out"
        if stream.torn_bytes:
            yield f"the last row of {name} was torn, {stream.torn_bytes} bytes, and left out"
    if main.skipped_events:
        yield f"{main.skipped_events} lines of events.jsonl could not be read"
    unknown = sum(event["event"] not in KNOWN_EVENTS for event in main.events)
    if unknown:
        yield f"{unknown} events of kinds unknown to this nndiag were skipped"
