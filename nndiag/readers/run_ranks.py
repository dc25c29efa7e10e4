"""The ranks of a distributed training as one training.

Each rank has its own batches and, when the model is sharded, its own part of the parameters; it
recorded what it saw and asked no other. Sums merge exactly, so most numbers can be put together
here as if one process had seen all batches:

    loss                        mean over the ranks that made the step
    activation_*                counts, means and variances by Chan et al. 1979
    dead_unit_fraction          dead on all ranks; `dead_unit_samples` add up
    param_*_norm, grad_norm     equal on all ranks, so those of one; of shards the root of the sum
                                of squares, since those are shares (see adapters/pytorch/ranks.py)
    step_time_s                 the slowest rank's, for which the others wait

Shapes: R ranks, T steps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from nndiag.readers.run_notes import RankRead
from nndiag.readers.run_series import COMPANIONS, Columns, Name, Points, series_of_points
from nndiag.readers.run_structure import objects, text, whole
from nndiag.records import Series

PARAMETER_NORMS = ("param_grad_norm", "param_norm", "param_update_norm")
OF_SHARDS = ("update_ratio", "update_gradient_cosine")  # defined for the whole, known of parts
NO_GRADIENT = -1.0
NOTHING: Points = np.empty(0, np.int64), np.empty(0)


def peers(main: RankRead, ranks: Sequence[RankRead]) -> list[RankRead]:
    """`main`, and the ranks that trained together with it, lowest first."""
    if not isinstance(main.process.get("rank"), int):
        return [main]
    found = {main.rank: main}
    for rank in ranks:
        known = isinstance(rank.process.get("rank"), int) and rank.last_step is not None
        if known and generation(rank, ranks) == generation(main, ranks):
            found.setdefault(rank.rank, rank)
    return [found[number] for number in sorted(found)]


def generation(rank: RankRead, ranks: Iterable[RankRead]) -> int:
    """How often the launcher had restarted all ranks when this one began."""
    restart = rank.process.get("restart")
    if isinstance(restart, int):
        return restart
    earlier = (r for r in ranks if r.rank == rank.rank and r.attempt < rank.attempt)
    return sum(isinstance(other.process.get("rank"), int) for other in earlier)


def strangers(main: RankRead, team: Iterable[RankRead]) -> list[RankRead]:
    """Those of the team whose rows mean something else: another model, or another part of it."""
    owners, shapes = _owners(main), _shapes(main)
    return [
        rank
        for rank in team
        if not owners & _owners(rank) or (_shapes(rank) not in ({}, shapes) and shapes)
    ]


def _owners(rank: RankRead) -> set[str]:
    return {stream.owner for stream in rank.steps.values() if stream.steps.size}


def _shapes(rank: RankRead) -> dict[tuple[str, str], str]:
    """Of the parameters, by model and name; empty where process.json could not be read."""
    return {
        (text(model, "name"), text(parameter, "name")): str(
            parameter.get("shape") if whole(model, "shards") < 2 else "of this rank's part"
        )
        for model in objects(rank.process, "models")
        for parameter in objects(model, "parameters")
    }


def _partial(rank: RankRead) -> int:
    """How many of its gradients were summands of the gradient, when last seen."""
    return sum(
        parameter.get("partial_grad") is True
        for model in objects(rank.process, "models")
        for parameter in objects(model, "parameters")
    )


def world_of(main: RankRead) -> int:
    return whole(main.process, "world_size")


@dataclass(frozen=True, slots=True)
class Sharding:
    """What of a model is cut into parts, one for each rank."""

    parameters: Mapping[str, int]  # name -> number of parts
    owners: frozenset[str]  # optimizers that hold such parameters; "" if there is only one

    def __bool__(self) -> bool:
        return bool(self.parameters or self.owners)

    @classmethod
    def of(cls, rank: RankRead, *, with_owner: bool) -> Sharding:
        parameters = {
            text(parameter, "name"): shards
            for model in objects(rank.process, "models")
            for parameter in objects(model, "parameters")
            if (shards := max(whole(parameter, "shards"), whole(model, "shards"))) > 1
        }
        cut = {text(m, "name") for m in objects(rank.process, "models") if whole(m, "shards") > 1}
        owners = [
            text(entry, "owner")
            for entry in objects(rank.process, "optimizers")
            if entry.get("sharded") is True or text(entry, "model") in cut
        ]
        return cls(parameters, frozenset(owners if with_owner else [""] * bool(owners)))


@dataclass(frozen=True, slots=True)
class Membership:
    """Which ranks are merged, and why others are not."""

    main: RankRead
    team: Sequence[RankRead]
    odd: Sequence[RankRead]  # they trained something else
    out_of_step: Sequence[RankRead]  # their gradients are others; `outliers` tells how

    def notes(self, sharding: Sharding, complete: bool) -> Iterator[str]:
        if len(self.team) > 1:
            yield self._merged()
        if self.odd:
            who = named([rank.rank for rank in self.odd])
            yield f"{who} trained other parameters, or another part of the model: left out"
        if sharding and not complete:
            yield "parts of the model lie on ranks that are missing: its norms are left out"
        elif sharding.owners:
            yield (
                "the model is sharded: norms are summed over the ranks, "
                "update ratios and cosines are means over their parts"
            )
        if partial := _partial(self.main):
            yield (
                f"the gradients of {partial} parameters are sums that no rank has added up: "
                f"their norms are left out"
            )

    def _merged(self) -> str:
        merged = len(self.team) - len(self.odd) - len(self.out_of_step)
        recorded = f"{len(self.team)} ranks were recorded"
        if merged < 2:
            return f"{recorded}; the series are those of {self.main.name}"
        which = "" if merged == len(self.team) else f"{merged} of them "
        return f"{recorded}{', ' if which else ' and '}{which}are merged: losses are means"


class Team:
    """Ranks that are merged. What all have in common is taken from the first, the main one."""

    def __init__(self, columns: Sequence[Columns], sharding: Sharding, *, complete: bool) -> None:
        """`complete`: whether these are all ranks; without the others shards cannot be summed."""
        self._ranks = columns
        self._sharding = sharding
        self._complete = complete

    def series(self) -> Iterator[Series]:
        """Every recorded series, merged, in the order of the main rank."""
        for name in self._ranks[0].names():
            if name[0] not in COMPANIONS:
                steps, values = self._merged(name)
                if steps.size:
                    yield series_of_points(name, (steps, values))

    def _merged(self, name: Name) -> Points:
        metric, where, owner = name
        if metric in PARAMETER_NORMS:
            parts = self._sharding.parameters.get(where, 1)
            return self._norm(name, parts) if parts > 1 else self._ranks[0].points(name)
        if metric == "grad_norm" and owner in self._sharding.owners:
            return self._grad_norm(name)
        if metric in OF_SHARDS and owner in self._sharding.owners:
            return self._mean(name, everywhere=True) if self._complete else NOTHING
        if len(self._ranks) == 1:
            return self._ranks[0].points(name)
        if metric.startswith("activation_"):
            return self._activation(name)
        if metric in ("loss", "saturated_unit_fraction"):
            return self._mean(name, everywhere=False)
        if metric == "step_time_s":
            return self._over_ranks(name, np.fmax, everywhere=False)
        if metric == "dead_unit_fraction":
            return self._over_ranks(name, np.minimum, everywhere=True)
        if metric == "dead_unit_samples":
            return self._over_ranks(name, np.add, everywhere=True)
        return self._ranks[0].points(name)

    def _aligned(
        self, name: Name, *, everywhere: bool
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Steps (T,), values (R, T), and where they are measured (R, T).

        `everywhere`: the steps that every rank measured, else those that any did.
        """
        return aligned([rank.points(name) for rank in self._ranks], everywhere=everywhere)

    def _mean(self, name: Name, *, everywhere: bool) -> Points:
        steps, values, measured = self._aligned(name, everywhere=everywhere)
        counted = np.maximum(measured.sum(axis=0), 1)
        return steps, np.where(measured, values, 0.0).sum(axis=0) / counted

    def _over_ranks(self, name: Name, merge: np.ufunc, *, everywhere: bool) -> Points:
        steps, values, _ = self._aligned(name, everywhere=everywhere)
        return steps, merge.reduce(values, axis=0)

    def _norm(self, name: Name, parts: int) -> Points:
        """Norm of a sharded parameter; a part that several ranks hold counts once."""
        if not self._complete:
            return NOTHING
        steps, values, _ = self._aligned(name, everywhere=True)
        absent = (values == NO_GRADIENT).all(axis=0)
        squares = np.maximum(values, 0.0, where=~np.isnan(values), out=values.copy()) ** 2
        whole_norm = np.sqrt(squares.sum(axis=0) * parts / len(self._ranks))
        return steps, np.where(absent, NO_GRADIENT, whole_norm)

    def _grad_norm(self, name: Name) -> Points:
        """Global norm of sharded gradients. Clipping has worked out that of all ranks by itself."""
        clipped, _ = self._ranks[0].points(("clip_threshold", "", name[2]))
        steps, values = self._ranks[0].points(name)
        total = np.isin(steps, clipped)
        if not self._complete:
            return steps[total], values[total]
        common, shares, _ = self._aligned(name, everywhere=True)
        of_shares = ~np.isin(common, clipped)
        summed = np.sqrt((shares[:, of_shares] ** 2).sum(axis=0))
        all_steps = np.concatenate([steps[total], common[of_shares]])
        order = np.argsort(all_steps, kind="stable")
        return all_steps[order], np.concatenate([values[total], summed])[order]

    def _activation(self, name: Name) -> Points:
        metric, where, owner = name
        steps, values, measured = self._aligned(name, everywhere=False)
        if metric == "activation_nonfinite":
            return steps, np.where(measured, values, 0.0).sum(axis=0)
        if metric == "activation_abs_max":
            return steps, np.where(measured, values, -np.inf).max(axis=0)
        weights = self._at(steps, ("activation_count", where, owner)) * measured
        if metric == "activation_variance":
            means = self._at(steps, ("activation_mean", where, owner))
            pooled = _weighted(weights, means)
            values = values + (means - pooled) ** 2
        return steps, _weighted(weights, values)

    def _at(self, steps: np.ndarray, name: Name) -> np.ndarray:
        """The values of each rank at these steps; 0 where it has none: (R, T)."""
        return np.stack([_placed(rank.points(name), steps)[0] for rank in self._ranks])


