"""Weights & Biases: a `.wandb` file, a run folder, or the `wandb/` folder of many runs.

`wandb/run-<date>_<time>-<id>/` (or `offline-run-...`) holds `run-<id>.wandb`, the log of all that
was sent (see wandb_datastore.py, wandb_history.py), and `files/` with `output.log`, the console. A
run that was resumed has one folder for each start, with the same id: they are read as one, in the
order of their times. `latest-run` is a link to one of them. Clients up to 0.9 wrote no `.wandb` but
`wandb-history.jsonl`.

Nothing of wandb is needed, and nothing of a run's configuration is shown: it may hold secrets.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from nndiag.errors import UnreadableLog
from nndiag.readers.formats import json_lines, plain_text
from nndiag.readers.tables.columns import run_of
from nndiag.readers.tables.zero_padding import without_zeros
from nndiag.readers.wandb.wandb_axis import with_one_axis
from nndiag.readers.wandb.wandb_datastore import Datastore, is_datastore
from nndiag.readers.wandb.wandb_history import History
from nndiag.readers.wire import BYTES, VARINT, Malformed, fields, signed, varint
from nndiag.records import Run

name = "wandb"

MAX_ENTRIES = 100_000  # of a folder that are looked at
MAX_TEXT = 200  # bytes of a name that are shown
# what else lies in wandb/, beside the folders of runs
DEBRIS = frozenset(["latest-run", "debug.log", "debug-internal.log", "debug-cli.root.log"])

_RUN_FOLDER = re.compile(r"(?:offline-)?run-([0-9]{8}_[0-9]{6})-(.{1,128})", re.ASCII | re.DOTALL)
_RUN_FILE = re.compile(r"run-(.{1,128})\.wandb", re.DOTALL)
# fields of a record
_TELEMETRY, _RUN, _EXIT, _HEADER, _PREEMPTING = 11, 17, 18, 21, 23


def recognises(path: Path, head: bytes) -> str | None:
    """Why this looks like W&B's; None if it does not."""
    if head:
        return "it begins with ':W&B'" if is_datastore(head) else None
    if path.suffix == ".wandb" and os.path.isfile(path):
        return "it is called .wandb"  # and is empty: the run was killed
    if _is_run_folder(path):
        return "it is the folder of a W&B run"
    return "it holds folders of W&B runs" if _is_store(path) else None


def runs_in(path: Path) -> Sequence[str]:
    """The ids of the runs in a `wandb/` folder, a run's folder, or a `.wandb` file; oldest first.

    Raises:
        UnreadableLog: it cannot be listed, or holds no run.
    """
    if not os.path.isdir(path) or _is_run_folder(path):
        return (_id_of(path),)
    runs = tuple(dict.fromkeys(folder.id for folder in _run_folders(path)))
    if not runs:
        raise UnreadableLog(where=str(path), what="holds no folder of a W&B run")
    return runs


def read(path: Path, loss: str | None = None) -> Run:
    """The only run in a `wandb/` folder, a run's folder, or a `.wandb` file.

    Raises:
        UnreadableLog: it has no history and no other log, no loss, or there are several runs.
    """
    if not os.path.isdir(path):
        return _of_file(path, loss)
    if _is_run_folder(path):
        return _of_folders(path, [path], loss)
    runs = runs_in(path)
    if len(runs) > 1:
        listed = ", ".join(runs[:8]) + (", ..." if len(runs) > 8 else "")
        do = f"name a run's folder; the ids: {listed}"
        raise UnreadableLog(where=str(path), what=f"holds {len(runs)} runs", do=do)
    return _of_folders(path, [f.path for f in _run_folders(path)], loss)


def read_run(path: Path, run: str, loss: str | None = None) -> Run:
    """The run of that id; `loss` names the series to take for the loss.

    Raises:
        UnreadableLog: as `read`; or there is no such run.
    """
    if run not in runs_in(path):
        raise UnreadableLog(where=str(path), what=f"holds no run {run!r}")
    if not os.path.isdir(path):
        found = _of_file(path, loss)
    elif _is_run_folder(path):
        found = _of_folders(path, [path], loss)
    else:
        found = _of_folders(path, [f.path for f in _run_folders(path) if f.id == run], loss)
    return replace(found, path=f"{path}#{run}")


