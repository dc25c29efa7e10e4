"""Which number is attributed: an output of the model, or the loss of one sample.

Shapes: b variations of one sample, n elements of the loss of one sample, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from math import prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from nndiag.attribution.captured import Captured
from nndiag.attribution.model_call import CannotAttribute

NEAR = 0.05  # |rebuilt - seen| / seen of a loss in eval mode that counts as the same

Score = Callable[[Any], Tensor]  # output of the model -> (b,)
Part = Callable[[Any], Tensor]  # output of the model -> what of it the loss was given
MAX_DEPTH = 4


@dataclass(frozen=True, slots=True)
class Objective:
    """A number of each variation, and what it is called."""

    of: str  # "loss" or "output"
    words: str  # "the loss", "output 3 (the label)"
    label: int | None  # of the output: its class
    score: Score
    alone: bool = False  # the model gives one number for all that it is given: one at a time


def first_tensor(output: Any) -> Tensor:
    """What counts as the output: `.logits`, else the first tensor that is more than one number."""
    found = [one for one in _tensors(output) if one.is_floating_point()]
    if not found:
        raise CannotAttribute(
            where=type(output).__name__,
            what="the model gives no tensor of floating-point numbers",
        )
    logits = output.get("logits") if isinstance(output, Mapping) else None
    logits = getattr(output, "logits", None) if logits is None else logits
    if isinstance(logits, Tensor):
        return logits
    return next((one for one in found if one.ndim), found[0])


def _tensors(output: Any, depth: int = 0) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output]
    if depth > MAX_DEPTH:
        return []
    inner: list[Any] = []
    if isinstance(output, Mapping):
        inner = list(output.values())
    elif isinstance(output, list | tuple):
        inner = list(output)
    elif is_dataclass(output):
        inner = [getattr(output, field.name, None) for field in fields(output)]
    elif isinstance(getattr(output, "logits", None), Tensor):
        inner = [output.logits]
    return [tensor for one in inner for tensor in _tensors(one, depth + 1)]


def tensor_at(output: Any, path: Sequence[str | int]) -> Tensor | None:
    """The tensor at a place of the output, as the capture names it; None where there is none."""
    for key in path:
        if isinstance(output, Tensor):
            return None
        if isinstance(output, list | tuple) and isinstance(key, int):
            output = output[key] if key < len(output) else None
        elif isinstance(output, Mapping):
            output = output.get(key)
        else:
            output = getattr(output, str(key), None)
    return output if isinstance(output, Tensor) else None


def of_output(captured: Captured, row: int, output: Any, asked: int | None) -> Objective:
    """An output of the model: the one asked for, the label's, else the largest."""
    out = first_tensor(output).detach()
    if out.ndim < 2 or out.numel() == out.shape[0]:
        if asked:
            raise CannotAttribute(where=f"--target {asked}", what="the model has one output, 0")
        words = "the output" if out.ndim else "the number that the model gives"
        alone = not out.ndim
        return Objective("output", words, None, lambda o: _rows(first_tensor(o)), alone)
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

    words = f"output {chosen}{where} ({why})" if out.shape[axis] > 1 else f"the output{where}"
    return Objective("output", words, chosen, score)


def of_loss(captured: Captured, row: int, output: Any) -> Objective | None:
    """The loss of this sample, worked out anew from the model's output; None where it cannot be.

    Only of what the capture names as the very output that the loss was given. How near it comes to
    the loss that the training saw, `nearness` tells.
    """
    targets, path = captured.targets_of(row), captured.loss_output
    out = tensor_at(output, path) if path is not None else None
    if targets is None or path is None or out is None:
        return None
    made = _loss_scores(captured, targets, out, lambda o: _at(o, path))
    words = f"the loss ({captured.loss_kind})"
    found = [Objective("loss", words, None, score) for score in made]
    seen = float("nan") if captured.per_sample is None else float(captured.per_sample[row])
    return min(found, key=lambda one: nearness(one, output, seen), default=None)


def nearness(objective: Objective, output: Any, seen: float) -> float:
    """|rebuilt - seen| / |seen|: 0 where eval mode makes no difference to the loss."""
    rebuilt = float(objective.score(output).detach()[0])
    return abs(rebuilt - seen) / max(abs(seen), 1e-6)


