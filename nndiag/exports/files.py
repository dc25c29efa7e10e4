"""New files that are whole or not there: written beside their place, then moved to it.

Nothing is overwritten unless that was asked for, no link is followed, and what was interrupted
leaves nothing behind. A folder that is there is filled, never emptied.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import BinaryIO

from nndiag.errors import BadUsage

_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
_NEW |= getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def refuse_used(target: Path, *, force: bool) -> None:
    """Raise `BadUsage` where something is at `target` that may not be replaced."""
    if not os.path.lexists(target):
        return
    if not force:
        do = "replace it with --force, or choose another place: -o PATH"
        raise BadUsage(where=str(target), what="is there already", do=do)
    if target.is_symlink():
        do = "choose another place: -o PATH"
        raise BadUsage(where=str(target), what="is a link, which is not followed", do=do)


@contextlib.contextmanager
def new_file(target: Path, *, force: bool) -> Iterator[BinaryIO]:
    """A file that appears at `target` when the block ends well. Raises `BadUsage`."""
    refuse_used(target, force=force)
    if target.is_dir():
        raise BadUsage(where=str(target), what="is a folder; a single table is a file")
    with _told(target):
        temporary = _beside(target)
        try:
            with open_new(temporary) as file:
                yield file
            _move(temporary, target, force=force)
        finally:
            with contextlib.suppress(OSError):
                os.unlink(temporary)


@contextlib.contextmanager
def new_folder(target: Path, *, force: bool) -> Iterator[Path]:
    """A folder whose files appear under `target` when the block ends well. Raises `BadUsage`."""
    refuse_used(target, force=force)
    if target.exists() and not target.is_dir():
        raise BadUsage(where=str(target), what="is a file; this format needs a folder")
    with _told(target):
        temporary = _beside(target)
        os.mkdir(temporary)
        try:
            yield temporary
            if target.is_dir():  # --force: what else is in it stays
                for name in sorted(os.listdir(temporary)):
                    os.replace(temporary / name, target / name)
            else:
                os.rename(temporary, target)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def open_new(path: Path) -> BinaryIO:
    """A file that did not exist before, with the permissions that the umask leaves."""
    return os.fdopen(os.open(path, _NEW, 0o666), "wb", buffering=1 << 20)


def write_all(file: BinaryIO, texts: Iterable[str]) -> None:
    """Texts one after the other. Halves of surrogate pairs, which UTF-8 lacks, become "?"."""
    for text in texts:
        file.write(text.encode("utf-8", "replace"))


def _beside(target: Path) -> Path:
    """A hidden name in the same folder, so that a move does not copy; it makes that folder."""
    parent = target.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
    except FileExistsError:
        raise NotADirectoryError(errno.ENOTDIR, "its folder is a file") from None
    return parent / f".{target.name[:100]}.{os.getpid()}.tmp"


def _move(temporary: Path, target: Path, *, force: bool) -> None:
    if force:
        os.replace(temporary, target)
        return
    try:
        os.link(temporary, target)  # unlike a rename it fails where somebody was faster
    except FileExistsError:
        raise
    except OSError:  # no hard links here, as on FAT
        os.rename(temporary, target)


@contextlib.contextmanager
def _told(target: Path) -> Iterator[None]:
    """What the system refuses, as an error that a user can do something about."""
    try:
        yield
    except FileExistsError:
        raise BadUsage(where=str(target), what="is there already: it was made meanwhile") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        do = "choose another place: -o PATH"
        raise BadUsage(where=str(target), what=f"cannot be written: {reason}", do=do) from None
