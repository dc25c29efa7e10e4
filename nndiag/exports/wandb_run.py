"""A run of its own in W&B: all series step by step, findings as summary and alerts.

W&B's own settings decide whether it goes online (WANDB_MODE, `wandb offline`, ...). Where it would
ask for a key, or cannot be reached, the run is written offline and can be synced later.
"""

from __future__ import annotations

import contextlib
import io
import os
import secrets
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nndiag import __version__
from nndiag.errors import BadUsage, MissingLibrary
from nndiag.exports.tables import Tables
from nndiag.exports.tags import tagged
from nndiag.records import Run
from nndiag.watcher import wandb_findings

try:
    import wandb
    from wandb import init as _init  # the folder ./wandb of earlier runs can be imported too
except ImportError:
    raise MissingLibrary(
        command="nndiag export --to wandb", library="wandb", extra="wandb"
    ) from None

PROJECT = "nndiag"
STEP = "nndiag/step"
ANSWER_S = (
    30.0  # how long W&B's server is waited for; our own choice, WANDB_INIT_TIMEOUT has the word
)
_REFUSALS = (wandb.Error, OSError, ValueError, RuntimeError)  # settings are checked by ValueError
# W&B would describe this machine and this program, which are not the training's.
_QUIET: dict[str, Any] = {
    "silent": True,
    "console": "off",
    "host": "",
    "disable_git": True,
    "save_code": False,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_disable_machine_info": True,
    "x_save_requirements": False,
}


@dataclass(frozen=True, slots=True)
class Written:
    """Where the run is now."""

    folder: str  # what `wandb sync` takes
    url: str  # "" where it is offline
    rows: int
    alerts: int
    why_offline: str = ""  # "" where W&B's own settings asked for it


def write(tables: Tables, name: str, *, folder: Path | None = None) -> Written:
    """Write the run, called `name`. `folder`: where W&B keeps its files; its own choice if None.

    Raises:
        BadUsage: W&B refuses even to write offline.
    """
    rows = alerts = 0
    with _nobody_to_ask():
        run, why_offline = _begin(tables.diagnosis.run, name, folder)
        try:
            for step, row in rows_of(tables.diagnosis.run):
                run.log({STEP: step, **row}, step=step if step >= 0 else None)
                rows += 1
            run.summary.update(_summary(tables))
            for alert in wandb_findings.alerts(tables.findings):
                run.alert(title=alert.title, text=alert.text, level=alert.level)
                alerts += 1
        except BaseException:
            run.finish(exit_code=1)
            raise
        run.finish()
    where = getattr(run.settings, "sync_dir", None) or os.path.dirname(run.dir)
    url = "" if run.offline else str(run.url or "")
    return Written(str(where), url, rows, alerts, why_offline)


def rows_of(run: Run) -> Iterator[tuple[int, dict[str, float]]]:
    """(step, values by key) of every step at which something was recorded.

    What begins with "_" is W&B's own bookkeeping, of the run that is exported.
    """
    series = [(tag, one) for tag, one in tagged(run) if not tag.startswith("_")]
    places = [0] * len(series)
    plain = [(tag, one.steps.tolist(), one.values.tolist()) for tag, one in series]
    every = [one.steps for _, one in series] or [np.empty(0, np.int64)]
    for step in np.unique(np.concatenate(every)).tolist():
        row = {}
        for i, (tag, steps, values) in enumerate(plain):
            at = places[i]
            if at < len(steps) and steps[at] == step:
                row[tag] = values[at]
                places[i] = at + 1
        yield step, row


def config_of(run: Run) -> dict[str, Any]:
    """What the log tells of the settings: optimizers and environment, nothing of the script's."""
    optimizers = {
        one.owner or one.kind: {"kind": one.kind, "steps": one.steps, **dict(one.settings)}
        for one in run.optimizers
    }
    found = {"format": run.format, "version": __version__, "environment": dict(run.environment)}
    return {"nndiag": found, **({"optimizers": optimizers} if optimizers else {})}


def _summary(tables: Tables) -> dict[str, Any]:
    diagnosis = tables.diagnosis
    found = wandb_findings.summary(str(diagnosis.verdict), tables.findings, {}, None)
    return {**found, "nndiag/notes": "\n".join(diagnosis.notes)}


def _begin(run: Run, name: str, folder: Path | None) -> tuple[Any, str]:
    """(a new W&B run, why it is offline although nobody asked for that)."""
    arguments: dict[str, Any] = {
        "project": os.environ.get("WANDB_PROJECT") or PROJECT,
        "name": name,
        "dir": str(folder) if folder is not None else None,
        "config": config_of(run),
        "job_type": "diagnosis",
    }
    try:
        return _new(**arguments), ""
    except _REFUSALS as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    try:
        return _new(**arguments, mode="offline"), reason
    except _REFUSALS as error:
        raise BadUsage(where="W&B", what=f"cannot write a run: {error}") from None


def _new(**arguments: Any) -> Any:
    """A run with an id of its own: one in the environment is the script's."""
    known = getattr(wandb.Settings, "model_fields", None) or _QUIET.keys()
    settings = wandb.Settings(**{k: v for k, v in _QUIET.items() if k in known})
    if not os.environ.get("WANDB_INIT_TIMEOUT"):
        settings.init_timeout = ANSWER_S
    run = _init(**arguments, settings=settings, id=secrets.token_hex(4), resume="never")
    if run.disabled:
        do = "choose another: WANDB_MODE=offline"
        raise BadUsage(where="W&B", what="is disabled here: nothing is written", do=do)
    run.define_metric(STEP, hidden=True)
    run.define_metric("*", step_metric=STEP)
    return run


@contextlib.contextmanager
def _nobody_to_ask() -> Iterator[None]:
    """W&B asks for a key where standard input is a terminal; we are no place for that."""
    before, sys.stdin = sys.stdin, io.StringIO()
    try:
        yield
    finally:
        sys.stdin = before
