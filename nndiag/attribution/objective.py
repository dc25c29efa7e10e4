"""Which number is attributed: an output of the model, or the loss of one sample.

Shapes: b variations of one sample, n elements of the loss of one sample, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nndiag.attribution.captured import Captured
from nndiag.attribution.model_call import CannotAttribute

NEAR = 0.05  # |rebuilt - seen| / seen of a loss in eval mode that counts as the same

Score = Callable[[Any], Tensor]  # output of the model -> (b,)


@dataclass(frozen=True, slots=True)
class Objective:
    """A number of each variation, and what it is called."""

    of: str  # "loss" or "output"
    words: str  # "the loss", "output 3 (the label)"
    label: int | None  # of the output: its class
    score: Score


def first_tensor(output: Any) -> Tensor:
    """What counts as the output: `.logits`, the first tensor of a tuple or a mapping."""
    if isinstance(output, Tensor):
        return output
    logits = getattr(output, "logits", None)
    if isinstance(logits, Tensor):
        return logits
    if isinstance(output, Mapping):
        output = [output["logits"]] if "logits" in output else list(output.values())
    if isinstance(output, list | tuple):
        for one in output:
            if isinstance(one, Tensor) and one.is_floating_point():
                return one
            if isinstance(one, list | tuple | Mapping):
                return first_tensor(one)
    raise CannotAttribute(
        where=type(output).__name__, what="the model gives no tensor that could be attributed"
    )


def of_output(captured: Captured, row: int, output: Any, asked: int | None) -> Objective:
    """An output of the model: the one asked for, the label's, else the largest."""
    out = first_tensor(output).detach()
    if out.ndim < 2 or out.numel() == out.shape[0]:
        return Objective("output", "the output", None, lambda o: _rows(first_tensor(o)))
    axis = _class_axis(captured, row, out)
    flat = out.movedim(axis, -1).reshape(-1, out.shape[axis])  # (positions, C)
    label = _label(captured, row, out.shape[axis])
    place = _last_position(captured, row, flat.shape[0]) if out.ndim == 3 else None
    seen = flat.mean(dim=0) if place is None else flat[place]
    chosen = asked if asked is not None else label if label is not None else int(seen.argmax())
    if not 0 <= chosen < out.shape[axis]:
        raise CannotAttribute(
            where=f"--target {chosen}", what=f"the model has the outputs 0 to {out.shape[axis] - 1}"
        )
    why = "asked for" if asked is not None else "the label" if label is not None else "the largest"
    where = "" if place is None else f" at position {place}"

    def score(given: Any) -> Tensor:
        of_class = first_tensor(given).select(axis, chosen)  # (b, positions...)
        spread = of_class.reshape(of_class.shape[0], -1)
        return spread.mean(dim=1) if place is None else spread[:, place]

    return Objective("output", f"output {chosen}{where} ({why})", chosen, score)


def of_loss(captured: Captured, row: int, output: Any) -> Objective | None:
    """The loss of this sample, worked out anew from the model's output; None where it cannot be.

    What comes out for the sample as it is must have the right number of elements; how near it is
    to the loss that the training saw, `nearness` tells.
    """
    targets = captured.targets_of(row)
    score = _loss_score(captured, targets, first_tensor(output)) if targets is not None else None
    if score is None:
        return None
    return Objective("loss", f"the loss ({captured.loss_kind})", None, score)


def nearness(objective: Objective, output: Any, seen: float) -> float:
    """|rebuilt - seen| / |seen|: 0 where eval mode makes no difference to the loss."""
    rebuilt = float(objective.score(output).detach()[0])
    return abs(rebuilt - seen) / max(abs(seen), 1e-6)


def _loss_score(captured: Captured, targets: Tensor, out: Tensor) -> Score | None:
    if captured.loss_kind in ("cross-entropy", "nll"):
        return _classification(captured, targets, out)
    pointwise = _POINTWISE.get(captured.loss_kind)
    if pointwise is None or targets.numel() != out.numel():
        return None

    def score(given: Any) -> Tensor:
        values = first_tensor(given)
        wanted = targets.to(values).reshape(1, -1)
        spread = values.reshape(values.shape[0], -1)
        return pointwise(spread, wanted.expand_as(spread), captured).mean(dim=1)

    return score