def named(numbers: Sequence[int]) -> str:
    """ "rank 3", "ranks 0 and 3", "ranks 0, 1, 2 and 5 more"."""
    told = [str(number) for number in numbers]
    if len(told) == 1:
        return f"rank {told[0]}"
    if len(told) > 4:
        return f"ranks {', '.join(told[:3])} and {len(told) - 3} more"
    return f"ranks {', '.join(told[:-1])} and {told[-1]}"


def aligned(
    parts: Sequence[Points], *, everywhere: bool
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The same steps (T,) of all parts: values (R, T), NaN where not measured, and where (R, T)."""
    steps = parts[0][0]
    for others, _ in parts[1:]:
        if not np.array_equal(steps, others):
            join = np.intersect1d if everywhere else np.union1d
            steps = join(steps, others)
    placed = [_placed(points, steps) for points in parts]
    measured = np.stack([there for _, there in placed])
    values = np.where(measured, np.stack([values for values, _ in placed]), np.nan)
    return steps, values, measured


def _placed(points: Points, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The values at `steps` (T,), 0 where there are none, and where there are (T,)."""
    own, values = points
    if np.array_equal(own, steps):
        return values, np.ones(steps.shape, bool)
    at = np.minimum(np.searchsorted(own, steps), max(own.size - 1, 0))
    if not own.size:
        return np.zeros(steps.shape), np.zeros(steps.shape, bool)
    there = own[at] == steps
    return np.where(there, values[at], 0.0), there


def _weighted(weights: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean over the ranks; a rank of weight 0 does not count, whatever it holds."""
    total = weights.sum(axis=0)
    with np.errstate(invalid="ignore"):
        products = np.where(weights > 0, weights * values, 0.0).sum(axis=0)
        mean: np.ndarray = products / np.where(total > 0, total, np.nan)
    return mean
