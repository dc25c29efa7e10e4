"""missing-zero-grad: gradients pile up from one optimizer step to the next."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from nndiag.detectors.base import NO_FACTS, Detector
from nndiag.records import Abstention, Evidence, Fact, Finding, Run, Severity


@dataclass(frozen=True, kw_only=True)
class MissingZeroGrad(Detector):
    """Gradients pile up across optimizer steps, since nobody clears them.

    What it sees
        The gradient that a step has used is still there, unchanged, when the next backward call
        adds to it, and the next step uses the sum. Accumulation over several backward calls within
        one step is no such thing, nor are gradients cleared by hand or after another loss has
        soiled them.

    Why it happens
        zero_grad() is missing, stands where it is not reached, or is called for another optimizer
        or another copy of the model. The sum acts like momentum that never fades: steps grow, and
        point where the loss fell long ago.

    Evidence
        of up to 8 parameters of the optimizer, the number whose gradient of the step before was
        found as it was, and lay under the gradient of the next step
        reported when that is so in each of the newest `steps` looks

    Remedy
        1. Call optimizer.zero_grad() once in each step, before the first backward call.

    Source
        Deterministic but for the number of looks. PyTorch adds to `.grad` on purpose:
        torch.optim.Optimizer.zero_grad.
    """

    name = "missing-zero-grad"
    explains = (
        "loss-spike", "loss-oscillation", "loss-divergence", "loss-plateau", "loss-nonfinite",
        "slow-convergence", "update-too-large", "exploding-gradient", "vanishing-gradient",
        "activation-exploding", "activation-vanishing", "dead-relu", "saturated-activation",
        "nonfinite-tensor", "clip-always-active", "overfitting", "fp16-overflow",
    )  # fmt: skip

    steps: int = 2  # looks in a row; our own choice: one may be a step that was skipped

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        if not run.facts:
            yield Abstention(self.name, NO_FACTS)
            return
        by_owner: dict[str, list[Fact]] = defaultdict(list)
        for fact in run.facts_of("zero-grad"):
            by_owner[fact.owner].append(fact)
        for owner, facts in by_owner.items():
            newest = facts[-self.steps :]
            if len(newest) == self.steps and all(fact.amount("stale") > 0 for fact in newest):
                yield self._finding(run, owner, facts)

    def _finding(self, run: Run, owner: str, facts: list[Fact]) -> Finding:
        piled = [fact for fact in facts if fact.amount("stale") > 0]
        most = max(piled, key=lambda fact: fact.amount("stale"))
        checked, stale = most.count("checked"), most.count("stale")
        whole = 2 * stale > checked
        optimizer = run.optimizer(owner)
        who = f" of {owner}" if owner else ""
        return Finding(
            name=self.name,
            severity=Severity.CRITICAL if whole else Severity.WARNING,
            confidence=0.98 if whole else 0.85,
            message=(
                f"the gradients{who} are not cleared between steps: at step {most.step}, "
                f"{stale} of {checked} parameters looked at still held the gradient of the step "
                "before when backward added to it"
            ),
            step_start=piled[0].step,
            step_end=optimizer.steps - 1 if optimizer else None,
            owner=owner,
            evidence=(
                Evidence("stale_parameters", stale, 0),
                Evidence("checked_parameters", checked),
                Evidence("looks", len(piled), self.steps),
            ),
        )