@dataclass(frozen=True, slots=True, order=True)
class _RunFolder:
    """One start of a run."""

    time: str  # "20240131_235959"
    path: Path
    id: str


def _is_run_folder(path: Path) -> bool:
    """Called so, or a link to one that is, or one with another name."""
    if not os.path.isdir(path):
        return False
    if _RUN_FOLDER.fullmatch(os.path.basename(os.path.realpath(path))):
        return True
    return os.path.isdir(path / "files") and len(_files_in(path)) == 1


def _is_store(path: Path) -> bool:
    """It holds folders of runs; one that is not called wandb holds nothing else."""
    is_named_so = path.name == "wandb"
    has_run = False
    try:
        with os.scandir(path) as listing:
            for entry in listing:
                if _RUN_FOLDER.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False):
                    has_run = True
                    if is_named_so:
                        return True
                elif not is_named_so and entry.name not in DEBRIS:
                    return False
    except OSError:
        return False
    return has_run


def _run_folders(store: Path) -> list[_RunFolder]:
    """The folders of runs, oldest first; links are not followed."""
    found = []
    try:
        with os.scandir(store) as listing:
            for count, entry in enumerate(listing):
                match = _RUN_FOLDER.fullmatch(entry.name)
                if match and entry.is_dir(follow_symlinks=False):
                    found.append(_RunFolder(match[1], Path(entry.path), match[2]))
                if count >= MAX_ENTRIES:
                    break
    except OSError as error:
        what = f"cannot be listed: {error.strerror or error}"
        raise UnreadableLog(where=str(store), what=what) from None
    return sorted(found)


def _files_in(folder: Path) -> list[Path]:
    """Its `.wandb` files; those of a run have its id in their name."""
    try:
        with os.scandir(folder) as listing:
            names = [entry.name for entry in listing if _RUN_FILE.fullmatch(entry.name)]
    except OSError:
        return []
    return [folder / name for name in sorted(names)]


def _id_of(path: Path) -> str:
    own = os.path.basename(os.path.realpath(path))
    match = _RUN_FILE.fullmatch(own)
    if match:
        return match[1]
    match = _RUN_FOLDER.fullmatch(own)
    if match:
        return match[2]
    files = _files_in(path) if os.path.isdir(path) else []
    return _id_of(files[0]) if files else own


@dataclass(slots=True)
class _Log:
    """What is in the `.wandb` files of a run."""

    history: History = field(default_factory=History)
    starts: list[int] = field(default_factory=list)  # the first row of each file
    id: str = ""
    display_name: str = ""
    client: str = ""  # version
    exit_code: int | None = None  # None: no record of an end
    is_preempted: bool = False
    damage: list[str] = field(default_factory=list)

    def read(self, path: Path) -> None:
        """Adds a file.

        Raises:
            UnreadableLog: it is empty, or no `.wandb` file.
        """
        self.exit_code, self.is_preempted = None, False
        self.starts.append(self.history.height)
        datastore = Datastore(path)
        for batch in datastore.batches():
            for record in self.history.take(batch):
                try:
                    self._note(record)
                except Malformed:
                    self.history.malformed += 1
        self.damage += datastore.damage()

    def notes(self) -> Iterator[str]:
        who = f"W&B run {self.id or '(no id)'}"
        who += f" {self.display_name!r}" if self.display_name else ""
        yield who + (f", written by wandb {self.client}" if self.client else "")
        if self.exit_code:
            yield f"W&B says that the run failed: exit code {self.exit_code}"
        if self.exit_code is None:
            yield "W&B has no record of its end: killed, or still running"
        if self.is_preempted:
            yield "W&B says that the run was preempted"
        yield from self.damage

    def _note(self, record: bytes) -> None:
        """What a record tells that is no row."""
        for number, kind, start, end in fields(record):
            if kind != BYTES:
                continue
            if number == _RUN:
                texts = _texts(record, start, end)
                self.id = texts.get(1) or self.id
                self.display_name = texts.get(8) or self.display_name
            elif number == _HEADER:
                for own, own_kind, at, after in fields(record, start, end):
                    if own == 1 and own_kind == BYTES:
                        version = _texts(record, at, after).get(1, "")
                        self.client = version.partition("+")[0] or self.client
            elif number == _TELEMETRY:  # old clients say only here which version they are
                self.client = self.client or _texts(record, start, end).get(5, "")
            elif number == _EXIT:
                self.exit_code = 0
                for own, own_kind, at, after in fields(record, start, end):
                    if own == 1 and own_kind == VARINT:
                        self.exit_code = signed(varint(record, at, after)[0])
            elif number == _PREEMPTING:
                self.is_preempted = True


