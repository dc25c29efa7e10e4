"""Where the runs are: a file, a folder to search, a glob, or standard input.

`search` opens no log: it lists what may be one, as `Source`s that are cheap to hand to another
process. `read` makes a `Run` of a source; that is when a file is asked what it is.
"""

from __future__ import annotations

import dataclasses
import glob
import os
import shutil
import stat
import sys
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from nndiag.errors import UnreadableLog
from nndiag.readers import run_directory
from nndiag.readers.base import Reader, SharedFolder, Store
from nndiag.readers.catalogue import chosen
from nndiag.readers.lines.text_lines import head_of, uncompressed_name
from nndiag.records import Run
from nndiag.vocabulary.names import words_of

MAX_DEPTH = 8  # folders in folders
MAX_ENTRIES = 100_000  # files and folders that a search looks at
FEWEST_POINTS = 3  # of the loss, for a file that nobody named: a result, or a text that quotes one
STANDARD_INPUT = "-"
SQLITE = b"SQLite format 3\0"
# In a folder only these are opened; a file that is named is opened whatever it is called.
LOG_SUFFIXES = words_of(
    ".csv .tsv .json .jsonl .ndjson .log .txt .out .err .stdout .wandb .db .sqlite .sqlite3"
)
LOG_NAMES = frozenset(["log", "stdout", "lcurve.out", "nohup.out"])
# What lies beside logs and looks like them.
OTHER_NAMES = words_of(
    "config.json run.json process.json package.json tokenizer.json tokenizer_config.json "
    "vocab.json special_tokens_map.json generation_config.json requirements.txt readme.txt "
    "license.txt merges.txt hparams.json args.json"
)
OTHER_FOLDERS = frozenset(["__pycache__", "node_modules", "site-packages", "venv"])
_DATABASES = words_of(".db .sqlite .sqlite3")


@dataclass(frozen=True, slots=True)
class Source:
    """Where one run may be."""

    path: str
    reader: str = ""  # the reader's name; "" where it is found out when read
    run: str = ""  # which one, in a store of several
    why: str = ""  # how the reader knew
    is_named: bool = False  # by the user: what cannot be read of it is an error and not left out

    def __str__(self) -> str:
        return f"{self.path}#{self.run}" if self.run else self.path


@dataclass(frozen=True, slots=True)
class Skipped:
    """What a search looked at and left out."""

    path: str
    reason: str


def search(
    path: str | os.PathLike[str], *, reader: str | None = None
) -> Iterator[Source | Skipped]:
    """Everything under `path` that may be a run: a log, a folder, a glob, or "-".

    `reader` forces a format. Deterministic: the order is that of the names.

    Raises:
        UnreadableLog: `path` does not exist, cannot be opened, or holds nothing like a log.
        BadUsage: no reader is called `reader`.
    """
    readers, text = chosen(reader), os.fspath(path)
    if text == STANDARD_INPUT:
        yield Source(text, reader or "", is_named=True)
        return
    # os.path, not Path: a name that is too long or holds a NUL is only one that does not exist
    if not os.path.exists(text) and glob.has_magic(text):
        yield from _of_glob(text, reader)
    elif os.path.isdir(text):
        yield from _or_nothing(text, _of_folder(Path(text), readers))
    else:
        yield from _of_file(Path(text), readers, is_named=True)


def read(source: Source, loss: str | None = None) -> Run:
    """The run of a source; `loss` names the series to take for the loss.

    Raises:
        UnreadableLog: it cannot be read, no reader recognises it, or it holds no loss.
    """
    if source.path == STANDARD_INPUT:
        return _of_standard_input(source, loss)
    path = Path(source.path)
    if source.run:
        [store] = chosen(source.reader)
        assert isinstance(store, Store)
        return store.read_run(path, source.run, loss)
    if source.reader:
        [reader], why = chosen(source.reader), source.why
    else:
        reader, why = _recognised(path)
    run = reader.read(path, loss)
    if why and reader is not run_directory:  # of our own there is nothing to wonder about
        run = dataclasses.replace(run, notes=(f"read as {reader.name}: {why}", *run.notes))
    points = max((len(series) for series in run.series_of("loss")), default=0)
    if not source.is_named and not source.reader and points < FEWEST_POINTS:
        raise UnreadableLog(where=str(path), what=f"only {points} values of the loss")
    return run


def nothing_in(where: str, skipped: Sequence[Skipped]) -> UnreadableLog:
    """The one error for a folder or a glob without a run: what was looked for and looked at."""
    what = "no run found: nothing in it is called like a log"
    if skipped:
        shown = "; ".join(f"{Path(one.path).name}: {one.reason}" for one in skipped[:3])
        more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        what = f"no run found in {len(skipped)} files: {shown}{more}"
    return UnreadableLog(
        where=where,
        what=what,
        do="looked for: nndiag, W&B, TensorBoard, MLflow, Trackio and DVCLive runs, "
        "trainer_state.json, CSV, TSV, JSON, JSON lines, text logs (.log .txt .out .err)",
    )


def _recognised(path: Path) -> tuple[Reader, str]:
    """(reader, reason) by the first bytes of a file."""
    head = head_of(path)
    if not head:
        raise UnreadableLog(where=str(path), what="is empty")
    readers = chosen(None)
    for reader in readers:
        reason = reader.recognises(path, head)
        if reason:
            return reader, reason
    raise UnreadableLog(
        where=str(path),
        what="is no log of a format that we know",
        do=f"name the format: --reader {'|'.join(one.name for one in readers)}",
    )


