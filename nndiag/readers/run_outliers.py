"""Which rank of a training stands out: out of step, slow, ahead with NaN, a loss of its own.

All limits are our own choice, set where ranks that train together never come near: their gradients
are equal to the bit, their batches are drawn alike, and they wait for each other at every step.

Shapes: R ranks, T steps that all of them made.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from nndiag.readers.run_ranks import Sharding, aligned, named
from nndiag.readers.run_series import Columns, Name

AGREEMENT = 1e-4  # relative: equal gradients on different devices differ by rounding
SLOW = 1.5  # times as long as the others until the gradients are there
NOTICEABLE = 0.1  # of a step: what a slow rank must cost to be told
LEAST_S = 0.005  # and so many seconds: two ranks on a busy machine differ by a few milliseconds
LEAST_STEPS = 20  # to judge times and losses
NEWEST = 0.25  # share of the run that losses are compared over
APART = 2.0  # a loss apart from the others, in spreads of a rank's own loss


@dataclass(frozen=True, slots=True)
class Outliers:
    """What is said of the ranks, and which do not compute what the main one does."""

    notes: tuple[str, ...]
    out_of_step: frozenset[int] = frozenset()  # places in the team


def outliers(
    numbers: Sequence[int], columns: Sequence[Columns], owners: Sequence[str], sharding: Sharding
) -> Outliers:
    """`numbers`: of the ranks, in the order of `columns`, the main one first."""
    notes: list[str] = []
    astray: set[int] = set()
    for owner in owners:
        if owner not in sharding.owners:
            found, told = _disagreement(numbers, columns, ("grad_norm", "", owner))
            astray |= found
            notes += told
        notes += _bad_losses(numbers, columns, ("loss", "", owner))
        notes += _losses_apart(numbers, columns, ("loss", "", owner))
    notes += _slow(numbers, columns, owners[0]) if owners else []
    return Outliers(tuple(dict.fromkeys(notes)), frozenset(astray))


def _rows(columns: Sequence[Columns], name: Name) -> tuple[np.ndarray, np.ndarray]:
    """What all ranks measured: steps (T,), values (R, T)."""
    steps, values, _ = aligned([rank.points(name) for rank in columns], everywhere=True)
    return steps, values


def _disagreement(
    numbers: Sequence[int], columns: Sequence[Columns], name: Name
) -> tuple[set[int], list[str]]:
    """Ranks whose averaged gradients are not those of the main one, and what is said of it."""
    steps, norms = _rows(columns, name)
    if not steps.size:
        return set(), []
    differs = ~np.isclose(norms, norms[0], rtol=AGREEMENT, atol=0.0, equal_nan=True)  # (R, T)
    astray = {rank for rank in range(len(numbers)) if _stays(differs[rank])}
    if not astray:
        return set(), []
    middle = np.median(norms, axis=0)
    off = ~np.isclose(norms, middle, rtol=AGREEMENT, atol=0.0, equal_nan=True)
    lonely = [rank for rank in range(len(numbers)) if _stays(off[rank])]
    first = int(steps[differs.any(axis=0)][0])
    since = steps >= first
    if 0 < len(lonely) < len(numbers) / 2:
        own, others = _middle(norms[lonely[0], since]), _middle(middle[since])
        who = named([numbers[rank] for rank in lonely])
        return astray, [
            f"the gradients of {who} differ from those of the other ranks from step {first} on "
            f"(norm {own:.4g} against {others:.4g}): no longer in step with them"
        ]
    who = named([numbers[0], *(numbers[rank] for rank in sorted(astray))])
    pair = " against ".join(f"{_middle(norms[rank, since]):.4g}" for rank in (0, min(astray)))
    return astray, [
        f"the gradients of {who} differ from step {first} on (norm {pair}): each trains on its "
        f"own, as without DistributedDataParallel, or holds another part"
    ]


def _middle(values: np.ndarray) -> float:
    """The median of those that are finite."""
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else float("nan")


def _stays(differs: np.ndarray) -> bool:
    """Whether ranks that differed once went on to: a single step may be our own rounding."""
    at = np.flatnonzero(differs)
    return at.size > 0 and bool(differs[at[0] :].mean() > 0.5)


def _bad_losses(numbers: Sequence[int], columns: Sequence[Columns], name: Name) -> Iterator[str]:
    """The ranks on which a loss was first not finite, while it was on the others."""
    steps, losses = _rows(columns, name)
    bad = ~np.isfinite(losses)
    at = np.flatnonzero(bad.any(axis=0))
    if at.size and not bad[:, at[0]].all():
        where = np.flatnonzero(bad[:, at[0]]).tolist()
        value = losses[where[0], at[0]]
        who = named([numbers[rank] for rank in where])
        yield f"the loss became {value:g} on {who} alone, at step {int(steps[at[0]])}"


def _losses_apart(numbers: Sequence[int], columns: Sequence[Columns], name: Name) -> Iterator[str]:
    """A rank whose newest losses all lie beyond those of the others."""
    steps, losses = _rows(columns, name)
    newest = losses[:, -max(LEAST_STEPS, int(NEWEST * steps.size)) :]
    if steps.size < LEAST_STEPS or not np.isfinite(newest).all():
        return
    low, middle, high = np.quantile(newest, [0.25, 0.5, 0.75], axis=1)  # (R,) each
    for rank, number in enumerate(numbers):
        others = np.arange(len(numbers)) != rank
        spread = np.median(high - low)
        gap = low[rank] - high[others].max()
        usual = np.median(middle[others])
        if gap > APART * spread and gap > 0.5 * abs(usual):
            yield (
                f"the loss of rank {number} stays above that of the others: median "
                f"{middle[rank]:.4g} against {usual:.4g} over the newest {newest.shape[1]} steps"
            )


def _slow(numbers: Sequence[int], columns: Sequence[Columns], owner: str) -> Iterator[str]:
    """A rank that the others wait for.

    All steps end together, since gradients are exchanged in backward: the slow one is who needs
    longest until backward begins. Without an exchange its steps themselves are longer.
    """
    for metric, what in (("time_to_backward_s", "until backward"), ("step_time_s", "a step")):
        steps, times = _rows(columns, (metric, "", owner))
        _, whole = _rows(columns, ("step_time_s", "", owner))
        if steps.size < LEAST_STEPS or not whole.size:
            continue
        middle, step_s = np.median(times, axis=1), float(np.median(whole))
        slowest = int(middle.argmax())
        others = float(np.median(np.delete(middle, slowest)))
        lost = float(middle[slowest]) - others
        if middle[slowest] > SLOW * others and lost > max(LEAST_S, NOTICEABLE * step_s):
            yield (
                f"rank {numbers[slowest]} is slow: {_seconds(middle[slowest])} {what}, "
                f"{_seconds(others)} on the others; a step takes {_seconds(step_s)}"
            )
            return


def _seconds(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
