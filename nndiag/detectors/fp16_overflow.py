"""fp16-overflow: the gradient scaler skips many steps, or its scale collapses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag.detectors.base import Detector
from nndiag.records import Abstention, Evidence, Finding, Run, Series, Severity


@dataclass(frozen=True, kw_only=True)
class Fp16Overflow(Detector):
    """The gradient scaler skips many steps, or its scale collapses.

    What it sees
        The factor that the loss is multiplied by under float16. Each time a gradient overflows the
        step is skipped and the factor halved; after 2000 good steps it is doubled again.

    Why it happens
        float16 ends at 65504. A first handful of skipped steps is how the scaler finds its
        factor, and one in some thousand is how it keeps it. A factor that goes on falling means
        that something in the network overflows whatever the factor is: activations that grow,
        softmax over large scores, a loss or a norm computed in float16.

    Evidence
        skips = halvings of the scale, or steps that were seen to be skipped
        reported when the scale falls below `collapsed`, or when at least `fewest` steps and a
        share of `limit` of all are skipped after the opening

    Remedy
        1. bfloat16, which has the range of float32, and no scaler.
        2. Leave the operation that overflows to float32; lower the learning rate if activations
           grow.

    Source
        Micikevicius et al. 2018, "Mixed Precision Training", arXiv:1710.03740. The limits are our
        own choice: torch's scaler begins at 65536 and doubles after 2000 good steps.
    """

    name = "fp16-overflow"
    explains = ("nonfinite-tensor", "loss-plateau", "slow-convergence")

    collapsed: float = 1.0  # below it even unscaled gradients overflow
    fewest: int = 10  # skipped steps after the opening
    limit: float = 0.05  # share of the steps after the opening; usual is 1 in 2000
    opening: int = 20  # steps in which the scaler finds its factor

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        scales = [s for s in run.series_of("loss_scale") if len(s)]
        if not scales:
            return  # no scaler: nothing to judge
        scale = max(scales, key=len)
        good = np.isfinite(scale.values) & (scale.values > 0)
        values, steps = scale.values[good], scale.steps[good]
        zero = bool((scale.values == 0).any())
        if values.size < 2 and not zero:
            yield Abstention(self.name, f"{values.size} values of the loss scale; 2 needed")
            return
        lowest = 0.0 if zero else float(values.min())
        skips, later = _skips(values), _skips(values[steps >= steps[0] + self.opening])
        counted = [fact.amount("count") for fact in run.facts_of("skipped-steps")]
        skips = max([skips, *counted])
        made = int(steps[-1] - steps[0]) + 1 if steps.size else 0
        judged = max(1, made - self.opening)
        share = later / (judged + later)
        fell = lowest < self.collapsed and lowest < float(values[0] if values.size else 1)
        if fell or (later >= self.fewest and share > self.limit):
            yield self._finding(scale, lowest, skips, share, fell)

    def _finding(
        self, scale: Series, lowest: float, skips: float, share: float, fell: bool
    ) -> Finding:
        first = float(scale.values[0])
        down = np.flatnonzero(np.diff(scale.values) < 0)
        at = int(scale.steps[down[0] + 1]) if down.size else int(scale.steps[0])
        return Finding(
            name=self.name,
            severity=Severity.CRITICAL if fell else Severity.WARNING,
            confidence=0.95 if fell else 0.85,
            message=(
                f"the loss scale fell from {first:.3g} to {lowest:.3g}: {skips:.0f} steps were "
                "skipped since a gradient overflowed in float16"
            ),
            step_start=at,
            step_end=int(scale.steps[-1]),
            series=scale.label,
            owner=scale.owner,
            evidence=(
                Evidence("loss_scale_lowest", lowest, self.collapsed),
                Evidence("loss_scale_first", first),
                Evidence("skipped_steps", skips, self.fewest),
                Evidence("skipped_fraction", share, self.limit),
            ),
        )


def _skips(values: np.ndarray) -> float:
    """How often the scale was halved: each time a step was skipped."""
    if values.size < 2:
        return 0.0
    falls = np.log2(values[:-1] / values[1:])
    return float(np.maximum(1, np.round(falls[falls > 0.01])).sum())
