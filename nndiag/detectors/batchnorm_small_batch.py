"""batchnorm-small-batch: batch statistics from too few values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag.detectors.base import NO_FACTS, Detector
from nndiag.records import Abstention, Evidence, Fact, Finding, Run, Severity


@dataclass(frozen=True, kw_only=True)
class BatchnormSmallBatch(Detector):
    """Batch norm works with statistics of too few values.

    What it sees
        How many values each channel of the BatchNorm modules has in a batch: samples times
        positions. The module with the fewest counts.

    Why it happens
        A small batch, micro-batches of gradient accumulation, or many GPUs with few samples each:
        batch norm sees only those. Means and variances of a few values are mostly noise, and the
        running averages that validation uses fit them badly.

    Evidence
        n = values per channel in the first steps (median)
        reported when n < `limit`; a mere remark for maps of a batch of 1 or 2, whose positions
        are not independent

    Remedy
        1. GroupNorm or LayerNorm, which do not look across samples.
        2. A larger batch, or SyncBatchNorm across GPUs; accumulating gradients does not help.

    Source
        Wu & He 2018, "Group Normalization", arXiv:1803.08494: the error of batch norm rises below
        16 samples and fast below 4. The limit is our own choice.
    """

    name = "batchnorm-small-batch"
    explains = ("loss-oscillation", "loss-plateau", "slow-convergence", "overfitting")

    limit: int = 8  # values per channel
    steps: int = 2  # measured steps
    pair: int = 2  # samples of a batch that make a remark, whatever the positions

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        if not run.facts:
            yield Abstention(self.name, NO_FACTS)
            return
        by_owner: dict[str, list[Fact]] = defaultdict(list)
        for fact in run.facts_of("batch-statistics"):
            by_owner[fact.owner].append(fact)
        for owner, facts in by_owner.items():
            if len(facts) < self.steps:
                continue
            values = float(np.median([fact.amount("values") for fact in facts]))
            batch = float(np.median([fact.amount("batch") for fact in facts]))
            if values < self.limit or batch <= self.pair:
                yield self._finding(run, owner, facts, values, batch)

    def _finding(
        self, run: Run, owner: str, facts: list[Fact], values: float, batch: float
    ) -> Finding:
        few = values < self.limit
        where = facts[0].where
        optimizer = run.optimizer(owner)
        return Finding(
            name=self.name,
            severity=Severity.WARNING if few else Severity.INFO,
            confidence=0.85 if few else 0.5,
            message=(
                f"batch norm `{where}` takes its statistics from {values:.0f} values per channel, "
                f"a batch of {batch:.0f}"
            ),
            step_start=facts[0].step,
            step_end=optimizer.steps - 1 if optimizer else None,
            owner=owner,
            layers=(where,),
            evidence=(
                Evidence("values_per_channel", values, self.limit),
                Evidence("batch_size", batch),
                Evidence("modules", facts[-1].count("modules")),
            ),
        )
