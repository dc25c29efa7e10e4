"""Puts inputs on disk, in memory where the system has that, and of each only what changed."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from pathlib import Path
from types import TracebackType

from tests.fuzz.seeds import Seed, Special

IN_MEMORY = Path("/dev/shm")


class Stage:
    """A folder for inputs, one after the other; a context manager that takes it away again."""

    def __init__(self) -> None:
        home = IN_MEMORY if os.access(IN_MEMORY, os.W_OK) else None
        self.folder = Path(tempfile.mkdtemp(prefix="nndiag-fuzz-", dir=home))
        self.scratch = self.folder / "scratch"
        self._placed: dict[str, dict[str, bytes | Special]] = {}

    def __enter__(self) -> Stage:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)

    def place(self, seed: Seed) -> Path:
        """The path to hand to a reader. Mutants of one seed share a folder."""
        # the folder keeps the seed's own name: some formats look at it
        home = self.folder / f"{seed.reader}.{Path(seed.name).stem}"[:80] / Path(seed.name).name
        folder = home if seed.is_folder else home.parent
        placed = self._placed.setdefault(str(folder), {})
        folder.mkdir(parents=True, exist_ok=True)
        for name in [name for name in placed if name not in seed.files]:
            _remove(folder / name)
            del placed[name]
        for name, content in seed.files.items():
            if placed.get(name) is not content:
                was = placed.get(name)
                if not isinstance(was, bytes | None) or not isinstance(content, bytes):
                    _remove(folder / name)
                make(folder / name, content)
                placed[name] = content
        entry = seed.files.get(seed.entry)
        if isinstance(entry, bytes) and entry.startswith(b"SQLite format 3\0"):
            # mostly as if nobody were writing to it: a reader may take more care else
            changed = time.time() - (3600 if entry[-1] % 8 else 0)
            os.utime(folder / seed.entry, (changed, changed))
        return folder / seed.entry if seed.entry else folder


def make(path: Path, content: bytes | Special) -> None:
    """Write a file, or what stands in its place; there is nothing of that name yet, or a file."""
    if isinstance(content, bytes):
        try:
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        except FileNotFoundError:
            path.parent.mkdir(parents=True, exist_ok=True)
            fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        try:
            os.write(fd, content)
        finally:
            os.close(fd)
        return
    kind, target = content
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to(target)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
