"""Reads the run directory, as far as it makes sense: a run may be damaged, killed or still growing.

Nothing in it is trusted: only regular files are opened, through no link, up to a size; a line that
is no event is skipped and counted. What cannot be read at all is one `UnreadableLog`.
"""

from __future__ import annotations

import errno
import json
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nndiag.errors import UnreadableLog
from nndiag.journal.format import (
    EVENT_LINE_BYTES,
    EVENTS_FILE,
    PROCESS_FILE,
    PROCESS_SCHEMA,
    RUN_FILE,
    RUN_SCHEMA,
)
from nndiag.journal.stream import Stream, decode_stream

__all__ = [
    "Journal",
    "RankJournal",
    "Stream",
    "UnknownVersion",
    "open_run",
    "read_events",
    "read_manifest",
    "read_object",
    "read_process",
    "read_stream",
    "regular_content",
]

Path = str | os.PathLike[str]
JsonObject = Mapping[str, Any]

# Against hostile and runaway files. Our own choice, far above what our writer makes: 10**8
# measurements, the names of 10**6 parameters, 700,000 metrics (ten times the bytes in memory).
STREAM_BYTES = 8 << 30
JSON_BYTES = 256 << 20
EVENTS_BYTES = 64 << 20
MOST_RANKS = 4096
HOLLOW = 1 << 30  # bytes: from here on a file must take a thousandth of that on the disk at least


class UnknownVersion(UnreadableLog):
    """A file of ours in a format that this nndiag does not know: it is newer, most likely."""


@dataclass(frozen=True, slots=True)
class RankJournal:
    """The folder of one process that trained."""

    rank: int
    attempt: int  # 0 first; a rank that was restarted has several
    path: str
    step_files: tuple[str, ...]  # paths, in the order in which they were opened
    layer_files: tuple[str, ...]

    def process(self) -> JsonObject:
        return read_process(os.path.join(self.path, PROCESS_FILE))

    def events(self) -> tuple[tuple[JsonObject, ...], int]:
        return read_events(os.path.join(self.path, EVENTS_FILE))


@dataclass(frozen=True, slots=True)
class Journal:
    """A run directory. The files of its ranks are read when asked for."""

    path: str
    manifest: JsonObject  # run.json; empty where it is missing or broken
    ranks: tuple[RankJournal, ...]  # lowest first
    attached: int = 0  # processes that imported torch, whether they trained or not
    failures: tuple[str, ...] = ()  # why watching did not start in a process


def open_run(path: Path) -> Journal:
    """The run directory at `path`.

    Raises `UnreadableLog` where it holds neither a manifest of ours nor the folder of a rank, and
    `UnknownVersion` where its manifest is of another version: what the rest means is unknown then.
    """
    path = os.fspath(path)
    names = sorted(_names(path))
    ranks = []
    for name in names:
        numbers = re.fullmatch(r"rank-([0-9]{1,6})(?:\.([0-9]{1,6}))?", name)
        folder = os.path.join(path, name)
        if numbers and stat.S_ISDIR(os.lstat(folder).st_mode):
            ranks.append(_rank(folder, int(numbers[1]), int(numbers[2] or 0)))
    try:
        manifest = read_manifest(os.path.join(path, RUN_FILE))
    except UnknownVersion:
        raise
    except UnreadableLog:
        if not ranks:
            raise
        manifest = {}
    ranks.sort(key=lambda rank: (rank.rank, rank.attempt))
    failed = [os.path.join(path, name) for name in names if name.startswith("failed-")]
    return Journal(
        path=path,
        manifest=manifest,
        ranks=tuple(ranks[:MOST_RANKS]),
        attached=sum(name.startswith("attached-") for name in names),
        failures=tuple(filter(None, map(_reason_in, failed[:MOST_RANKS]))),
    )


def read_manifest(path: Path) -> JsonObject:
    """run.json: what the supervisor knows."""
    return read_object(path, RUN_SCHEMA)


def read_process(path: Path) -> JsonObject:
    """process.json of a rank: what the recorder knows of its process."""
    return read_object(path, PROCESS_SCHEMA)


