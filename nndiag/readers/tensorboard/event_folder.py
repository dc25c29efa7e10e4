"""Which event files are one TensorBoard run: a folder, its splits, its curves.

    run/events.out.tfevents...                    one or several: each start writes a new one
    run/train/, run/validation/, run/eval_0/      Keras, tf.estimator: the same tags once more
    run/loss_train/, run/loss_val/                SummaryWriter.add_scalars("loss", {"train": ...})
    run/loss/train/, run/loss/val/                the same by tensorboardX
    run/1700000000.1234567/                       SummaryWriter.add_hparams: last values, no curve

A folder that only holds folders with event files is several runs, unless these are splits, one of
them the training's.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nndiag.errors import UnreadableLog
from nndiag.readers.lines.text_lines import head_of
from nndiag.readers.tensorboard.event_layout import layout_of
from nndiag.readers.tensorboard.tfrecord import FRAME, HEADER, length_at
from nndiag.readers.wire import Malformed

MARK = "tfevents"  # what TensorBoard itself goes by: events.out.tfevents.1700000000.host.123.0
TRAIN_FOLDERS = frozenset(["train", "training"])
_SPLIT = re.compile(r"train|training|validation|val|valid|eval|evaluation|test|eval_[\w.-]{1,60}")
_SHORT = {"training": "train", "validation": "val", "valid": "val", "evaluation": "eval"}
_HPARAMS = re.compile(r"1[0-9]{9}\.[0-9]{1,9}")  # time.time()
MAX_LISTED = 100_000  # entries of one folder
MAX_FOLDERS = 200  # that are looked into for the curves of a run
CURVE_DEPTH = 3  # folders between a run and one of its curves: "loss/g/train"


@dataclass(frozen=True, slots=True)
class Part:
    """Event files that one writer made, restarts included, in the order of their time stamps."""

    folder: Path
    files: tuple[Path, ...]
    split: str = ""  # stands before the tags: "train", "val"
    curve: str = ""  # stands behind the only tag: "val" of "loss/val"

    def name_of(self, tag: str) -> str:
        is_said = tag.startswith(f"{self.split}/")  # "train/loss" in train/
        return "/".join(filter(None, ("" if is_said else self.split, tag, self.curve)))


@dataclass(frozen=True, slots=True)
class RunFolder:
    """A run and what is merged into it."""

    parts: tuple[Part, ...]
    passed: tuple[Path, ...] = ()  # folders of the run without a curve: hyper-parameters


def is_run(folder: Path) -> str | None:
    """Why `folder` is one run; None if it is none, or several."""
    files, folders = _listing(folder, first_only=True)
    if files:
        return f"it holds {files[0].name}"
    splits = [path for path in folders if _SPLIT.fullmatch(path.name)]
    if len(splits) < 2 or not any(path.name in TRAIN_FOLDERS for path in splits):
        return None
    own = [path for path in splits if _has_events(path)]
    if len(own) < 2 or not any(path.name in TRAIN_FOLDERS for path in own):
        return None  # train/ alone is a run by itself
    others = [path for path in folders if path not in splits][:MAX_FOLDERS]
    if any(_has_events(path) for path in others):
        return None  # a folder of runs, one of which happens to be called "train"
    return f"event files in {' and '.join(path.name + '/' for path in own)}"


def run_folder(folder: Path) -> RunFolder:
    """The parts of the run in `folder`; none if there is no event file."""
    files, folders = _listing(folder)
    parts = [Part(folder, _in_order(files))] if files else []
    splits = [path for path in folders if _SPLIT.fullmatch(path.name) and _has_events(path)]
    short = [_SHORT.get(path.name, path.name) for path in splits]
    for path, split in zip(splits, short, strict=True):
        name = split if short.count(split) == 1 else path.name
        if name.startswith("eval_") and sum(one.startswith("eval") for one in short) == 1:
            name = "eval"
        parts.append(Part(path, _in_order(_listing(path)[0]), split=name))
    passed: list[Path] = []
    if files:
        others = [path for path in folders if path not in splits]
        passed = [path for path in others if _HPARAMS.fullmatch(path.name) and _has_events(path)]
        parts += _curves(folder, [path for path in others if path not in passed])
    return RunFolder(tuple(parts), tuple(passed))


def _curves(run: Path, folders: list[Path]) -> Iterator[Part]:
    """What add_scalars wrote, each curve into a folder of its own."""
    pending = [(path, 1) for path in folders]
    for looked_into in range(MAX_FOLDERS):
        if looked_into >= len(pending):
            return
        here, depth = pending[looked_into]
        files, below = _listing(here)
        if not files:
            if depth < CURVE_DEPTH:
                pending += [(path, depth + 1) for path in below]
            continue
        curve = _curve_of(here.relative_to(run).as_posix(), files[0])
        if curve:
            yield Part(here, _in_order(files), curve=curve)


def _curve_of(place: str, file: Path) -> str:
    """What comes after the tag: "val" of "loss_val" whose file tells of "loss" alone; else ""."""
    try:
        tags = set(_first_tags(head_of(file)))
    except UnreadableLog:
        return ""
    if len(tags) != 1:
        return ""
    [tag] = tags
    for start in (f"{tag}/", f"{tag.replace('/', '_')}_"):
        if place.startswith(start) and len(place) > len(start):
            return place[len(start) :]
    return ""


def _first_tags(head: bytes) -> Iterator[str]:
    """The tags of the scalars in the first bytes of an event file."""
    plugins: dict[bytes, str] = {}
    at = 0
    while (length := length_at(head, at)) is not None and at + length + FRAME <= len(head):
        try:
            layout = layout_of(head, at + HEADER, at + HEADER + length, plugins)
        except Malformed:
            return
        for spot in layout.scalars:
            yield head[slice(*spot.tag)].decode("utf-8", errors="backslashreplace")
        at += length + FRAME


def _has_events(folder: Path) -> bool:
    return bool(_listing(folder, first_only=True)[0])


def _listing(folder: Path, *, first_only: bool = False) -> tuple[list[Path], list[Path]]:
    """(event files, folders) in a folder, by name; links are not followed."""
    files: list[Path] = []
    folders: list[Path] = []
    try:
        with os.scandir(folder) as entries:
            for _, entry in zip(range(MAX_LISTED), entries, strict=False):
                if entry.is_dir(follow_symlinks=False):
                    if not entry.name.startswith("."):
                        folders.append(Path(entry.path))
                elif MARK in entry.name and entry.is_file(follow_symlinks=False):
                    if entry.name.endswith(".profile-empty"):
                        continue
                    files.append(Path(entry.path))
                    if first_only:
                        break
    except (OSError, ValueError):  # ValueError: NUL in the name
        return [], []
    return sorted(files), sorted(folders)


def _in_order(files: list[Path]) -> tuple[Path, ...]:
    """By the time stamp in the name, then by name."""
    return tuple(sorted(files, key=lambda path: (_stamp(path.name), path.name)))


def _stamp(name: str) -> float:
    found = re.search(rf"{MARK}\.([0-9]{{1,18}})", name)
    return int(found[1]) if found else np.inf
