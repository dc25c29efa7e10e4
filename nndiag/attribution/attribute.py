"""Attributions of a captured batch: which samples, which number, which method, within a time."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from nndiag.attribution import methods, objective
from nndiag.attribution.captured import Captured
from nndiag.attribution.features import Feature, features_of
from nndiag.attribution.methods import Attributed, Problem
from nndiag.attribution.model_call import CannotAttribute, ModelCall, at_rest
from nndiag.attribution.objective import Objective
from nndiag.attribution.trace import Trace, trace
from nndiag.vocabulary import methods as vocabulary
from nndiag.vocabulary.methods import Method

LEAST_SHARE = 0.02  # of the loss of the batch: a sample with less did not carry it
LEAST = "works on any model: --method feature-ablation"


@dataclass(frozen=True, slots=True)
class Request:
    """What is wanted of a batch."""

    method: str = vocabulary.AUTO
    layer: str = ""  # of methods that attribute to one; "": the one that suits the method
    target: int | None = None  # an output of the model; None: the label, or the loss of a spike
    samples: int = 4  # at most so many: of a spike those with the largest loss
    seconds: float = 30.0  # no sample is begun after this


@dataclass(frozen=True, slots=True, eq=False)
class OfSample:
    """What came of one sample."""

    row: int  # in the batch
    loss: float  # as the training saw it; NaN: unknown
    words: str  # which number was attributed
    label: int | None
    found: Attributed


@dataclass(frozen=True, slots=True, eq=False)
class Result:
    """Attributions of one batch by one method."""

    captured: Captured
    method: Method
    of: str  # "loss" or "output"
    features: tuple[Feature, ...]
    layer: str
    samples: tuple[OfSample, ...]
    seconds: float
    notes: tuple[str, ...] = ()

    @property
    def relative_delta(self) -> float | None:
        """mean |delta| / mean |f(x) - f(baseline)|; None: the method has no error to tell."""
        if not self.method.has_delta or not self.samples:
            return None
        each = [one.found for one in self.samples]
        change = sum(abs(found.at_sample - found.at_baseline) for found in each)
        return sum(abs(found.delta or 0.0) for found in each) / max(change, 1e-12)


@dataclass(slots=True)
class _Work:
    """A batch being attributed."""

    call: ModelCall
    method: Method
    features: tuple[Feature, ...]
    layer: nn.Module | None
    at_once: int = methods.MOST_AT_ONCE
    steps: int = methods.FIRST_STEPS
    notes: list[str] = field(default_factory=list)


def attribute(
    model: nn.Module, captured: Captured, weights: Mapping[str, Tensor] | None, request: Request
) -> Result:
    """Attribute a captured batch by one method.

    `weights` stand in for those of the model. The model is left as it was: modes, gradients,
    parameters, random numbers. Raises `CannotAttribute`, with the reason and what would work.
    """
    began = time.monotonic()
    call = ModelCall(model, captured, weights)
    with warnings.catch_warnings(), at_rest(model):
        warnings.simplefilter("ignore")  # of captum, about what it does to inputs
        seen = trace(call)
        features = features_of(call, seen)
        method = _method(request.method, features)
        layer_name, layer = _layer(request.layer, method, seen)
        work = _Work(call, method, features, layer)
        of, samples = _samples(work, request, began)
    if method.name == "feature-ablation" and request.method == vocabulary.AUTO:
        work.notes.append(f"{features[0].name} holds ids without an embedding: no gradients")
    seconds = time.monotonic() - began
    return Result(
        captured, method, of, features, layer_name, tuple(samples), seconds, tuple(work.notes)
    )


def _method(asked: str, features: Sequence[Feature]) -> Method:
    has_gradient = all(feature.has_gradient for feature in features)
    if asked == vocabulary.AUTO:
        asked = "integrated-gradients" if has_gradient else "feature-ablation"
    method = vocabulary.find(asked)
    if method is None:
        raise CannotAttribute(
            where=asked, what="no such method", do=f"one of: {', '.join(vocabulary.names())}"
        )
    if not has_gradient and method.name != "feature-ablation":
        raise CannotAttribute(
            where=f"{method.name} of {features[0].name}",
            what="whole numbers that enter no nn.Embedding have no gradient",
            do=LEAST,
        )
    return method


def _layer(asked: str, method: Method, seen: Trace) -> tuple[str, nn.Module | None]:
    """The layer that is attributed to; it must run once, for its hook to know what it sees."""
    if not method.of_layer:
        if asked:
            raise CannotAttribute(
                where=f"--layer {asked}",
                what=f"{method.name} attributes to the input, not to a layer",
                do="with a layer: --method layer-conductance",
            )
        return "", None
    if asked:
        found = next((one for one in seen.ran if one.name == asked), None)
        if found is None:
            names = ", ".join(dict.fromkeys(one.name for one in seen.ran))[:500]
            raise CannotAttribute(
                where=f"--layer {asked}", what="no such layer ran", do=f"those that ran: {names}"
            )
    elif method.name == "layer-gradcam":
        found = seen.last_convolution()
        if found is None:
            raise CannotAttribute(
                where=method.name,
                what="needs a convolution, and the model has none",
                do="what works: --method integrated-gradients, or layer-conductance",
            )
    else:
        found = seen.before_the_last()
        if found is None:
            raise CannotAttribute(
                where=method.name,
                what="the model has no layer between its input and its last one",
                do="what works: --method integrated-gradients",
            )
    if (times := seen.counts[found.name]) > 1:
        raise CannotAttribute(
            where=f"{method.name} of {found.name}",
            what=f"that layer runs {times} times in one pass, and Captum cannot tell them apart",
            do="name another: --layer NAME; or --method integrated-gradients",
        )
    return found.name, found.module


def _samples(work: _Work, request: Request, began: float) -> tuple[str, list[OfSample]]:
    """One sample after the other, the most telling first, until the time is over."""
    rows = _rows(work.call.captured, request)
    of, done = "output", []
    for number, row in enumerate(rows):
        if number and time.monotonic() - began > request.seconds:
            work.notes.append(f"{number} of {len(rows)} samples: {request.seconds:g} s were over")
            break
        aim = _aim(work, row, request)
        of = aim.of
        found = _run(work, row, aim)
        if found is None:
            continue
        work.steps = max(work.steps, found.steps)
        loss = _loss_of(work.call.captured, row)
        values = found.values if work.layer is not None else _per_input(work, found)
        kept = Attributed(values, found.at_sample, found.at_baseline, found.delta, found.steps)
        done.append(OfSample(row, loss, aim.words, aim.label, kept))
    if not done:
        why = work.notes[-1] if work.notes else "no sample gave a finite number"
        raise CannotAttribute(where=work.call.captured.model, what=why, do=_what_then(work))
    return of, done


def _rows(captured: Captured, request: Request) -> list[int]:
    """Of a spike the samples that carry the loss, NaN first of all; else the first ones."""
    if captured.why == "end" or captured.per_sample is None:
        return list(range(min(request.samples, captured.rows)))
    losses = captured.per_sample[: captured.rows].double().nan_to_num(nan=math.inf)
    order = torch.argsort(losses, descending=True, stable=True)[: request.samples]
    least = LEAST_SHARE * float(losses.sum())
    kept = [int(row) for row in order if float(losses[row]) >= least or least == math.inf]
    return kept or [int(order[0])]


def _loss_of(captured: Captured, row: int) -> float:
    return math.nan if captured.per_sample is None else float(captured.per_sample[row])


def _aim(work: _Work, row: int, request: Request) -> Objective:
    """The loss of a sample of a spike, if it can be worked out; else an output."""
    captured = work.call.captured
    with torch.no_grad():
        output = work.call.output(row)
    if captured.why != "end" and request.target is None:
        rebuilt = objective.of_loss(captured, row, output)
        seen = _loss_of(captured, row)
        if rebuilt is None:
            what = captured.loss_kind or "a loss of its own making"
            _note(work, f"the loss ({what}) cannot be worked out anew: the output is attributed")
        else:
            off = objective.nearness(rebuilt, output, seen)
            if off > objective.NEAR:
                _note(work, f"in eval mode the loss of sample {row} is {off:.0%} off what the "
                      "training saw (dropout, batch statistics)")  # fmt: skip
            return rebuilt
    return objective.of_output(captured, row, output, request.target)


def _run(work: _Work, row: int, aim: Objective) -> Attributed | None:
    """Attribute one sample; None where its score is not finite. Halves the batch out of memory."""
    problem = _problem(work, row, aim)
    with torch.no_grad():
        at_sample = float(problem.score(*problem.given)[0])
    if not math.isfinite(at_sample):
        _note(work, f"sample {row}: {aim.words} is {at_sample}{_bad_inputs(work, row)}")
        return None
    work.at_once = min(work.at_once, problem.at_once())
    while True:
        try:
            return methods.RUN[work.method.name](problem, work.at_once, work.steps)
        except (RuntimeError, AssertionError, IndexError) as error:
            if not _is_out_of_memory(error):
                raise _explained(work, error) from None
            if work.at_once == 1:
                raise CannotAttribute(
                    where=work.method.name,
                    what="one variation of one sample does not fit into memory",
                    do="cheaper: --method saliency",
                ) from None
            work.at_once //= 2


def _problem(work: _Work, row: int, aim: Objective) -> Problem:
    features, call = work.features, work.call

    def score(*given: Tensor) -> Tensor:
        pairs = list(zip(features, given, strict=True))
        replaced = {f.name: x for f, x in pairs if f.embedding is None}
        embedded = {f.embedding: x for f, x in pairs if f.embedding is not None}
        return aim.score(call.output(row, replaced, embedded))

    return Problem(
        score,
        tuple(feature.given(row) for feature in features),
        tuple(feature.baseline() for feature in features),
        tuple(feature.groups() for feature in features),
        work.layer,
    )


def _per_input(work: _Work, found: Attributed) -> tuple[Tensor, ...]:
    """(1, ...) of each input, tokens with one number each."""
    return tuple(
        feature.summed(values).unsqueeze(0)
        for feature, values in zip(work.features, found.values, strict=True)
    )


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "not enough memory" in str(error)


def _explained(work: _Work, error: Exception) -> CannotAttribute:
    """What torch or captum stumbled over, as something that a user can act on."""
    text = str(error).strip().partition("\n")[0][:300]
    if "not have been used in the graph" in text or "does not require grad" in text:
        text = "the output does not depend on the input in a way that has a gradient"
    return CannotAttribute(where=work.method.name, what=text, do=_what_then(work))


def _what_then(work: _Work) -> str:
    if work.method.name == "feature-ablation":
        return ""
    return LEAST


def _bad_inputs(work: _Work, row: int) -> str:
    """Where an input of the sample itself is not finite: then that is the reason."""
    for feature in work.features:
        if feature.embedding is None and feature.values.is_floating_point():
            bad = (~feature.values[row].isfinite()).reshape(-1).nonzero().reshape(-1)
            if bad.numel():
                places = ", ".join(map(str, bad[:5].tolist()))
                more = f" and {bad.numel() - 5} more" if bad.numel() > 5 else ""
                return f"; input {feature.name} is not finite at {places}{more}"
    return ""


def _note(work: _Work, text: str) -> None:
    if text not in work.notes:
        work.notes.append(text)
