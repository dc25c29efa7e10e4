"""Runs a script as users write it, once by itself and once watched, and compares the two."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.adapters.observed import Observed, Zygote, python, train_in

SCRIPTS = Path(__file__).parent / "scripts"
Watch = Callable[..., "Way"]


@dataclass(frozen=True)
class Way:
    """What a watched script left behind: our record, and its own history."""

    run: Observed
    history: dict[str, Any]

    def column(self, name: str) -> list[float]:
        return [float(value) for value in self.history[name]]

    @property
    def notes(self) -> str:
        return "\n".join(event["text"] for event in self.run.of_kind("note"))


def watch_in(folder: Path, zygote: Zygote) -> Watch:
    """`watch("accumulation.py")`: forks of one process run it, so torch is imported only once."""

    def watch(name: str, *arguments: str, every: int | str = 1, **settings: Any) -> Way:
        def run(watched: bool) -> tuple[Observed, Path]:
            place = folder / ("watched" if watched else "plain")
            place.mkdir(exist_ok=True)
            source = (SCRIPTS / name).read_text(encoding="utf-8")
            train = train_in(place, zygote)
            return train(source, *arguments, watched=watched, every=every, **settings), place

        return _compared(run(False), run(True))

    return watch


def watch_alone(folder: Path, name: str, *arguments: str, every: int | str = 1) -> Way:
    """The same in processes of their own, by the bootstrap: for scripts that import much."""

    def run(watched: bool) -> tuple[Observed, Path]:
        place = folder / ("watched" if watched else "plain")
        place.mkdir()
        environment = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "0"}
        done = python(
            str(SCRIPTS / name),
            *arguments,
            cwd=place,
            run_dir=folder / "run" if watched else None,
            every=every,
            **environment,
        )
        assert done.status == 0, done.stderr
        return done, place

    return _compared(run(False), run(True))


def _compared(plain: tuple[Observed, Path], watched: tuple[Observed, Path]) -> Way:
    """Every file that the script wrote is the same, bit for bit, but for our record."""
    assert watched[0].faults == []
    printed = [_timeless(run.stdout.replace(str(place), "")) for run, place in (plain, watched)]
    assert printed[0] == printed[1]
    left = [_files(place) for _, place in (plain, watched)]
    assert left[0] == left[1]
    assert any(name.endswith(".pt") for name in left[0]), "the script saves no weights"
    with (watched[1] / "history.json").open(encoding="utf-8") as file:
        return Way(watched[0], json.load(file))


def _timeless(output: str) -> list[str]:
    """What was printed, but for lines that tell how long something took."""
    return [line for line in output.splitlines() if "runtime" not in line]


def _files(folder: Path) -> dict[str, str]:
    return {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.iterdir()
        if path.is_file() and path.suffix in (".pt", ".json") and os.access(path, os.R_OK)
    }
