"""Paths in, diagnoses out: the way of `nndiag analyze`, and the same from Python.

>>> result = nndiag.analyze("runs/resnet", "runs/vit/metrics.csv")
>>> result.diagnoses  # one for each run that was found
>>> result.errors  # one for each path that could not be read
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from nndiag.detectors import catalogue
from nndiag.diagnosis import diagnose
from nndiag.errors import BadUsage, UnreadableLog
from nndiag.readers.sniffing import find_runs
from nndiag.records import Diagnosis
from nndiag.settings import SEVERITIES, Settings, load_settings


@dataclass(frozen=True, slots=True)
class Analysis:
    """What came of some paths."""

    diagnoses: tuple[Diagnosis, ...]  # one for each run, in the order of the paths
    errors: tuple[UnreadableLog, ...] = ()  # paths that could not be read
    skipped: tuple[UnreadableLog, ...] = ()  # files in a searched folder that were left out


def analyze(
    *paths: str | os.PathLike[str],
    settings: Settings | None = None,
    loss: str | None = None,
    reader: str | None = None,
) -> Analysis:
    """Read and diagnose every run under `paths`: files, folders, globs, or "-".

    `loss` names the series to take for the loss, `reader` forces a format; without `settings`,
    those of the working directory count. A path that cannot be read is an error in the result, not
    an exception; `BadUsage` is raised for a setting or a reader that does not exist.
    """
    asked = settings if settings is not None else project_settings()
    detectors = catalogue.selected(asked.select, asked.ignore, asked.thresholds)
    diagnoses: list[Diagnosis] = []
    errors: list[UnreadableLog] = []
    skipped: list[UnreadableLog] = []
    for path in paths:
        try:
            found = find_runs(path, reader=reader, loss=loss)
        except UnreadableLog as error:
            errors.append(error)
            continue
        diagnoses += (diagnose(run, detectors) for run in found.runs)
        skipped += (UnreadableLog(where=s.path, what=s.reason) for s in found.skipped)
    return Analysis(tuple(diagnoses), tuple(errors), tuple(skipped))


def project_settings(config: Path | None = None) -> Settings:
    """The settings of `config`, or of the project around the working directory.

    Raises `BadUsage` for a name in them that does not exist, with the file that holds it.
    """
    settings = load_settings(config)
    try:
        check_settings(settings)
    except BadUsage as error:
        raise BadUsage(
            where=f"{settings.source}, {error.where}", what=error.what, do=error.do
        ) from None
    return settings


def check_settings(settings: Settings) -> None:
    """Raise `BadUsage` for a finding or a threshold that does not exist."""
    catalogue.selected(settings.select, settings.ignore, settings.thresholds)
    for name in settings.fail_on:
        if name not in SEVERITIES:
            catalogue.named(name)
