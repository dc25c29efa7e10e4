"""Which curves of a run are to be judged: each loss with what was logged beside it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nndiag.curves.segments import Schedule, schedule_of
from nndiag.curves.shape import Curve, curve_of
from nndiag.records import Run, Series

SAME_SHARE = 0.95  # of the points: two optimizers that log the same loss train one model
FEWEST_VALIDATIONS = 10  # fewer make no curve of their own
RIVALS_OF_ANY_SIGN = "several losses of any sign are trained in this run; they may rise freely"
COVERED = 0.5  # of the validation's range: a loss that ends earlier does not tell how the run ended


@dataclass(frozen=True)
class Course:
    """A loss over training with its companions. `rival`: other losses are trained beside it."""

    loss: Series
    curve: Curve
    schedule: Schedule
    lr: Series | None
    gradient: Curve | None
    owner: str  # "" where the run has one loss only
    rival: bool
    validation: bool  # a validation loss stands in for a training loss that is missing or short


def courses(run: Run) -> tuple[Course, ...]:
    """The losses to judge: one for each owner; a validation loss where none covers the run."""
    losses = [s for s in _different(list(run.series_of("loss"))) if len(s)]
    rival = len({s.owner for s in losses}) > 1
    last = max((int(s.steps[-1]) for s in losses), default=-1)
    for val in run.series_of("val_loss"):
        fewest = FEWEST_VALIDATIONS if losses else 1
        if len(val) >= fewest and last < COVERED * int(val.steps[-1]):
            return (_course(run, val, False, True),)
    return tuple(_course(run, series, rival, False) for series in losses)


def _course(run: Run, loss: Series, rival: bool, validation: bool) -> Course:
    gradient = run.companion("grad_norm", loss)
    lr = run.companion("lr", loss)
    return Course(
        loss=loss,
        curve=curve_of(loss),
        schedule=schedule_of(lr),
        lr=lr,
        gradient=curve_of(gradient) if gradient is not None and len(gradient) else None,
        owner=loss.owner if rival else "",
        rival=rival,
        validation=validation,
    )


def _different(losses: list[Series]) -> list[Series]:
    """The longest loss of each owner; of owners that log the same loss, the first."""
    by_owner: dict[str, Series] = {}
    for series in losses:
        if series.owner not in by_owner or len(series) > len(by_owner[series.owner]):
            by_owner[series.owner] = series
    kept: list[Series] = []
    for series in by_owner.values():
        if not any(_same(series, other) for other in kept):
            kept.append(series)
    return kept


def _same(one: Series, other: Series) -> bool:
    count = min(len(one), len(other))
    if count == 0:
        return len(one) == len(other)
    first, second = one.values[:count], other.values[:count]
    return bool(np.mean((first == second) | (np.isnan(first) & np.isnan(second))) >= SAME_SHARE)
