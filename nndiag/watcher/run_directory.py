"""The run directory as the supervisor needs it: made before the start, closed after the end."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from datetime import datetime, timezone
from pathlib import Path

from nndiag import __version__
from nndiag.errors import CannotStart
from nndiag.journal.format import RUN_FILE, RUN_SCHEMA
from nndiag.journal.private import harmless_environment, option_names, scrubbed
from nndiag.journal.writer import make_directory, make_new_directory, write_json, write_text
from nndiag.watcher.launchers import launcher_of

HOME = "nndiag-runs"  # under the working directory, as wandb/ and runs/ are
IGNORE_FILE = ".gitignore"
ANSWER_S = 10.0  # how long a disk may take for the last file, before the script's status is given


class RunDirectory:
    """A directory for one run. Making it is the only thing that may fail, and before the start."""

    def __init__(self, path: Path, manifest: dict[str, object]) -> None:
        self.path = path  # absolute: the script may change its working directory
        self._manifest = manifest

    def close(self, *, status: int | None, signal: int | None, seconds: float) -> None:
        """Write down how the script ended. Raises `OSError`, also where no disk answers."""
        ended = {"status": status, "signal": signal, "seconds": round(seconds, 3), "at": _now()}
        failed: list[OSError] = [TimeoutError("the disk does not answer")]

        def write() -> None:
            try:
                write_json(str(self.path / RUN_FILE), {**self._manifest, "ended": ended})
                failed.clear()
            except OSError as error:
                failed[:] = [error]

        thread = threading.Thread(target=write, daemon=True)
        try:
            thread.start()
        except RuntimeError:  # no more threads for this user: then without a limit of time
            write()
        else:
            thread.join(ANSWER_S)
        if failed:
            raise failed[0]

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
    arguments: Sequence[str] = (),
    shared: bool = False,
) -> RunDirectory:
    """The directory `asked` for, or a new one under `nndiag-runs/`. Raises `CannotStart`.

    A `shared` one may be there already: another rank of this run was faster. Of `arguments` only
    the names of options are kept.
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
            "script": scrubbed(os.path.basename(script) if os.path.isabs(script) else script),
            "options": option_names(arguments),
            "environment": harmless_environment(os.environ),
            "started": _now(),
            "settings": dict(settings),
        }
        if shared:  # then nobody is left to say how all of it ended
            manifest["launcher"] = launcher_of(os.environ)
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
        with contextlib.suppress(FileExistsError):  # another rank was faster
            write_text(str(home / IGNORE_FILE), "*\n")


def _unused(path: Path) -> Path:
    """`path` and the time of day; numbered where two runs start in one second."""
    base = path.with_name(f"{path.name}-{datetime.now():%Y%m%d-%H%M%S}")
    candidate, number = base, 1
    while True:
        try:
            make_new_directory(str(candidate))  # the only test that two of us cannot both pass
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
