"""loss-off-chance: a classifier begins far worse than by guessing."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from nndiag.detectors.base import Detector
from nndiag.records import Abstention, Evidence, Finding, Run, Series, Severity

_BINARY = ("binary-cross-entropy", "binary-cross-entropy-with-logits")
_CLASSES = ("cross-entropy", "nll")


@dataclass(frozen=True, slots=True)
class Chance:
    """The loss of a model that gives every class the same probability."""

    value: float
    words: str  # "ln 10"


@dataclass(frozen=True, kw_only=True)
class LossOffChance(Detector):
    """A classifier begins far worse than by guessing: it is sure of itself, and wrong.

    What it sees
        The loss of the first step, before any update, against that of a model that gives all C
        classes the same probability: ln C for cross entropy, ln 2 for binary cross entropy.

    Why it happens
        The outputs are far too large at the start: weights from N(0, 1), a head that is tied to
        an embedding of scale 1, inputs of raw pixels or prices, a layer without normalisation
        before the head; or the loss is a sum and not a mean, or labels do not belong to their
        inputs. The first steps are spent on shrinking the outputs.

    Evidence
        the loss is known from the autograd graph: one operation, a mean, C classes
        reported when the first loss > limit x chance

    Remedy
        1. He or Xavier initialisation; a head that starts small.
        2. Normalise the inputs; a normalisation layer before the head.
        3. Look at labels and class numbers of one batch.

    Source
        A. Karpathy, "A Recipe for Training Neural Networks" (2019): verify loss at init. The limit
        is our own choice: 77 healthy trainings of ours begin at 0.67 to 1.6 times chance.
    """

    name = "loss-off-chance"
    explains = ()

    limit: float = 3.0  # times chance

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        reason = "no loss was recorded"
        judged = False
        for loss in run.series_of("loss"):
            if not len(loss):
                continue
            chance = chance_of(run, loss)
            if not isinstance(chance, Chance):
                reason = chance
                continue
            judged = True
            first = float(loss.values[0])
            if math.isfinite(first) and first > self.limit * chance.value:
                yield self._finding(loss, first, chance)
        if not judged:
            yield Abstention(self.name, reason)

    def _finding(self, loss: Series, first: float, chance: Chance) -> Finding:
        times = first / chance.value
        return Finding(
            name=self.name,
            severity=Severity.WARNING,
            confidence=0.9,
            message=(
                f"{loss.label} starts at {first:.4g}, {times:.3g} times the {chance.value:.4g} "
                f"({chance.words}) of a model that only guesses"
            ),
            step_start=int(loss.steps[0]),
            step_end=int(loss.steps[0]),
            series=loss.label,
            owner=loss.owner,
            evidence=(
                Evidence("loss_at_start", first),
                Evidence("chance", chance.value),
                Evidence("times_chance", times, self.limit),
            ),
        )


def chance_of(run: Run, loss: Series) -> Chance | str:
    """What guessing would give for this loss; a reason where that is not known."""
    if loss.steps[0] != 0:
        return "the first step was not recorded"
    facts = [fact for fact in run.facts_of("loss") if fact.owner in ("", loss.owner)]
    first = [fact for fact in facts if fact.step == facts[0].step]
    if not first:
        return "what loss it is was not seen"
    kinds = {(fact.number("operation"), fact.number("classes")) for fact in first}
    if len(kinds) > 1 or not all(fact.number("whole_loss") for fact in first):
        return "it is a sum of several losses"
    fact = first[0]
    operation = str(fact.number("operation"))
    if fact.number("is_mean") is not True:
        return "it is no mean over the samples"
    if operation in _BINARY:
        return Chance(math.log(2), "ln 2")
    classes = fact.amount("classes")
    if operation in _CLASSES and classes >= 2:
        return Chance(math.log(classes), f"ln {classes:.0f}")
    return f"{operation.replace('-', ' ')} has no such level"