def _classification(captured: Captured, targets: Tensor, out: Tensor) -> Score | None:
    """n labels against (b, C), (b, n, C), (b, n + 1, C) of a shifted sequence, or (b, C, ...)."""
    labels = targets.reshape(-1)
    ignored = int(captured.loss_numbers.get("ignore_index", -100))
    count = labels.numel()
    shape = tuple(out.shape[1:])
    if len(shape) == 1 and count == 1:
        axis, cut = 1, None
    elif len(shape) == 2 and shape[0] == count:
        axis, cut = 2, None
    elif len(shape) == 2 and shape[0] == count + 1:  # each position predicts the next one
        axis, cut = 2, -1
    elif len(shape) > 1 and prod(shape[1:]) == count:
        axis, cut = 1, None
    else:
        return None
    largest = int(labels[labels != ignored].max()) if bool((labels != ignored).any()) else -1
    if not 0 <= largest < out.shape[axis]:
        return None
    is_logits = captured.loss_kind == "cross-entropy"

    def score(given: Any) -> Tensor:
        values = first_tensor(given).movedim(axis, -1)
        values = values[:, :cut] if cut is not None else values
        b = values.shape[0]
        flat = values.reshape(-1, values.shape[-1]).float()
        wanted = labels.to(flat.device).repeat(b)
        if not is_logits:
            each = F.nll_loss(flat, wanted, ignore_index=ignored, reduction="none")
        else:
            each = F.cross_entropy(flat, wanted, ignore_index=ignored, reduction="none")
        kept = (wanted != ignored).reshape(b, -1)
        return each.reshape(b, -1).sum(dim=1) / kept.sum(dim=1).clamp(min=1)

    return score


_POINTWISE: dict[str, Callable[[Tensor, Tensor, Captured], Tensor]] = {
    "mse": lambda x, y, c: F.mse_loss(x, y, reduction="none"),
    "smooth-l1": lambda x, y, c: F.smooth_l1_loss(
        x, y, reduction="none", beta=c.loss_numbers.get("beta", 1.0)
    ),
    "huber": lambda x, y, c: F.huber_loss(
        x, y, reduction="none", delta=c.loss_numbers.get("delta", 1.0)
    ),
    "binary-cross-entropy": lambda x, y, c: F.binary_cross_entropy(x, y, reduction="none"),
    "binary-cross-entropy-with-logits": lambda x, y, c: F.binary_cross_entropy_with_logits(
        x, y, reduction="none"
    ),
}


def _rows(out: Tensor) -> Tensor:
    return out.reshape(out.shape[0], -1).mean(dim=1) if out.ndim else out.reshape(1)


def _class_axis(captured: Captured, row: int, out: Tensor) -> int:
    """Where the classes are: the last axis of (1, C) and (1, T, C), the second of images."""
    targets = captured.targets_of(row)
    if out.ndim == 3 and targets is not None and not targets.is_floating_point():
        return 1 if out.shape[2] == targets.numel() != out.shape[1] else 2
    return 2 if out.ndim == 3 else 1


def _label(captured: Captured, row: int, classes: int) -> int | None:
    """The class of a sample, if its loss knows just one."""
    targets = captured.targets_of(row)
    if targets is None or targets.is_floating_point() or targets.numel() != 1:
        return None
    label = int(targets.reshape(()))
    return label if 0 <= label < classes else None


def _last_position(captured: Captured, row: int, positions: int) -> int:
    """The last position that the loss counts; the last of all where it knows nothing of them."""
    targets = captured.targets_of(row)
    if targets is None or targets.is_floating_point() or not 1 < targets.numel() <= positions:
        return positions - 1
    counted = targets.reshape(-1) != int(captured.loss_numbers.get("ignore_index", -100))
    return int(torch.nonzero(counted)[-1]) if bool(counted.any()) else positions - 1
