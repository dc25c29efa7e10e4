"""update-too-large: update-to-weight ratio far above its useful range."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nndiag.curves import depth
from nndiag.curves.update_ratios import UpdateRatios, update_ratios
from nndiag.detectors.base import Detector
from nndiag.records import Abstention, Evidence, Finding, Run, Severity


@dataclass(frozen=True, kw_only=True)
class UpdateTooLarge(Detector):
    """Each step changes most weights by a large part of their size.

    What it sees
        |update| / |weight| of each weight matrix or kernel, as a median over the recorded steps
        with at least half of the highest learning rate. Biases, embeddings and normalisations are
        left out, and the first tenth of the steps.

    Why it happens
        The learning rate is too high, or the weights start too small. Steps of such a size throw
        away what the steps before have learned.

    Evidence
        r = |update| / |weight|; usual is 1e-3, and 1e-4 to 1e-2 is healthy
        reported when r > `limit` for weights that hold more than half of the model; a mere remark
        where the loss falls well all the same

    Remedy
        1. Lower the learning rate by the factor that brings r to about 1e-2.
        2. Warm the learning rate up, if only the first steps are so large.

    Source
        Karpathy 2022, "Building makemore 3": a ratio of about 1e-3. The limit is wide on purpose
        and our own choice: our healthy small trainings have 8e-4 to 2e-2, L-BFGS 6e-2.
    """

    name = "update-too-large"
    explains = (
        "loss-divergence", "loss-oscillation", "loss-spike", "loss-plateau", "dead-relu",
        "exploding-gradient", "activation-exploding", "saturated-activation", "loss-nonfinite",
        "slow-convergence",
    )  # fmt: skip

    limit: float = 0.1  # |update| / |weight|
    recorded: int = 10  # recorded steps after the opening
    learns_well: float = 0.3  # share of the first loss that is gone; then it is a mere remark

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        if not any(len(s) for s in run.series_of("param_update_norm")):
            yield Abstention(self.name, depth.NOT_RECORDED)
            return
        owners = [o.owner for o in run.optimizers] if len(run.optimizers) > 1 else [""]
        for owner in owners:
            found = update_ratios(run, owner)
            if found is None or found.recorded < self.recorded:
                recorded = found.recorded if found else 0
                reason = f"{recorded} recorded steps; {self.recorded} needed"
                yield Abstention(self.name, reason)
            elif found.share(found.ratios > self.limit) > 0.5:
                yield self._finding(run, owner, found)

    def _finding(self, run: Run, owner: str, found: UpdateRatios) -> Finding:
        trained = depth.progress(run, owner)
        fine = trained is not None and trained.learned > self.learns_well and not trained.broke
        large = found.ratios > self.limit
        return Finding(
            name=self.name,
            severity=Severity.INFO if fine else Severity.WARNING,
            confidence=0.8,
            message=(
                f"each step changes the weights by {found.usual:.2g} of their size (median of "
                f"{found.recorded} recorded steps; 0.001 is usual, {self.limit:g} too much)"
            ),
            step_start=found.first_step,
            step_end=found.last_step,
            series="param_update_norm",
            owner=owner,
            layers=found.layers_of(large),
            evidence=(
                Evidence("update_ratio", found.usual, self.limit),
                Evidence("share_of_weights", found.share(large), 0.5),
                Evidence("recorded_steps", found.recorded, self.recorded),
            ),
        )
