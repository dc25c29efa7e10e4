"""The run directory as the supervisor needs it: made before the start, closed after the end."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Mapping
from datetime import datetime, timezone
from pathlib import Path

from nndiag import __version__
from nndiag.errors import CannotStart
from nndiag.journal.format import RUN_FILE, RUN_SCHEMA
from nndiag.journal.writer import make_directory, write_json

HOME = "nndiag-runs"  # under the working directory, as wandb/ and runs/ are
IGNORE_FILE = ".gitignore"


class RunDirectory:
    """A directory for one run. Making it is the only thing that may fail, and before the start."""

    def __init__(self, path: Path, manifest: dict[str, object]) -> None:
        self.path = path  # absolute: the script may change its working directory
        self._manifest = manifest

    def close(self, *, status: int | None, signal: int | None, seconds: float) -> None:
        """Write down how the script ended. A full disk does not matter any more: see `OSError`."""
        ended = {"status": status, "signal": signal, "seconds": round(seconds, 3), "at": _now()}
        write_json(str(self.path / RUN_FILE), {**self._manifest, "ended": ended})

    def discard(self) -> None:
        """Take it away again, unless something was recorded: the command could not be started."""
        with contextlib.suppress(OSError):
            if _names(self.path) == [RUN_FILE]:
                shutil.rmtree(self.path)
            home = self.path.parent
            if home.name == HOME and _names(home) == [IGNORE_FILE]:
                shutil.rmtree(home)

    def attached(self) -> bool:
        """Whether our bootstrap met torch in some process of the run."""
        return any(self.path.glob("attached-*"))

    def failures(self) -> list[str]:
        """Why our part did not start in a process of the run."""
        found = sorted(self.path.glob("failed-*"))
        return [path.read_text(encoding="utf-8", errors="replace")[:300] for path in found]

    def stepped(self) -> bool:
        """Whether an optimizer made a step in some process of the run."""
        return any(self.path.glob("rank-*/steps-*"))


def make(
    asked: Path | None,
    *,
    stem: str,
    script: str,
    settings: Mapping[str, object],
    shared: bool = False,
) -> RunDirectory:
    """The directory `asked` for, or a new one under `nndiag-runs/`. Raises `CannotStart`.

    A `shared` one may be there already: another rank of this run was faster.
    """
    path = asked if asked is not None else Path(HOME) / stem
    try:
        path = path.absolute()
        if asked is None:
            _make_home(path.parent)
            path = path if shared else _unused(path)
        elif not shared:
            _refuse_used(path)
        make_directory(str(path))
        manifest: dict[str, object] = {
            "schema": RUN_SCHEMA,
            "nndiag": __version__,
            "script": os.path.basename(script) if os.path.isabs(script) else script,
            "started": _now(),
            "settings": dict(settings),
        }
        if not (shared and (path / RUN_FILE).exists()):
            write_json(str(path / RUN_FILE), manifest)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        do = "choose another with --run-dir DIR" if asked is None else ""
        raise CannotStart(where=str(path), what=f"cannot hold the run: {reason}", do=do) from None
    return RunDirectory(path, manifest)


def _make_home(home: Path) -> None:
    """`nndiag-runs/`, kept out of the user's commits as pytest and ruff keep their caches."""
    if not home.exists():
        make_directory(str(home))
        (home / IGNORE_FILE).write_text("*\n", encoding="ascii")


def _unused(path: Path) -> Path:
    """`path` and the time of day; numbered where two runs start in one second."""
    base = path.with_name(f"{path.name}-{datetime.now():%Y%m%d-%H%M%S}")
    candidate, number = base, 1
    while True:
        try:
            os.mkdir(candidate, 0o700)  # making it is the only test that two of us cannot both pass
            return candidate
        except FileExistsError:
            number += 1
            candidate = base.with_name(f"{base.name}-{number}")


def _refuse_used(path: Path) -> None:
    if not path.is_dir():
        if path.exists():
            raise CannotStart(where=f"--run-dir {path}", what="is not a directory")
        return
    used = (path / RUN_FILE).exists() or any(path.glob("rank-*")) or any(path.glob("attached-*"))
    if used:
        raise CannotStart(
            where=f"--run-dir {path}", what="holds a run already", do="choose an empty directory"
        )


def _names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def _now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="milliseconds")
