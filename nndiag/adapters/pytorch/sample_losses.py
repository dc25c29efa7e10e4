"""The loss of each sample, read from the autograd graph before a backward call frees it.

A loss of torch saves what it was given. So the loss that training sees, dropout and all, can be had
sample by sample with no second forward pass, and the targets with it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nndiag.adapters.pytorch.loss_facts import loss_nodes
from nndiag.adapters.pytorch.tensor_stats import is_freed

Number = float | int

# Graph node -> what docs/attribution.md calls the loss.
KINDS = {
    "NllLossBackward0": "nll",
    "NllLoss2DBackward0": "nll",
    "MseLossBackward0": "mse",
    "SmoothL1LossBackward0": "smooth-l1",
    "HuberLossBackward0": "huber",
    "BinaryCrossEntropyBackward0": "binary-cross-entropy",
    "BinaryCrossEntropyWithLogitsBackward0": "binary-cross-entropy-with-logits",
    "AbsBackward0": "absolute-difference",  # F.l1_loss, and losses written by hand
    "PowBackward0": "squared-difference",
}
BY_HAND = ("absolute-difference", "squared-difference")


@dataclass(frozen=True, slots=True, eq=False)
class ElementLosses:
    """The terms that a loss is the mean or the sum of."""

    kind: str
    elements: Tensor  # (M, ...) of the target's shape, before weighting; NaN: ignored
    targets: Tensor | None  # (M, ...); None where the graph does not hold them
    numbers: dict[str, Number] = field(default_factory=dict)  # ignore_index, beta, delta
    tensors: dict[str, Tensor] = field(default_factory=dict)  # weight, pos_weight
    terms: int = 1  # losses that the objective is made of; this is the largest of them

    def per_sample(self, samples: int) -> Tensor | None:
        """(samples,) mean over the elements of each; None where M is no multiple of it."""
        if not samples or not self.elements.ndim or self.elements.shape[0] % samples:
            return None
        of_sample_BE = self.elements.reshape(samples, -1)
        return of_sample_BE.nanmean(dim=1)

    def targets_of(self, rows: int, samples: int) -> Tensor | None:
        """The targets of the first `rows` of `samples`."""
        targets = self.targets
        if targets is None or not targets.ndim or not samples or targets.shape[0] % samples:
            return None
        return targets[: rows * (targets.shape[0] // samples)]


def element_losses(losses: Iterable[Tensor]) -> ElementLosses | None:
    """The largest term of these losses; None where no loss of a known kind is in their graph.

    To be called without gradients, before backward: afterwards what was saved is gone.
    """
    found = []
    for node, _ in loss_nodes([loss.grad_fn for loss in losses], {}, KINDS):
        try:
            one = _of(node, KINDS[type(node).__name__])
        except RuntimeError:  # what was saved is freed, or was changed in place since
            continue
        if one is not None:
            found.append(one)
    if not found:
        return None
    largest = max(found, key=lambda one: _size(one.elements))
    return ElementLosses(
        largest.kind,
        largest.elements,
        largest.targets,
        largest.numbers,
        largest.tensors,
        len(found),
    )


def _size(elements: Tensor) -> float:
    mean = float(elements.nanmean()) if elements.numel() else 0.0
    return math.inf if math.isnan(mean) else abs(mean)


def _of(node: Any, kind: str) -> ElementLosses | None:
    given = node._saved_self
    if is_freed(given) or not given.is_floating_point():
        return None
    given = given.detach()
    if kind in BY_HAND:
        return _by_hand(node, kind, given)
    targets = node._saved_target.detach()
    if kind == "nll":
        return _nll(node, given, targets)
    kinds = {
        "mse": lambda: F.mse_loss(given, targets, reduction="none"),
        "smooth-l1": lambda: F.smooth_l1_loss(
            given, targets, reduction="none", beta=node._saved_beta
        ),
        "huber": lambda: F.huber_loss(given, targets, reduction="none", delta=node._saved_delta),
        "binary-cross-entropy": lambda: F.binary_cross_entropy(given, targets, reduction="none"),
        "binary-cross-entropy-with-logits": lambda: F.binary_cross_entropy_with_logits(
            given, targets, reduction="none", pos_weight=node._saved_pos_weight
        ),
    }
    numbers = {"smooth-l1": "beta", "huber": "delta"}
    told = {numbers[kind]: getattr(node, f"_saved_{numbers[kind]}")} if kind in numbers else {}
    pos_weight = getattr(node, "_saved_pos_weight", None)
    tensors = {} if pos_weight is None else {"pos_weight": pos_weight.detach()}
    return ElementLosses(kind, kinds[kind](), targets, told, tensors)


def _nll(node: Any, log_probabilities: Tensor, targets: Tensor) -> ElementLosses:
    """Of (M, C) or (M, C, H, W) log-probabilities; it is cross-entropy if they are softmax's."""
    if log_probabilities.ndim == 1:  # one sample without a batch
        log_probabilities, targets = log_probabilities[None], targets[None]
    ignored = int(node._saved_ignore_index)
    ignored = ignored - 2**64 if ignored >= 2**63 else ignored  # torch shows it without its sign
    kept = targets != ignored
    chosen = torch.where(kept, targets, 0)
    elements = -log_probabilities.gather(1, chosen.unsqueeze(1)).squeeze(1)
    elements = elements.masked_fill(~kept, math.nan)
    before = node.next_functions[0][0]
    is_softmax = type(before).__name__ == "LogSoftmaxBackward0"
    kind = "cross-entropy" if is_softmax else "nll"
    return ElementLosses(kind, elements, targets, {"ignore_index": ignored})


def _by_hand(node: Any, kind: str, difference: Tensor) -> ElementLosses | None:
    """|a - b| or (a - b)^2 of a loss that the script works out itself; the target is not known."""
    before = node.next_functions[0][0]
    if type(before).__name__ not in ("SubBackward0", "RsubBackward1") or difference.ndim == 0:
        return None  # a penalty on something, say
    if kind == "squared-difference" and float(node._saved_exponent) != 2:
        return None
    elements = difference.abs() if kind == "absolute-difference" else difference.square()
    return ElementLosses(kind, elements, None)
