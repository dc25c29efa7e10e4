"""Which reader reads what: a file, a folder to search, a glob, or standard input."""

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

from nndiag.errors import BadUsage, UnreadableLog
from nndiag.readers import csv_table, hf_trainer_state, json_lines, plain_text, run_directory
from nndiag.readers.base import Reader
from nndiag.readers.text_lines import head_of
from nndiag.records import Run
from nndiag.vocabulary.names import words_of

# In the order they are asked: the surest sign first, a text last.
READERS: tuple[Reader, ...] = (run_directory, hf_trainer_state, json_lines, csv_table, plain_text)

MAX_DEPTH = 8  # folders in folders
MAX_ENTRIES = 100_000  # files and folders that a search looks at
FEWEST_POINTS = 3  # of the loss, for a file that nobody named: a result, or a text that quotes one
STANDARD_INPUT = "-"
# In a folder only these are opened; a file that is named is opened whatever it is called.
LOG_SUFFIXES = words_of(".csv .tsv .json .jsonl .ndjson .log .txt .out .err .stdout")
LOG_NAMES = frozenset(["log", "stdout", "lcurve.out", "nohup.out"])
# What lies beside logs and looks like them.
OTHER_NAMES = words_of(
    "config.json run.json process.json package.json tokenizer.json tokenizer_config.json "
    "vocab.json special_tokens_map.json generation_config.json requirements.txt readme.txt "
    "license.txt merges.txt hparams.json args.json"
)
OTHER_FOLDERS = frozenset(["__pycache__", "node_modules", "site-packages", "venv"])


@dataclass(frozen=True, slots=True)
class Skipped:
    """A file that a search looked into and left out."""

    path: str
    reason: str


@dataclass(frozen=True, slots=True)
class Found:
    """What a path holds."""

    runs: tuple[Run, ...]  # at least one
    skipped: tuple[Skipped, ...] = ()


def find_runs(
    path: str | os.PathLike[str], *, reader: str | None = None, loss: str | None = None
) -> Found:
    """Every run that `path` holds: a log, a run directory, a folder of them, a glob, or "-".

    `reader` forces a format, `loss` names the series to take for the loss.

    Raises:
        UnreadableLog: there is no run in it, or it cannot be read.
        BadUsage: no reader is called `reader`.
    """
    text = os.fspath(path)
    readers = _chosen(reader)
    if text == STANDARD_INPUT:
        return Found((_of_standard_input(readers, loss),))
    plain = Path(text)
    # os.path, not Path: a name that is too long or holds a NUL is only one that does not exist
    if not os.path.exists(text) and glob.has_magic(text):
        return _of_glob(text, readers, loss)
    if os.path.isdir(text):
        return _of_folder(plain, readers, loss)
    return Found((read_file(plain, readers, loss),))


def _chosen(name: str | None) -> Sequence[Reader]:
    if name is None:
        return READERS
    chosen = [reader for reader in READERS if reader.name == name]
    if not chosen:
        known = ", ".join(reader.name for reader in READERS)
        raise BadUsage(where="--reader", what=f"no reader is called {name!r}", do=f"known: {known}")
    return chosen


def read_file(path: Path, readers: Sequence[Reader] = READERS, loss: str | None = None) -> Run:
    """The run in a file; a single reader is not asked whether it recognises it.

    Raises:
        UnreadableLog: it cannot be read, no reader recognises it, or it holds no loss.
    """
    head = head_of(path)
    if not head:
        raise UnreadableLog(where=str(path), what="is empty")
    if len(readers) == 1:
        return readers[0].read(path, loss)
    for reader in readers:
        reason = reader.recognises(path, head)
        if reason:
            run = reader.read(path, loss)
            said = f"read as {reader.name}: {reason}"
            return dataclasses.replace(run, notes=(said, *run.notes))
    known = ", ".join(reader.name for reader in readers)
    raise UnreadableLog(
        where=str(path),
        what=f"is no log of a format that we know ({known})",
        do="name the format: --reader text",
    )


def _of_standard_input(readers: Sequence[Reader], loss: str | None) -> Run:
    """Standard input goes to a file first: a reader may need two looks at it."""
    with tempfile.NamedTemporaryFile(prefix="nndiag-", suffix=".stdin") as copy:
        try:
            shutil.copyfileobj(sys.stdin.buffer, copy)
            copy.flush()
        except OSError as error:
            what = f"cannot be read: {error.strerror or error}"
            raise UnreadableLog(where=STANDARD_INPUT, what=what) from None
        try:
            run = read_file(Path(copy.name), readers, loss)
        except UnreadableLog as error:
            do = error.do.replace(copy.name, STANDARD_INPUT)
            raise UnreadableLog(where=STANDARD_INPUT, what=error.what, do=do) from None
        return dataclasses.replace(run, path=STANDARD_INPUT)


