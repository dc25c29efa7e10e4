"""softmax-before-cross-entropy: probabilities fed to a loss that expects logits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from nndiag.detectors.base import NO_FACTS, Detector
from nndiag.records import Abstention, Evidence, Fact, Finding, Run, Severity

_SQUASHED = ("softmax", "sigmoid")
_CALLED = {
    "cross-entropy": "cross_entropy",
    "log-softmax": "log_softmax, as in cross-entropy with soft targets,",
    "nll": "nll_loss",
    "binary-cross-entropy-with-logits": "binary_cross_entropy_with_logits",
}


@dataclass(frozen=True, kw_only=True)
class SoftmaxBeforeCrossEntropy(Detector):
    """Probabilities are fed to a loss that expects logits.

    What it sees
        In the autograd graph, the input of a cross-entropy (or of a binary cross-entropy with
        logits) comes straight from a softmax or a sigmoid; only changes of shape lie between.
        Likewise an nll_loss that is fed probabilities, not their logarithms.

    Why it happens
        The model ends with a softmax, and the loss applies one more. Logits that are confined to
        0..1 cannot become certain: the loss has a floor far above 0, and the gradient of the
        first softmax vanishes as it saturates. Training works, slowly and badly.

    Evidence
        the operation, what its input comes from, the number of classes C, and the lowest loss that
        can be reached: ln(1 + (C - 1) / e) for a softmax, ln(1 + 1/e) for a sigmoid
        left out: log_softmax before cross_entropy, which changes nothing

    Remedy
        1. Remove the last softmax or sigmoid while training; apply it when predicting.

    Source
        The documentation of torch.nn.CrossEntropyLoss: "unnormalized logits". The floor follows
        from logits within 0..1.
    """

    name = "softmax-before-cross-entropy"
    explains = (
        "slow-convergence", "loss-plateau", "vanishing-gradient", "loss-oscillation",
        "update-too-small", "saturated-activation",
    )  # fmt: skip

    steps: int = 2  # steps in which it was so; our own choice

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        if not run.facts:
            yield Abstention(self.name, NO_FACTS)
            return
        alike: dict[tuple[object, ...], list[Fact]] = {}
        for fact in run.facts_of("loss"):
            operation, made_by = fact.number("operation"), fact.number("probabilities")
            if operation in _CALLED and made_by in _SQUASHED:
                key = fact.owner, operation, made_by, fact.number("classes")
                alike.setdefault(key, []).append(fact)
        told: set[tuple[object, ...]] = set()
        for (owner, _, maker, classes), facts in alike.items():
            same_input = owner, maker, classes  # smoothed labels: it enters two terms
            if len(facts) >= self.steps and same_input not in told:
                told.add(same_input)
                yield self._finding(run, facts)

    def _finding(self, run: Run, facts: list[Fact]) -> Finding:
        first = facts[0]
        operation, made_by = str(first.number("operation")), str(first.number("probabilities"))
        classes = first.count("classes")
        optimizer = run.optimizer(first.owner)
        floor = _floor(operation, made_by, classes)
        where = next((fact.where for fact in reversed(facts) if fact.where), "")
        place = f" (`{where}`)" if where else ""
        wants = "log-probabilities" if operation == "nll" else "logits"
        bound = f"; the loss cannot fall below {floor:.3g}" if floor else ""
        return Finding(
            name=self.name,
            severity=Severity.WARNING,
            confidence=0.98 if first.number("whole_loss") is True else 0.9,
            message=(
                f"{_CALLED[operation]} is fed the output of a {made_by}{place}, where it "
                f"expects {wants}{bound}"
            ),
            step_start=first.step,
            step_end=optimizer.steps - 1 if optimizer else None,
            owner=first.owner,
            layers=(where,) if where else (),
            evidence=(
                Evidence("operation", operation),
                Evidence("probabilities", made_by),
                Evidence("classes", classes),
                *([Evidence("lowest_loss", floor)] if floor else []),
            ),
        )


def _floor(operation: str, made_by: str, classes: int) -> float:
    """The lowest loss there can be; 0 where it is not known."""
    if operation == "binary-cross-entropy-with-logits" and made_by == "sigmoid":
        return math.log1p(math.exp(-1))
    if operation == "cross-entropy" and classes > 1:
        return math.log1p((classes - 1) * math.exp(-1))
    return 0.0
