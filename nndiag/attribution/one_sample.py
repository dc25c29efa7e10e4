"""One sample of a captured batch: which number of it is attributed, and by which steps."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor

from nndiag.attribution import methods, objective
from nndiag.attribution.features import Feature
from nndiag.attribution.layers import Layer
from nndiag.attribution.methods import Attributed, Problem
from nndiag.attribution.model_call import CannotAttribute, ModelCall
from nndiag.attribution.objective import Objective
from nndiag.vocabulary.methods import Method

LEAST = "works on any model: --method feature-ablation"
GONE = 0.5  # of the loss that the training saw: what eval mode leaves of it at most, if so
FEWEST_AT_ONCE = 16  # variations; else as many as the batch had samples: that fitted into memory
# What torch, captum and the script's own model raise where they cannot work with what they got.
FAILURES = (
    RuntimeError, ArithmeticError, AssertionError, AttributeError, LookupError, TypeError,
    ValueError, MemoryError,
)  # fmt: skip
OUT_OF_MEMORY = ("not enough memory", "can't allocate memory", "out of memory")
NO_GRADIENT = (
    "not have been used in the graph",
    "does not require grad",
    "element 0 of tensors does not require",
)


@dataclass(slots=True)
class Work:
    """A batch being attributed."""

    call: ModelCall
    method: Method
    features: tuple[Feature, ...]
    layer: Layer | None
    deadline: float = math.inf  # of time.monotonic
    at_once: int = methods.MOST_AT_ONCE
    steps: int = methods.FIRST_STEPS
    notes: list[str] = field(default_factory=list)
    is_off: bool = False  # a loss was told to be another one in eval mode

    def note(self, text: str) -> None:
        if text not in self.notes:
            self.notes.append(text)

    def loss_of(self, row: int) -> float:
        """As the training saw it; NaN: unknown."""
        each = self.call.captured.per_sample
        return math.nan if each is None else float(each[row])


def aim(work: Work, row: int, target: int | None) -> Objective:
    """The loss of a sample of a spike, if it can be worked out; else an output."""
    captured = work.call.captured
    with torch.no_grad():
        output = work.call.output(row)
    if captured.why == "end" or target is not None:
        return objective.of_output(captured, row, output, target)
    rebuilt = objective.of_loss(captured, row, output)
    if rebuilt is None:
        what = captured.loss_kind or "a loss of its own making"
        work.note(f"the loss ({what}) cannot be worked out anew: the output is attributed")
        return objective.of_output(captured, row, output, None)
    seen, at_rest = work.loss_of(row), float(rebuilt.score(output).detach()[0])
    if objective.nearness(rebuilt, output, seen) > objective.NEAR and not work.is_off:
        work.is_off = True
        told = f"in eval mode the loss of sample {row} is {at_rest:.3g}, in training {seen:.3g}"
        why = ": dropout or batch statistics made it, not this sample"
        work.note(told + (why if at_rest < GONE * seen else ""))
    return rebuilt


def attribute_sample(work: Work, row: int, aim: Objective) -> Attributed | None:
    """Attribute one sample; None where its score is not finite. Halves the batch out of memory."""
    problem = _problem(work, row, aim)
    with torch.no_grad():
        at_sample = float(problem.score(*problem.given)[0])
    if not math.isfinite(at_sample):
        work.note(f"sample {row}: {aim.words} is {at_sample}{_bad_inputs(work, row)}")
        return None
    work.at_once = min(work.at_once, problem.at_once())
    while True:
        try:
            found = methods.RUN[work.method.name](problem, work.at_once, work.steps)
        except FAILURES as error:
            if not _is_out_of_memory(error):
                raise
            if work.at_once == 1:
                raise CannotAttribute(
                    where=work.method.name,
                    what="one variation of one sample does not fit into memory",
                    do="cheaper: --method saliency",
                ) from None
        else:
            break
        work.at_once //= 2  # here, where the exception holds no tensor any longer
    if not all(bool(values.isfinite().all()) for values in found.values):
        work.note(f"sample {row}: some gradients are not finite")
    work.steps = max(work.steps, found.steps)
    if work.layer is not None:
        return found
    return Attributed(
        tuple(
            feature.summed(values).unsqueeze(0)
            for feature, values in zip(work.features, found.values, strict=True)
        ),
        found.at_sample,
        found.at_baseline,
        found.delta,
        found.steps,
    )


@contextlib.contextmanager
def explained(method: str) -> Iterator[None]:
    """What torch, captum or the model stumbled over, as something that a user can act on."""
    try:
        yield
    except FAILURES as error:
        text = str(error).strip().partition("\n")[0][:300] or type(error).__name__
        if any(known in text for known in NO_GRADIENT):
            text = "the output does not depend on the input in a way that has a gradient"
        do = "" if method == "feature-ablation" else LEAST
        raise CannotAttribute(where=method, what=text, do=do) from None


def _problem(work: Work, row: int, aim: Objective) -> Problem:
    features, call = work.features, work.call

    def score(*given: Tensor) -> Tensor:
        replaced, embedded = {}, {}
        for feature, values in zip(features, given, strict=True):
            if feature.embedding is None:
                replaced[feature.name] = values
            else:
                embedded[feature.name] = (feature.embedding, values)
        found = aim.score(call.output(row, replaced, embedded))
        if found.shape != given[0].shape[:1]:
            raise CannotAttribute(
                where=call.captured.model,
                what=f"gives {tuple(found.shape)} numbers for {given[0].shape[0]} samples",
            )
        return found

    return Problem(
        score,
        tuple(feature.given(row) for feature in features),
        tuple(feature.baseline() for feature in features),
        tuple(feature.groups() for feature in features),
        work.layer,
        work.deadline,
        at_most=1 if aim.alone else max(FEWEST_AT_ONCE, call.captured.samples),
    )


def _is_out_of_memory(error: BaseException) -> bool:
    known = isinstance(error, torch.OutOfMemoryError | MemoryError)
    return known or any(text in str(error) for text in OUT_OF_MEMORY)


def _bad_inputs(work: Work, row: int) -> str:
    """Where an input of the sample itself is not finite: then that is the reason."""
    for feature in work.features:
        if feature.embedding is None and feature.values.is_floating_point():
            bad = (~feature.values[row].isfinite()).nonzero().tolist()
            if bad:
                is_only = feature.name == "0" and len(work.features) == 1
                name = "x" if is_only else feature.name  # as reports call it
                places = ", ".join(f"{name}{place}" for place in bad[:5])
                more = f" and {len(bad) - 5} more" if len(bad) > 5 else ""
                return f"; its input is not finite at {places}{more}"
    return ""
