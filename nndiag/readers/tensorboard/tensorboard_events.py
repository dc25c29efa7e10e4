"""TensorBoard event files: torch, tensorboardX, Lightning, Hugging Face, Keras, TensorFlow 1 and 2.

A run is a folder, see `event_folder`; how the files are decoded, see `event_scalars`. All values
are read: TensorBoard itself shows a sample of 1000 to 10 000 for each tag.

Quirks met in the wild: each start writes a new file beside the old one, beginning at an earlier
step; training and validation in different files; validation counted in epochs where training is
counted in steps; most files of Lightning hold `hp_metric` alone.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from nndiag.errors import UnreadableLog
from nndiag.readers.formats.hf_trainer_state import FILTERED
from nndiag.readers.lines.text_lines import head_of
from nndiag.readers.tables.columns import run_of
from nndiag.readers.tensorboard.event_folder import MARK, Part, is_run, run_folder
from nndiag.readers.tensorboard.event_layout import layout_of
from nndiag.readers.tensorboard.event_scalars import MAX_VALUES, EventFile
from nndiag.readers.tensorboard.event_table import Written, table_of
from nndiag.readers.tensorboard.tfrecord import HEADER, MAX_RECORD, RecordFile, length_at
from nndiag.readers.wire import Malformed
from nndiag.records import Run

name = "tensorboard"

LIGHTNING_PLACEHOLDER = "hp_metric"
HF_TEXT = "args/text_summary"  # transformers.integrations.TensorBoardCallback writes it at first
_PLURALS = {
    "mesh": "meshes", "summary too long to read whole": "summaries too long to read whole",
    "run metadata": "run metadata", "record of a plugin": "records of plugins",
}  # fmt: skip
LFS = b"version https://git-lfs"  # how a pointer to a file that was not downloaded begins
LOG_SCALARS = "log the loss with writer.add_scalar(tag, value, step) at each step"


def recognises(path: Path, head: bytes) -> str | None:
    """Why this looks like an event file, or a folder of them; None if it does not."""
    if not head:
        return is_run(path)
    length = length_at(head, 0)
    if length is None or length > MAX_RECORD:
        is_binary = b"\0" in head[:HEADER] or head.startswith(LFS)
        return f"it is called {path.name}" if MARK in path.name and is_binary else None
    end = HEADER + length
    try:
        layout = layout_of(head, HEADER, min(end, len(head)), {})
    except Malformed:
        return None
    # old versions of tensorboardX begin with a record of the time alone
    is_event = layout.time >= 0 and (layout.others or layout.scalars or MARK in path.name)
    return "records of TensorBoard events" if is_event else None


def merged_folders(folder: Path) -> Sequence[Path]:
    """The folders in `folder` that belong to its run: `train/`, `validation/`, `loss_val/`."""
    found = run_folder(folder)
    merged = [*(part.folder for part in found.parts if part.folder != folder), *found.passed]
    # of loss/train/ the upper one, which by itself would look like a run with a train/ folder
    return sorted({folder / path.relative_to(folder).parts[0] for path in merged})


def read(path: Path, loss: str | None = None) -> Run:
    """The run in a folder, or in one event file; `loss` names the series to take for the loss.

    Raises:
        UnreadableLog: it holds no scalars, no loss, or no series called `loss`.
    """
    parts: tuple[Part, ...] = (Part(path.parent, (path,)),)
    if os.path.isdir(path):  # not Path.is_dir: a name that is too long makes it raise
        parts = run_folder(path).parts
        if not parts:
            raise UnreadableLog(where=str(path), what="no event file (*tfevents*) in this folder")
    reading = _Reading(path)
    for part in parts:
        reading.add(part)
    if not reading.written:
        raise reading.nothing()
    table, notes = table_of(reading.written)
    is_hf = HF_TEXT in reading.texts
    return run_of(
        table,
        path=str(path),
        format=name,
        loss=loss,
        notes=(*reading.notes(), *notes, *([FILTERED] if is_hf else [])),
        blind=("loss non-finite",) if is_hf else (),
    )


@dataclass(slots=True)
class _Reading:
    """What was found in the files of a run."""

    path: Path
    written: list[Written] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)
    texts: set[str] = field(default_factory=set)
    tags: set[str] = field(default_factory=set)
    files: int = 0
    merged: list[str] = field(default_factory=list)  # names of folders
    records: int = 0
    pointers: int = 0  # files that only say where they are
    empty: int = 0  # files
    said: list[str] = field(default_factory=list)
    failed: list[UnreadableLog] = field(default_factory=list)

    def add(self, part: Part) -> None:
        for path in part.files:
            self._add_file(part, path)
        if part.folder != self.path and part.folder != self.path.parent:
            self.merged.append(part.folder.relative_to(self.path).as_posix())

    def _add_file(self, part: Part, path: Path) -> None:
        file = EventFile(path, MAX_VALUES - sum(len(one.scalars) for one in self.written))
        try:
            scalars, frames = file.read()
        except UnreadableLog as error:
            self.failed.append(error)
            return
        self.files += 1
        if not file.records:
            head = head_of(path)
            self.pointers += head.startswith(LFS)
            self.empty += not head
        self.records += file.records
        self.others += file.others
        self.texts |= file.texts
        self.tags.update(file.names)
        shown = f"{path.name}: " if path != self.path else ""
        self.said += [f"{shown}{remark}" for remark in _damage(file, frames)]
        if len(scalars) and file.names != [LIGHTNING_PLACEHOLDER]:
            names = [part.name_of(tag) for tag in file.names]
            self.written.append(Written(part.folder, names, scalars))

    def notes(self) -> list[str]:
        notes = []
        if self.files > 1:
            notes.append(f"{self.files} event files, in the order of their times")
        if self.merged:
            notes.append(f"folders that belong to this run: {', '.join(sorted(self.merged)[:8])}")
        notes += [f"left out: {error}" for error in self.failed[:3]]
        notes += self.said[:8]
        if len(self.said) > 8:
            notes.append(f"damage in {len(self.said) - 8} more places")
        left_out = self._left_out()
        return [*notes, f"left out, no scalars: {left_out}"] if left_out else notes

    def _left_out(self) -> str:
        shown = [(what, n) for what, n in sorted(self.others.items()) if what != "file version"]
        return ", ".join(f"{n} {_plural(what, n)}" for what, n in shown)

    def nothing(self) -> UnreadableLog:
        """The error for files without a scalar: what is in them instead."""
        where, left_out = str(self.path), self._left_out()
        if self.failed and not self.files:
            return self.failed[0]
        if self.tags == {LIGHTNING_PLACEHOLDER}:
            return UnreadableLog(
                where=where,
                what=f"holds only {LIGHTNING_PLACEHOLDER}, which Lightning writes at the start",
                do="log the loss: self.log('train_loss', loss); or read another version_N",
            )
        if not self.records and self.empty == self.files:
            return UnreadableLog(where=where, what="is empty: the writer was killed at its start")
        if not self.records and self.pointers:
            what = f"only a pointer of Git LFS in the place of {MARK}"
            return UnreadableLog(where=where, what=what, do="download the files: git lfs pull")
        if not self.records:
            said = f": {self.said[0]}" if self.said else ""
            return UnreadableLog(where=where, what=f"no event in it is readable{said}")
        what = f"holds no scalar, only {left_out}" if left_out else "nothing was logged into it"
        if self.said:
            what = f"{what} ({self.said[0]})"
        return UnreadableLog(where=where, what=what, do=LOG_SCALARS)


def _damage(file: EventFile, frames: RecordFile) -> list[str]:
    """What of a file could not be read, in words."""
    said = []
    if frames.torn_bytes:
        said.append("the last record is cut off: left out")
    if frames.lost_bytes:
        where = "1 place" if frames.gaps == 1 else f"{frames.gaps} places"
        said.append(f"{frames.lost_bytes} bytes in {where} belong to no record")
    if file.damaged:
        said.append(f"{file.damaged} records left out: wrong checksum, or no events")
    if frames.oversized:
        said.append(f"{frames.oversized} records above {MAX_RECORD >> 20} MiB left out")
    if file.dropped:
        said.append(f"{file.dropped} values left out: too many, or of too many or too long names")
    return said


def _plural(what: str, count: int) -> str:
    if count == 1:
        return what
    return _PLURALS.get(what, f"{what}s")