def _of_file(path: Path, readers: Sequence[Reader], *, is_named: bool) -> Iterator[Source]:
    """A file is one source, but for a database of several runs.

    Raises:
        UnreadableLog: a database that cannot be read.
    """
    forced = readers[0] if len(readers) == 1 else None
    is_database = is_named or path.suffix.lower() in _DATABASES
    if is_database and (head := head_of(path)).startswith(SQLITE):
        for reader in readers:
            reason = reader.recognises(path, head)
            if isinstance(reader, Store) and (reason or forced):
                yield from _runs_of(reader, path, reason or "", is_named=is_named)
                return
    yield Source(str(path), forced.name if forced else "", is_named=is_named)


def _runs_of(store: Store, path: Path, why: str, *, is_named: bool) -> Iterator[Source]:
    for run in store.runs_in(path):
        yield Source(str(path), store.name, run, why, is_named)


def _of_glob(pattern: str, reader: str | None) -> Iterator[Source | Skipped]:
    def matches() -> Iterator[Source | Skipped]:
        for match in sorted(glob.glob(pattern, recursive=True))[:MAX_ENTRIES]:
            try:
                for one in search(match, reader=reader):
                    if isinstance(one, Source):
                        one = dataclasses.replace(one, is_named=False)
                    yield one
            except UnreadableLog as error:
                yield Skipped(match, error.what)

    return _or_nothing(pattern, matches())


def _or_nothing(where: str, found: Iterator[Source | Skipped]) -> Iterator[Source | Skipped]:
    """What was found; an error if there is no source in it."""
    skipped: list[Skipped] = []
    is_empty = True
    for one in found:
        if isinstance(one, Skipped):
            skipped.append(one)
        else:
            is_empty = False
        yield one
    if is_empty:
        raise nothing_in(where, skipped)


def _of_folder(folder: Path, readers: Sequence[Reader]) -> Iterator[Source | Skipped]:
    """Folder by folder, breadth first; a folder that is a run is not searched further."""
    pending, entries = [(folder, 0)], 0
    while pending:
        here, depth = pending.pop(0)
        is_named = depth == 0
        merged: frozenset[Path] = frozenset()
        owner = next((one for one in readers if one.recognises(here, b"")), None)
        if owner is not None:
            try:
                yield from _run_folder(owner, here, is_named=is_named)
            except UnreadableLog as error:
                if is_named:
                    raise
                yield Skipped(str(here), error.what)
            if not isinstance(owner, SharedFolder):
                continue
            merged = frozenset(owner.merged_folders(here))
        try:
            # Not Path.iterdir: scandir tells the kind without following links
            with os.scandir(here) as listing:
                found = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            yield Skipped(str(here), f"cannot be listed: {error.strerror or error}")
            continue
        for entry in found:
            entries += 1
            if entries > MAX_ENTRIES:
                yield Skipped(str(here), f"more than {MAX_ENTRIES} entries: search ended")
                return
            path, kind = Path(entry.path), _kind(entry)
            if stat.S_ISDIR(kind):
                if not _is_other_folder(entry.name) and path not in merged:
                    if depth + 1 < MAX_DEPTH:
                        pending.append((path, depth + 1))
                    else:
                        yield Skipped(str(path), f"below {MAX_DEPTH} folders: not searched")
            elif _may_be_log(path):
                yield from _entry(path, kind, readers)


def _run_folder(owner: Reader, folder: Path, *, is_named: bool) -> Iterator[Source]:
    why = owner.recognises(folder, b"") or ""
    if isinstance(owner, Store):
        yield from _runs_of(owner, folder, why, is_named=is_named)
    else:
        yield Source(str(folder), owner.name, why=why, is_named=is_named)


def _entry(path: Path, kind: int, readers: Sequence[Reader]) -> Iterator[Source | Skipped]:
    if not stat.S_ISREG(kind):
        yield Skipped(str(path), "is a link or no regular file")
        return
    try:
        yield from _of_file(path, readers, is_named=False)
    except UnreadableLog as error:
        yield Skipped(str(path), error.what)


def _kind(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_mode
    except OSError:
        return 0


def _is_other_folder(name: str) -> bool:
    return name.startswith(".") or name.lower() in OTHER_FOLDERS


def _may_be_log(path: Path) -> bool:
    name = uncompressed_name(path).lower()
    if name.startswith(".") or name in OTHER_NAMES:
        return False
    return Path(name).suffix in LOG_SUFFIXES or name in LOG_NAMES


def _of_standard_input(source: Source, loss: str | None) -> Run:
    """Standard input goes to a file first: a reader may need two looks at it."""
    with tempfile.NamedTemporaryFile(prefix="nndiag-", suffix=".stdin") as copy:
        try:
            shutil.copyfileobj(sys.stdin.buffer, copy)
            copy.flush()
        except OSError as error:
            what = f"cannot be read: {error.strerror or error}"
            raise UnreadableLog(where=STANDARD_INPUT, what=what) from None
        try:
            run = read(dataclasses.replace(source, path=copy.name), loss)
        except UnreadableLog as error:
            do = error.do.replace(copy.name, STANDARD_INPUT)
            raise UnreadableLog(where=STANDARD_INPUT, what=error.what, do=do) from None
        return dataclasses.replace(run, path=STANDARD_INPUT)