def _texts(record: bytes, start: int, end: int) -> dict[int, str]:
    """The short texts of a message, by field."""
    return {
        number: record[at:after].decode(errors="replace")
        for number, kind, at, after in fields(record, start, end)
        if kind == BYTES and after - at <= MAX_TEXT
    }


def _of_file(path: Path, loss: str | None) -> Run:
    try:
        return _of_files(path, [path], loss)
    except _NoHistory as error:
        if not _is_run_folder(path.parent):
            raise
        return _of_other_files(path, [path.parent], loss, error)


def _of_folders(path: Path, folders: Sequence[Path], loss: str | None) -> Run:
    """The run whose starts have these folders."""
    files = [file for folder in folders for file in _files_in(folder)[:1]]
    if files:
        try:
            return _of_files(path, files, loss)
        except _NoHistory as error:
            nothing = error
    else:
        nothing = _NoHistory(where=str(path), what="holds no .wandb file")
    return _of_other_files(path, folders, loss, nothing)


class _NoHistory(UnreadableLog):
    """Nothing was logged, or it is lost."""


def _of_files(path: Path, files: Sequence[Path], loss: str | None) -> Run:
    """The run in these files, one after the other."""
    log, empty = _Log(), []
    for file in files:
        try:
            log.read(file)
        except UnreadableLog as error:
            if len(files) == 1:
                what = error.what if file == path else f"{file.name} {error.what}"
                raise _NoHistory(where=str(path), what=what, do=error.do) from None
            empty.append(f"{file.parent.name}: {error.what}")
    if not log.history.height:
        why = "; ".join([*empty, *log.damage])
        what = "has no history: nothing was logged, or it is lost" + (f" ({why})" if why else "")
        raise _NoHistory(where=str(path), what=what, do="wandb.log({'loss': ...}) writes it")
    table, axis_notes = with_one_axis(log.history.table(), loss, log.starts[1:])
    table, zero_notes = without_zeros(table)
    started = [f"{len(files)} starts of one run, read one after the other"]
    notes = [*log.notes(), *(started if len(files) > 1 else []), *empty, *axis_notes, *zero_notes]
    return run_of(table, path=str(path), format=name, loss=loss, notes=notes)


def _of_other_files(
    path: Path, folders: Sequence[Path], loss: str | None, nothing: UnreadableLog
) -> Run:
    """The newest other log that holds a loss: old clients' history, then what was printed."""
    readers: tuple[tuple[str, Callable[[Path, str | None], Run]], ...] = (
        ("wandb-history.jsonl", json_lines.read),
        ("output.log", plain_text.read),
        ("wandb-summary.json", json_lines.read),
    )
    tried = []
    for file_name, reader in readers:
        for file in (f / where / file_name for f in reversed(folders) for where in ("files", "")):
            if not os.path.isfile(file):
                continue
            try:
                found = reader(file, loss)
            except UnreadableLog as error:
                tried.append(f"{file_name}: {error.what}")
                continue
            why = f"{nothing.what}; {file_name} is read instead"
            return replace(found, path=str(path), format=name, notes=(why, *found.notes))
    what = "; ".join([nothing.what, *tried[:4]])
    raise UnreadableLog(where=str(path), what=what, do=nothing.do)
