"""update-too-small: update-to-weight ratio far below its useful range."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag.curves import depth
from nndiag.curves.update_ratios import UpdateRatios, update_ratios
from nndiag.detectors.base import Detector
from nndiag.records import Abstention, Evidence, Finding, Run, Severity


@dataclass(frozen=True, kw_only=True)
class UpdateTooSmall(Detector):
    """The steps hardly change most weights, and the loss hardly moves.

    What it sees
        |update| / |weight| of each weight matrix or kernel, as a median over the recorded steps
        with at least half of the highest learning rate. Biases, embeddings and normalisations are
        left out, and the first tenth of the steps.

    Why it happens
        The learning rate is too low, gradients that are tiny under SGD, or clipping at a
        threshold far below them.

    Evidence
        r = |update| / |weight|; usual is 1e-3, and 1e-4 to 1e-2 is healthy
        reported when r < `limit` for weights that hold more than half of the model, in a run of
        at least `steps` steps whose loss stands where it began
        left out: a warm-up that is still going on, and runs that learn all the same, as a careful
        fine-tuning does

    Remedy
        1. Raise the learning rate by the factor that brings r to about 1e-3.
        2. Adam, where the gradients of SGD are tiny.

    Source
        Karpathy 2022, "Building makemore 3": a ratio of about 1e-3. The limit is wide on purpose
        and our own choice: our healthy small trainings have 8e-4 to 2e-2.
    """

    name = "update-too-small"
    explains = ("loss-plateau", "slow-convergence")

    limit: float = 1e-5  # |update| / |weight|
    recorded: int = 10  # recorded steps after the opening
    steps: int = 50  # optimizer steps

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        if not any(len(s) for s in run.series_of("param_update_norm")):
            yield Abstention(self.name, depth.NOT_RECORDED)
            return
        owners = [o.owner for o in run.optimizers] if len(run.optimizers) > 1 else [""]
        for owner in owners:
            found, optimizer = update_ratios(run, owner), run.optimizer(owner)
            trained = depth.progress(run, owner)
            steps = optimizer.steps if optimizer else 0
            if found is None or found.recorded < self.recorded or steps < self.steps:
                yield Abstention(self.name, f"{steps} optimizer steps; {self.steps} needed")
            elif _still_warms_up(run, owner):
                yield Abstention(self.name, "the learning rate still warms up")
            elif found.share(found.ratios < self.limit) > 0.5 and trained and trained.stuck:
                yield self._finding(owner, found, trained)

    def _finding(self, owner: str, found: UpdateRatios, trained: depth.Progress) -> Finding:
        small = found.ratios < self.limit
        still = not found.usual
        return Finding(
            name=self.name,
            severity=Severity.WARNING,
            confidence=0.85,
            message=(
                f"each step changes the weights by {found.usual:.1g} of their size (median of "
                f"{found.recorded} recorded steps; 0.001 is usual), and {trained.in_words}"
            ),
            step_start=found.first_step,
            step_end=found.last_step,
            series="param_update_norm",
            owner=owner,
            layers=found.layers_of(small),
            evidence=(
                Evidence("update_ratio", found.usual, self.limit),
                Evidence("share_of_weights", found.share(small), 0.5),
                Evidence("recorded_steps", found.recorded, self.recorded),
                Evidence("no_update_at_all", still),
            ),
        )


def _still_warms_up(run: Run, owner: str) -> bool:
    """Whether the learning rate was growing to the very end."""
    series = run.one("lr", owner=owner) or run.one("lr")
    if series is None or len(series) < 2:
        return False
    rates = series.values[np.isfinite(series.values)]
    return bool(rates.size > 1 and rates[-1] >= rates.max() and rates[-1] > 2 * rates[0])