def read_events(path: Path) -> tuple[tuple[JsonObject, ...], int]:
    """The events of a rank, oldest first, and how many lines were skipped.

    A line is skipped that is torn, too long, or not a JSON object with the name of an event.
    """
    content, is_cut = regular_content(path, EVENTS_BYTES)
    lines = content.split(b"\n")
    if not lines[-1]:
        lines.pop()
    found = [_event(line) for line in lines]
    events = tuple(event for event in found if event is not None)
    return events, len(found) - len(events) + int(is_cut)


def read_stream(path: Path) -> Stream:
    """Every whole row of a stream; see `Stream` for shapes.

    Raises `UnreadableLog` where there is no such regular file, or its header is damaged.
    """
    content, _ = regular_content(path, STREAM_BYTES)
    return decode_stream(content, os.fspath(path))


def _event(line: bytes) -> JsonObject | None:
    if len(line) > EVENT_LINE_BYTES:
        return None
    try:
        event = json.loads(line.decode())
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and isinstance(event.get("event"), str) else None


def read_object(path: Path, schema: str, most: int = JSON_BYTES) -> JsonObject:
    """The JSON object in a file of ours that names `schema`, of its own number or a minor one.

    A file of more than `most` bytes is refused.
    """
    content, is_cut = regular_content(path, most)
    where = os.fspath(path)
    try:
        told = None if is_cut else json.loads(content)
    except (ValueError, RecursionError):
        told = None
    if not isinstance(told, dict):
        raise UnreadableLog(where=where, what="not a JSON object")
    name, _, version = schema.partition("/")
    written_name, _, written = str(told.get("schema", "")).partition("/")
    if written_name != name:
        raise UnreadableLog(where=where, what=f"not an {name} file")
    if written.partition(".")[0] != version:
        what = f"format {written[:20]} is not known, only {version}"
        by = str(told.get("nndiag", ""))[:20]
        do = f"read it with the nndiag that wrote it{by and f': {by}'}"
        raise UnknownVersion(where=where, what=what, do=do)
    return told


def _rank(folder: str, rank: int, attempt: int) -> RankJournal:
    numbered: dict[str, list[tuple[int, str]]] = {"steps": [], "layers": []}
    for name in _names(folder):
        matched = re.fullmatch(r"(steps|layers)-([0-9]{1,6})\.arrows", name)
        if matched:
            numbered[matched[1]].append((int(matched[2]), os.path.join(folder, name)))
    steps, layers = (tuple(path for _, path in sorted(files)) for files in numbered.values())
    return RankJournal(rank, attempt, folder, steps, layers)


def _reason_in(path: str) -> str:
    """The first line of a file that says why watching did not start."""
    try:
        content, _ = regular_content(path, most=4096)
    except UnreadableLog:
        return ""
    return content.decode("utf-8", errors="replace").strip().partition("\n")[0]


def _names(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except (OSError, ValueError) as error:
        raise UnreadableLog(where=folder, what=_reason(error)) from None


def regular_content(path: Path, most: int) -> tuple[bytes, bool]:
    """What the regular file at `path` holds now, up to `most` bytes; whether there is more."""
    where = os.fspath(path)
    # Not blocking: opening a FIFO would wait for ever for its writer.
    flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    flags |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        fd = os.open(path, flags)
    except (OSError, ValueError) as error:
        raise UnreadableLog(where=where, what=_reason(error)) from None
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise UnreadableLog(where=where, what="not a regular file")
        if status.st_size > HOLLOW and getattr(status, "st_blocks", HOLLOW) * 512 < HOLLOW >> 10:
            raise UnreadableLog(where=where, what="a long file with nothing written in it")
        return _read(fd, min(status.st_size, most)), status.st_size > most
    except OSError as error:
        raise UnreadableLog(where=where, what=_reason(error)) from None
    finally:
        os.close(fd)


def _read(fd: int, size: int) -> bytes:
    """The first `size` bytes, or fewer where the file has shrunk. Mostly one read, never copied."""
    parts = [os.read(fd, size)]
    while parts[-1] and (size := size - len(parts[-1])) > 0:
        parts.append(os.read(fd, size))
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _reason(error: OSError | ValueError) -> str:
    if isinstance(error, FileNotFoundError):
        return "does not exist"
    if isinstance(error, OSError) and error.errno == errno.ELOOP:
        return "a symbolic link, which is not followed"
    return getattr(error, "strerror", None) or str(error)
