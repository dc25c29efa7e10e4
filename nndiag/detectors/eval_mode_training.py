"""eval-mode-training: dropout or batch norm in eval mode while training."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from nndiag.detectors.base import NO_FACTS, Detector
from nndiag.records import Abstention, Evidence, Fact, Finding, Run, Severity


@dataclass(frozen=True, kw_only=True)
class EvalModeTraining(Detector):
    """Dropout or batch norm run in eval mode while the model is trained.

    What it sees
        Forward passes in eval mode that a backward call goes through, of a model that an optimizer
        steps. Validating in eval mode is no such pass, whether under no_grad() or not; nor is a
        teacher's, or an attack in eval mode before the training pass.

    Why it happens
        model.eval() for a validation and no model.train() after it; or a model that was loaded in
        eval mode (from_pretrained) and never switched. Dropout is off then, and batch norm
        uses running averages that nobody updates any more.

    Evidence
        modules of dropout and batch norm in eval mode, from which step on, and whether the whole
        model is in eval mode
        left out, or a mere remark: a part of the model that was in eval mode from the start, as
        one freezes batch norm or a backbone on purpose

    Remedy
        1. Call model.train() at the start of each epoch, and after each validation.

    Source
        torch.nn.Module.train. Deterministic but for what counts as meant.
    """

    name = "eval-mode-training"
    explains = (
        "overfitting", "loss-plateau", "slow-convergence", "loss-divergence", "loss-spike",
        "loss-oscillation", "exploding-gradient", "activation-exploding", "loss-nonfinite",
        "activation-vanishing", "vanishing-gradient",
    )  # fmt: skip

    steps: int = 2  # measured steps in a row, the newest that changed something; our own choice

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        if not run.facts:
            yield Abstention(self.name, NO_FACTS)
            return
        by_place: dict[tuple[str, str], list[Fact]] = defaultdict(list)
        for fact in run.facts_of("mode"):
            by_place[fact.where, fact.owner].append(fact)
        for (model, owner), facts in by_place.items():
            newest = facts[-self.steps :]
            if len(newest) == self.steps and all(map(_evaluates, newest)):
                yield from self._judged(run, model, owner, facts)

    def _judged(self, run: Run, model: str, owner: str, facts: list[Fact]) -> Iterator[Finding]:
        last = facts[-1]
        since = _since(facts)
        switched = since > 0
        dropout, norm = last.count("dropout_in_eval"), last.count("norm_in_eval")
        learning_norm = last.count("norm_in_eval_trained")
        whole = last.number("training") is False
        meant = not switched and (not whole or not (dropout or learning_norm))
        if meant and not learning_norm:
            return  # a frozen part, as it is often wanted
        counts = [f"{dropout} of {last.count('dropout')} dropout modules"] if dropout else []
        counts += [f"{norm} of {last.count('norm')} batch norms"] if norm else []
        start = facts[since].step
        when = f"from step {start} on" if switched else "from the first step on"
        part = "the model is" if whole else "a part of the model is"
        optimizer = run.optimizer(owner)
        steps = optimizer.steps if optimizer else facts[-1].step + 1
        yield Finding(
            name=self.name,
            severity=Severity.INFO if meant else Severity.WARNING,
            confidence=0.5 if meant else (0.95 if switched and whole else 0.8),
            message=(
                f"{part} trained in eval mode {when}: {' and '.join(counts)} "
                f"{'run' if dropout + norm > 1 else 'runs'} as in a validation"
            ),
            step_start=start,
            step_end=max(steps - 1, start),
            owner=owner,
            layers=tuple(filter(None, [str(last.number("first") or "")])),
            evidence=(
                Evidence("model", model),
                Evidence("whole_model_in_eval", whole),
                Evidence("dropout_in_eval", dropout, 0),
                Evidence("batch_norm_in_eval", norm, 0),
                Evidence("since_step", start),
            ),
        )


def _evaluates(fact: Fact) -> bool:
    return fact.amount("dropout_in_eval") > 0 or fact.amount("norm_in_eval") > 0


def _since(facts: list[Fact]) -> int:
    """Index of the first fact of the present state: since when all of them are in eval mode."""
    at = len(facts)
    while at and _evaluates(facts[at - 1]):
        at -= 1
    return at
