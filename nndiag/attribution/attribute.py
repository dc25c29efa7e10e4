"""Attributions of a captured batch: which samples, which number, which method, within a time."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nndiag.attribution import objective
from nndiag.attribution.captured import Captured
from nndiag.attribution.features import Feature, features_of
from nndiag.attribution.layers import layer_for
from nndiag.attribution.methods import Attributed
from nndiag.attribution.model_call import CannotAttribute, ModelCall, at_rest
from nndiag.attribution.odd_inputs import odd_inputs
from nndiag.attribution.one_sample import LEAST, Work, aim, attribute_sample, explained
from nndiag.attribution.trace import trace
from nndiag.vocabulary import methods as vocabulary
from nndiag.vocabulary.methods import Method

ABOVE = 3.0  # times the median loss of the batch: a sample with less is an ordinary one
LEAST_SHARE = 0.05  # of the loss of the batch: a sample with less did not carry it
COMPARED = 8  # samples, run together and alone


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
    differs_at_rest: bool = False  # the loss is another one in eval mode

    @property
    def relative_delta(self) -> float | None:
        """mean |delta| / mean |f(x) - f(baseline)|; None: the method has no error to tell."""
        if not self.method.has_delta or not self.samples:
            return None
        each = [one.found for one in self.samples]
        change = sum(abs(found.at_sample - found.at_baseline) for found in each)
        return sum(abs(found.delta or 0.0) for found in each) / max(change, 1e-12)


def attribute(
    model: nn.Module, captured: Captured, weights: Mapping[str, Tensor] | None, request: Request
) -> Result:
    """Attribute a captured batch by one method.

    `weights` stand in for those of the model. The model is left as it was: modes, gradients,
    parameters, random numbers. Raises `CannotAttribute`, with the reason and what would work.
    """
    began = time.monotonic()
    with warnings.catch_warnings(), at_rest(model), explained(request.method):
        warnings.simplefilter("ignore")  # of captum, about what it does to inputs
        call = ModelCall(model, captured, weights)
        _refuse_bad_weights(call)
        seen = trace(call)
        check_independence(call)
        features = features_of(call, seen)
        method = _method(request.method, features)
        layer = layer_for(request.layer, method, seen)
        work = Work(call, method, features, layer, began + request.seconds)
        if captured.loss_terms > 1 and captured.per_sample is not None:
            work.note(
                f"the loss has {captured.loss_terms} terms: samples are told apart by the "
                f"largest of a known kind ({captured.loss_kind})"
            )
        if method.name == "feature-ablation" and request.method == vocabulary.AUTO:
            work.note(f"{features[0].name} holds ids without an embedding: no gradients")
        of, samples = _samples(work, request)
    seconds = time.monotonic() - began
    notes = tuple(work.notes)
    name = "" if layer is None else layer.name
    return Result(captured, method, of, features, name, tuple(samples), seconds, notes, work.is_off)


def check_independence(call: ModelCall) -> None:
    """Raises `CannotAttribute` where what a sample gives depends on the others of its batch.

    So it is where the first dimension counts time steps, or where the batch is normalised as one.
    """
    rows = min(call.captured.rows, COMPARED)
    if rows < 2:
        return
    with torch.no_grad():
        of_all = objective.first_tensor(call.output_of_first(rows))
        alone = objective.first_tensor(call.output(rows - 1))
    if not of_all.ndim:  # one number for the batch: a loss that the model works out itself
        return
    together = of_all[rows - 1 :]
    near = 1e-3 if of_all.dtype in (torch.float32, torch.float64) else 2e-2
    has_samples = of_all.shape[0] == rows and together.shape == alone.shape
    if not has_samples or not torch.allclose(
        together.double(), alone.double(), rtol=near, atol=near * _size(of_all), equal_nan=True
    ):
        raise DependentSamples(
            where=call.captured.model,
            what="what it gives for a sample depends on the others of the batch, or its first "
            "dimension does not count samples (time first?)",
            do="put samples first, as batch_first=True does, and use no batch statistics in eval",
        )


class DependentSamples(CannotAttribute):
    """Then losses, too, may not be those of the samples that they are taken for."""


def _size(values: Tensor) -> float:
    """Of the largest finite number."""
    finite = values[values.isfinite()]
    return float(finite.abs().max()) if finite.numel() else 1.0


def _refuse_bad_weights(call: ModelCall) -> None:
    """Of parameters that are not finite no batch is the reason."""
    captured = call.captured
    for name, tensor in call.weights.items():
        if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
            what = (
                f"{name} is not finite at the end of the training: all that it gives is not, too"
                if captured.why == "end"
                else f"{name} was not finite any longer when this batch came (step "
                f"{captured.step}): no sample of it is the reason, what went before is"
            )
            raise CannotAttribute(where=captured.model, what=what)


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


def _samples(work: Work, request: Request) -> tuple[str, list[OfSample]]:
    """One sample after the other, the most telling first, until the time is over."""
    rows = _rows(work.call.captured, request)
    of, done = "output", []
    for number, row in enumerate(rows):
        if number and time.monotonic() > work.deadline:
            work.note(f"{number} of {len(rows)} samples: the time was over")
            break
        objective_of_row = aim(work, row, request.target)
        of = objective_of_row.of
        found = attribute_sample(work, row, objective_of_row)
        if found is not None:
            words, label = objective_of_row.words, objective_of_row.label
            done.append(OfSample(row, work.loss_of(row), words, label, found))
    if not done:
        raise CannotAttribute(where=work.call.captured.model, what="; ".join(work.notes[-3:]))
    return of, done


def _rows(captured: Captured, request: Request) -> list[int]:
    """Of a spike the samples that made it: by their loss, else by their input; else the first."""
    first = list(range(min(request.samples, captured.rows)))
    if captured.why == "end":
        return first
    odd = [one.row for one in odd_inputs(captured)]
    if captured.per_sample is None:
        return odd[: request.samples] or first
    losses = captured.per_sample[: captured.rows].double()
    bad = (~losses.isfinite()).nonzero().reshape(-1).tolist()
    if bad:
        return [int(row) for row in bad[: request.samples]]
    least = max(ABOVE * float(losses.median()), LEAST_SHARE * float(losses.sum()))
    order = [int(row) for row in torch.argsort(losses, descending=True, stable=True)]
    high = [row for row in order if float(losses[row]) >= least]
    return (high or odd or order[:1])[: request.samples]