def _at(output: Any, path: Sequence[str | int]) -> Tensor:
    found = tensor_at(output, path)
    return first_tensor(output) if found is None else found


def _loss_scores(captured: Captured, targets: Tensor, out: Tensor, part: Part) -> list[Score]:
    """Every way in which the targets fit the output: mostly one."""
    if captured.loss_kind in ("cross-entropy", "nll"):
        axes = _axes_of_classes(tuple(out.shape[1:]), targets)
        made = [_classification(captured, targets, out, part, *axis) for axis in axes]
        return [score for score in made if score is not None]
    pointwise = _POINTWISE.get(captured.loss_kind)
    if pointwise is None or targets.numel() != out.numel():
        return []

    def score(given: Any) -> Tensor:
        values = part(given)
        wanted = targets.to(values).reshape(1, *values.shape[1:]).expand_as(values)
        return pointwise(values, wanted, captured).reshape(values.shape[0], -1).mean(dim=1)

    return [score]


def _classification(
    captured: Captured, targets: Tensor, out: Tensor, part: Part, axis: int, cut: int | None
) -> Score | None:
    """The mean over the labels that count; None where a label is none of the classes."""
    labels = targets.reshape(-1)
    ignored = int(captured.loss_numbers.get("ignore_index", -100))
    counted = labels != ignored
    if bool(((labels < 0) | (labels >= out.shape[axis]))[counted].any()):
        return None
    loss = F.cross_entropy if captured.loss_kind == "cross-entropy" else F.nll_loss
    told: dict[str, Any] = {"ignore_index": ignored, "reduction": "none"}
    weight = captured.loss_tensors.get("weight")
    if weight is not None:
        if weight.shape != (out.shape[axis],):
            return None
        told["weight"] = weight.to(out.device, torch.float32)
    if "label_smoothing" in captured.loss_numbers:
        told["label_smoothing"] = captured.loss_numbers["label_smoothing"]

    def score(given: Any) -> Tensor:
        values = part(given).movedim(axis, -1)
        values = values[:, :cut] if cut is not None else values
        b = values.shape[0]
        flat = values.reshape(-1, values.shape[-1]).float()
        each = loss(flat, labels.to(flat.device).repeat(b), **told)
        return each.reshape(b, -1).sum(dim=1) / max(int(counted.sum()), 1)

    return score


def _axes_of_classes(shape: tuple[int, ...], targets: Tensor) -> Iterator[tuple[int, int | None]]:
    """Where the classes may be in an output (b, *shape), and to which position the labels go.

    n labels fit (b, C), (b, n, C), (b, n + 1, C) where each position predicts the next one, and
    torch's own order (b, C, ...).
    """
    count = targets.numel()
    if len(shape) == 1 and count == 1:
        yield 1, None
    if len(shape) == 2 and shape[0] == count:
        yield 2, None
    if len(shape) == 2 and shape[0] == count + 1:
        yield 2, -1
    if len(shape) > 1 and prod(shape[1:]) == count:
        yield 1, None


def _pos_weight(values: Tensor, captured: Captured) -> Tensor | None:
    weight = captured.loss_tensors.get("pos_weight")
    return None if weight is None else weight.to(values)


_POINTWISE: dict[str, Callable[[Tensor, Tensor, Captured], Tensor]] = {
    "mse": lambda x, y, c: F.mse_loss(x, y, reduction="none"),
    "squared-difference": lambda x, y, c: F.mse_loss(x, y, reduction="none"),
    "absolute-difference": lambda x, y, c: F.l1_loss(x, y, reduction="none"),
    "smooth-l1": lambda x, y, c: F.smooth_l1_loss(
        x, y, reduction="none", beta=c.loss_numbers.get("beta", 1.0)
    ),
    "huber": lambda x, y, c: F.huber_loss(
        x, y, reduction="none", delta=c.loss_numbers.get("delta", 1.0)
    ),
    "binary-cross-entropy": lambda x, y, c: F.binary_cross_entropy(x, y, reduction="none"),
    "binary-cross-entropy-with-logits": lambda x, y, c: F.binary_cross_entropy_with_logits(
        x, y, reduction="none", pos_weight=_pos_weight(x, c)
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