def _of_glob(pattern: str, readers: Sequence[Reader], loss: str | None) -> Found:
    runs: list[Run] = []
    skipped: list[Skipped] = []
    for match in sorted(glob.glob(pattern, recursive=True))[:MAX_ENTRIES]:
        try:
            found = find_runs(match, loss=loss, reader=_forced(readers))
        except UnreadableLog as error:
            skipped.append(Skipped(match, error.what))
        else:
            runs += found.runs
            skipped += found.skipped
    if not runs:
        raise _nothing(pattern, skipped, "no file matches it")
    return Found(tuple(runs), tuple(skipped))


def _forced(readers: Sequence[Reader]) -> str | None:
    return readers[0].name if len(readers) == 1 else None


def _of_folder(folder: Path, readers: Sequence[Reader], loss: str | None) -> Found:
    own = next((reader for reader in readers if reader.recognises(folder, b"")), None)
    if own is not None:
        return Found((own.read(folder, loss),))
    runs: list[Run] = []
    skipped: list[Skipped] = []
    for path, reader in _candidates(folder, readers, skipped):
        try:
            run = reader.read(path, loss) if reader else read_file(path, readers, loss)
        except UnreadableLog as error:
            skipped.append(Skipped(str(path), error.what))
            continue
        points = max((len(series) for series in run.series_of("loss")), default=0)
        if reader is None and points < FEWEST_POINTS:
            skipped.append(Skipped(str(path), f"only {points} values of the loss"))
        else:
            runs.append(run)
    if not runs:
        raise _nothing(str(folder), skipped, "no file in it is called like a log")
    return Found(tuple(_newest_checkpoints(runs, skipped)), tuple(skipped))


def _candidates(
    folder: Path, readers: Sequence[Reader], skipped: list[Skipped]
) -> Iterator[tuple[Path, Reader | None]]:
    """Run directories with their reader, and files that may be logs, folder by folder."""
    pending, entries = [(folder, 0)], 0
    while pending:
        here, depth = pending.pop(0)
        try:
            # Not Path.iterdir: scandir tells the kind without following links
            with os.scandir(here) as listing:
                found = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            skipped.append(Skipped(str(here), f"cannot be listed: {error.strerror or error}"))
            continue
        for entry in found:
            entries += 1
            if entries > MAX_ENTRIES:
                skipped.append(Skipped(str(here), f"more than {MAX_ENTRIES} entries: search ended"))
                return
            path = Path(entry.path)
            kind = _kind(entry)
            if stat.S_ISDIR(kind) and not _is_other_folder(entry.name):
                reader = next((one for one in readers if one.recognises(path, b"")), None)
                if reader:
                    yield path, reader
                elif depth + 1 < MAX_DEPTH:
                    pending.append((path, depth + 1))
            elif stat.S_ISREG(kind) and _may_be_log(path):
                yield path, None
            elif _may_be_log(path) and not stat.S_ISDIR(kind):
                skipped.append(Skipped(str(path), "is a link or no regular file"))


def _kind(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat(follow_symlinks=False).st_mode
    except OSError:
        return 0


def _is_other_folder(name: str) -> bool:
    return name.startswith(".") or name.lower() in OTHER_FOLDERS


def _may_be_log(path: Path) -> bool:
    name = path.name.lower()
    if name.startswith(".") or name in OTHER_NAMES:
        return False
    return path.suffix.lower() in LOG_SUFFIXES or name in LOG_NAMES


def _newest_checkpoints(runs: Sequence[Run], skipped: list[Skipped]) -> Iterator[Run]:
    """Each checkpoint of a Trainer holds the whole history so far: the longest one is enough."""
    longest: dict[Path, Run] = {}
    for run in runs:
        home = _home_of_checkpoint(run)
        if home is not None and _last_step(run) >= _last_step(longest.get(home, run)):
            longest[home] = run
    for run in runs:
        home = _home_of_checkpoint(run)
        if home is None or longest[home] is run:
            yield run
        else:
            skipped.append(Skipped(run.path, f"its history is in {longest[home].path} too"))


def _home_of_checkpoint(run: Run) -> Path | None:
    """The output folder of the Trainer that wrote a state."""
    if run.format != hf_trainer_state.name:
        return None
    folder = Path(run.path).parent
    return folder.parent if folder.name.startswith("checkpoint-") else folder


def _last_step(run: Run) -> int:
    return max((int(series.steps[-1]) for series in run.series if len(series)), default=-1)


def _nothing(where: str, skipped: Sequence[Skipped], otherwise: str) -> UnreadableLog:
    """The one error for a folder or a glob without a run: what was looked for and looked at."""
    what = f"no run found: {otherwise}"
    if skipped:
        shown = "; ".join(f"{Path(one.path).name}: {one.reason}" for one in skipped[:3])
        more = f"; and {len(skipped) - 3} more" if len(skipped) > 3 else ""
        what = f"no run found in {len(skipped)} files: {shown}{more}"
    return UnreadableLog(
        where=where,
        what=what,
        do="looked for: nndiag run directories, trainer_state.json, CSV, TSV, JSON, JSON lines, "
        "text logs (.log .txt .out .err)",
    )
