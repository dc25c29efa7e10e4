"""The loss of each sample, read from the autograd graph before a backward call frees it.

A loss of torch saves what it was given. So the loss that training sees, dropout and all, can be had
sample by sample with no second forward pass, and the targets with it. What is read equals
`reduction="none"`; where it cannot be known which sample an element belongs to, nothing is said.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nndiag.adapters.pytorch.autograd_graph import saved
from nndiag.adapters.pytorch.loss_terms import BY_HAND, Term, Terms

Number = float | int

MOST_ELEMENTS = 1 << 22  # of the loss of a batch that are kept one by one: 16 MiB
# What may stand between a loss and the whole of it, beside factors: the share of each sample stays.
PASSED = frozenset(
    "Mean0 Mean1 Sum0 Sum1 Mul1 Div1 Add0 Sub0 Neg0 Sqrt0 Nanmean0 Stack0 Cat0 ToCopy0 Clone0 "
    "View0 UnsafeView0 Reshape0 Squeeze0 Squeeze1 Unsqueeze0 Alias0".split()
)
FACTORS = ("MulBackward0", "DivBackward0")


@dataclass(frozen=True, slots=True, eq=False)
class ElementLosses:
    """What a loss is the mean or the sum of. M: samples, or samples times positions."""

    kind: str
    elements: Tensor  # (M, ...) as `reduction="none"` gives them
    counted: Tensor | None = None  # (M, ...) bool; None: all are
    targets: Tensor | None = None  # (M, ...); None where the graph does not hold them
    numbers: dict[str, Number] = field(default_factory=dict)  # ignore_index, beta, delta, ...
    tensors: dict[str, Tensor] = field(default_factory=dict)  # weight, pos_weight
    terms: int = 1  # that the whole loss is made of; this is the largest of them
    output: tuple[str | int, ...] | None = None  # what the model returns that it is a loss of
    keeps_order: bool = False
    output_rows: int = 0

    def per_sample(self, samples: int) -> Tensor | None:
        """(samples,) mean over the elements of each; None where they cannot be told apart."""
        if not self._fits(samples):
            return None
        elements_BE = self.elements.reshape(samples, -1)
        if self.counted is None:
            return elements_BE.mean(dim=1)
        counted_BE = self.counted.reshape(samples, -1)
        kept_BE = elements_BE.masked_fill(~counted_BE, 0.0)
        return kept_BE.sum(dim=1) / counted_BE.sum(dim=1).clamp(min=1)

    def targets_of(self, rows: int, samples: int) -> Tensor | None:
        """The targets of the first `rows` of `samples`."""
        targets = self.targets
        if targets is None or not targets.ndim or not self._fits(samples):
            return None
        return targets[: rows * (targets.shape[0] // samples)]

    def elements_of(self, rows: int, samples: int) -> Tensor | None:
        """(rows, ...) the elements of the first samples, NaN where one does not count.

        None where a sample has but one element, where they cannot be told apart, and of too many.
        """
        count = self.elements.numel()
        if not self._fits(samples) or not samples < count <= MOST_ELEMENTS:
            return None
        each = self.elements
        if self.counted is not None:
            each = each.masked_fill(~self.counted, math.nan)
        if each.shape[0] != samples:
            each = each.reshape(samples, -1, *each.shape[1:])
        sizes = [size for size in each.shape[1:] if size != 1]  # torch adds axes of its own
        return each[:rows].reshape(-1, *sizes).float()

    def described(self) -> dict[str, object]:
        """What capture.json says of it."""
        told: dict[str, object] = {"kind": self.kind, "terms": self.terms, **self.numbers}
        return told if self.output is None else {**told, "output": list(self.output)}

    def _fits(self, samples: int) -> bool:
        """Whether the first dimension counts samples, or samples one after the other."""
        if not samples or not self.elements.ndim:
            return False
        count = self.elements.shape[0]
        one_by_one = self.keeps_order and self.output_rows == samples and not count % samples
        return count == samples or one_by_one


def element_losses(terms: Terms) -> ElementLosses | None:
    """The largest of these terms; None where there is none that can be read.

    To be called without gradients, before backward: afterwards what was saved is gone.
    """
    found, smoothed = [], 0
    for term in terms.known:
        try:
            one = _of(term)
        except RuntimeError:  # what was saved was changed in place since
            continue
        if one is not None:
            smoothed += "label_smoothing" in one.numbers  # whose other half is a term by itself
            found.append(one)
    if not found:
        return None
    largest = max(found, key=lambda one: _size(one.elements))
    count = len(terms.known) + terms.others + terms.elsewhere - smoothed
    return _with(largest, terms=max(count, 1))


def _size(elements: Tensor) -> float:
    mean = float(elements.float().mean()) if elements.numel() else 0.0
    return math.inf if math.isnan(mean) else abs(mean)


def _with(one: ElementLosses, **changed: Any) -> ElementLosses:
    told = {name: getattr(one, name) for name in ElementLosses.__dataclass_fields__}
    return ElementLosses(**{**told, **changed})


def _of(term: Term) -> ElementLosses | None:
    given = saved(term.node, "self")
    if given is None or not given.is_floating_point():
        return None
    given = given.detach()
    one = _READ.get(term.kind, _pointwise)(term, given)
    if one is None:
        return None
    elements = _weighted(one.elements, term)
    if elements is None:
        return None
    is_plain = elements is one.elements and (term.kind == "nll" or "weight" not in one.tensors)
    return _with(
        one,
        elements=elements,
        output=term.output.path
        if one.targets is not None and term.sees_output and is_plain
        else None,
        keeps_order=term.keeps_order,
        output_rows=term.output.shape[0],
    )


def _pointwise(term: Term, given: Tensor) -> ElementLosses | None:
    targets = saved(term.node, "target")
    if targets is None:
        return None
    targets = targets.detach()
    name = {"smooth-l1": "beta", "huber": "delta"}.get(term.kind, "")
    numbers = {name: getattr(term.node, f"_saved_{name}")} if name else {}
    elements = _POINTWISE[term.kind](given, targets, numbers)
    # These losses are the same either way round, and people write them either way.
    return ElementLosses(term.kind, elements, None, given if term.is_target else targets, numbers)


_POINTWISE: dict[str, Callable[[Tensor, Tensor, dict[str, Number]], Tensor]] = {
    "mse": lambda x, y, n: F.mse_loss(x, y, reduction="none"),
    "smooth-l1": lambda x, y, n: F.smooth_l1_loss(x, y, reduction="none", beta=n["beta"]),
    "huber": lambda x, y, n: F.huber_loss(x, y, reduction="none", delta=n["delta"]),
}


def _binary(term: Term, given: Tensor) -> ElementLosses | None:
    targets, weight = saved(term.node, "target"), saved(term.node, "weight")
    if targets is None:
        return None
    targets = targets.detach()
    if term.kind == "binary-cross-entropy":
        elements = F.binary_cross_entropy(given, targets, reduction="none")
        pos_weight = None
    else:
        pos_weight = saved(term.node, "pos_weight")
        elements = F.binary_cross_entropy_with_logits(
            given, targets, reduction="none", pos_weight=pos_weight
        )
    tensors = {} if pos_weight is None else {"pos_weight": pos_weight.detach()}
    if weight is not None:
        elements = elements * weight
        tensors["weight"] = weight.detach()
    wanted = None if term.is_target else targets
    return ElementLosses(term.kind, elements, None, wanted, {}, tensors)


def _nll(term: Term, log_probabilities: Tensor) -> ElementLosses | None:
    """Of (M, C) or (M, C, H, W) log-probabilities; cross-entropy if the model gave no such."""
    targets = saved(term.node, "target")
    if targets is None:
        return None
    targets, weight = targets.detach(), saved(term.node, "weight")
    if log_probabilities.ndim == 1:  # one sample without a batch
        log_probabilities, targets = log_probabilities[None], targets[None]
    ignored = int(term.node._saved_ignore_index)
    ignored = ignored - 2**64 if ignored >= 2**63 else ignored  # torch shows it without its sign
    kept = targets != ignored
    chosen = torch.where(kept, targets, 0)
    elements = -log_probabilities.gather(1, chosen.unsqueeze(1)).squeeze(1)
    numbers: dict[str, Number] = {"ignore_index": ignored}
    if weight is not None:
        elements = elements * weight.detach()[chosen]
    if (smoothing := _label_smoothing(term, log_probabilities.shape[1])) is not None:
        numbers["label_smoothing"] = smoothing
        each_class = log_probabilities
        if weight is not None:
            shape = [1, -1, *[1] * (log_probabilities.ndim - 2)]
            each_class = each_class * weight.detach().reshape(shape)
        share = smoothing / log_probabilities.shape[1]
        elements = (1 - smoothing) * elements - share * each_class.sum(dim=1)
    elements = elements.masked_fill(~kept, 0.0)
    is_softmax = any(type(node).__name__ == "LogSoftmaxBackward0" for node in term.below)
    return ElementLosses(
        "cross-entropy" if is_softmax else "nll",
        elements,
        kept,
        targets,
        numbers,
        {} if weight is None else {"weight": weight.detach()},
    )


def _label_smoothing(term: Term, classes: int) -> float | None:
    """s of `F.cross_entropy`: (1 - s) of this term, and s / C of the sum over all classes."""
    if len(term.above) < 2 or type(term.above[-1]).__name__ != "MulBackward1":
        return None
    whole = term.above[-2]
    if type(whole).__name__ != "AddBackward0":
        return None
    factors = [
        float(node._saved_other)
        for node, _ in whole.next_functions
        if type(node).__name__ == "MulBackward1"
    ]
    if len(factors) != 2:
        return None
    smoothing = 1 - float(term.above[-1]._saved_other)
    other = sum(factors) - (1 - smoothing)
    is_one = 0 < smoothing < 1 and math.isclose(other * classes, smoothing, rel_tol=1e-6)
    return smoothing if is_one else None


def _by_hand(term: Term, difference: Tensor) -> ElementLosses | None:
    """|a - b| or (a - b)^2: `F.l1_loss`, and what a script works out itself."""
    if difference.ndim == 0:
        return None
    if term.kind == "squared-difference" and float(term.node._saved_exponent) != 2:
        return None
    elements = difference.abs() if term.kind == "absolute-difference" else difference.square()
    return ElementLosses(term.kind, elements, None, _subtracted(term, difference))


def _subtracted(term: Term, difference: Tensor) -> Tensor | None:
    """The target, which the graph does not hold: the output is, if it is still there, less it."""
    output = term.output.value()
    if not term.sees_output or output is None or output.numel() != difference.numel():
        return None
    minus = term.below[0]
    if type(minus).__name__ != "SubBackward0":
        return None
    after = term.below[1] if len(term.below) > 1 else None
    operands = [node for node, _ in minus.next_functions]
    first = operands[0] is not None and (
        operands[0] is after or (after is None and operands[0]._sequence_nr() == term.output.number)
    )
    seen = output.detach().reshape(difference.shape)
    return seen - difference if first else seen + difference


_READ: dict[str, Callable[[Term, Tensor], ElementLosses | None]] = {
    "nll": _nll,
    "binary-cross-entropy": _binary,
    "binary-cross-entropy-with-logits": _binary,
    **dict.fromkeys(BY_HAND, _by_hand),
}


def _weighted(elements: Tensor, term: Term) -> Tensor | None:
    """The elements times what they are multiplied by later: masks, weights of samples.

    None where something else becomes of them: the largest are chosen, say.
    """
    below = term.node
    for node in reversed(term.above):
        kind = type(node).__name__
        if kind in FACTORS:
            found = _times(elements, _other(node, below), kind == "DivBackward0")
            if found is None:
                return None
            elements = found
        elif kind.replace("Backward", "") not in PASSED:
            return None
        below = node
    return elements


def _other(node: Any, below: Any) -> Tensor | None:
    """What a product is made of beside the operand that comes from `below`."""
    operands = [operand for operand, _ in node.next_functions]
    if type(node).__name__ == "DivBackward0" and operands[0] is not below:
        return None
    other = saved(node, "other" if operands[0] is below else "self")
    return other if isinstance(other, Tensor) else None


def _times(elements: Tensor, factor: Tensor | None, is_divisor: bool) -> Tensor | None:
    """None where it is not known which element a factor belongs to."""
    if factor is None:
        return None
    factor = factor.detach()
    if factor.numel() == 1:  # of all alike: the number of micro-batches, the scale of a scaler
        return elements
    if factor.ndim == 1 and elements.ndim > 1 and factor.shape[0] == elements.shape[0]:
        factor = factor.reshape(-1, *[1] * (elements.ndim - 1))
    if factor.ndim != elements.ndim or not _broadcasts(factor.shape, elements.shape):
        return None
    return elements / factor if is_divisor else elements * factor


def _broadcasts(small: Sequence[int], large: Sequence[int]) -> bool:
    return all(a in (1, b) for a, b in zip(small, large, strict=True))
