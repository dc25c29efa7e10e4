"""What of a batch is attributed to: kinds of inputs, their baselines, what is ablated together.

Shapes: R captured samples, b variations of one of them.

| input | kind | baseline |
| --- | --- | --- |
| float (R, C, H, W) | image | zeros: the mean of the data, where it was normalised |
| float (R, F) | tabular | median of the captured rows: one odd sample cannot move it |
| float (R, T, F) | sequence | the same |
| whole numbers that enter an `nn.Embedding` | tokens | the vector of the padding, or of 0 |
| other whole numbers | ids: they have no gradient | 0 |
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from nndiag.attribution.model_call import CannotAttribute, ModelCall
from nndiag.attribution.trace import Trace

MOST_GROUPS = 256  # features that are ablated one by one
CELLS = 8  # of an image, along each side


@dataclass(frozen=True, slots=True, eq=False)
class Feature:
    """One input that is attributed to."""

    name: str  # as the capture calls it
    kind: str  # "image", "tabular", "sequence", "tokens", "ids"
    values: Tensor  # (R, ...) as captured
    embedding: nn.Module | None = None  # tokens: what they go through

    @property
    def has_gradient(self) -> bool:
        return self.kind != "ids"

    def given(self, row: int) -> Tensor:
        """(1, ...) what the model is given for a sample: numbers, or vectors for tokens."""
        values = self.values[row : row + 1]
        if self.embedding is not None:
            with torch.no_grad():
                return _embedded(self.embedding, values)
        return values.float() if self.kind == "image" and values.dtype is torch.uint8 else values

    def baseline(self) -> Tensor:
        """(1, ...) of the shape of `given`: what counts as nothing."""
        first = self.values[:1]
        if self.embedding is not None:
            padding = getattr(self.embedding, "padding_idx", None)
            blank = torch.full_like(first, 0 if padding is None else int(padding))
            with torch.no_grad():
                return _embedded(self.embedding, blank)
        if self.kind in ("tabular", "sequence"):
            values = torch.where(self.values.isfinite(), self.values.float(), math.nan)
            median = values.nanmedian(dim=0, keepdim=True).values
            return median.nan_to_num().to(first.dtype)
        return torch.zeros_like(self.given(0))

    def groups(self) -> Tensor:
        """(1, ...) of the shape of `given`: a number for each element; one number, one feature."""
        given = self.given(0)
        shape = given.shape[1:]
        if self.kind == "image":
            groups = _cells(shape[-2], shape[-1], given.device).expand(shape)
        elif self.kind == "tokens":
            positions = math.prod(shape[:-1])
            groups = _blocks(positions, given.device).reshape(*shape[:-1], 1).expand(shape)
        elif self.kind == "sequence" and math.prod(shape) > MOST_GROUPS:
            groups = _blocks(shape[0], given.device).reshape(-1, 1).expand(shape)
        else:
            groups = _blocks(math.prod(shape), given.device).reshape(shape)
        return groups.unsqueeze(0).contiguous()

    def summed(self, attribution: Tensor) -> Tensor:
        """(...) of one sample, from (1, ...): of tokens one number each."""
        one = attribution[0]
        return one.sum(dim=-1) if self.embedding is not None else one


def features_of(call: ModelCall, trace: Trace) -> tuple[Feature, ...]:
    """What can be attributed to. Raises `CannotAttribute` where there is nothing."""
    found: list[Feature] = []
    tokens: list[Feature] = []
    for name in call.captured.inputs:
        if name not in call.captured.batched:
            continue
        values = call.batch(name)
        if values.is_floating_point() or (values.dtype is torch.uint8 and values.ndim == 4):
            found.append(Feature(name, _kind(values), values))
        elif (embedding := trace.embedding_of(call.sample(name, 0))) is not None:
            tokens.append(Feature(name, "tokens", values, embedding))
    found = [*_words(tokens), *found]
    if not found:
        found = [
            Feature(name, "ids", call.batch(name))
            for name in call.captured.inputs
            if name in call.captured.batched and call.batch(name).dtype is not torch.bool
        ][:1]
    if not found:
        raise CannotAttribute(
            where=call.captured.model, what="no input of it holds numbers to attribute to"
        )
    return tuple(found)


def _kind(values: Tensor) -> str:
    return "image" if values.ndim >= 4 else "sequence" if values.ndim == 3 else "tabular"


def _words(tokens: Sequence[Feature]) -> list[Feature]:
    """Of sequences of ids the one with the largest vocabulary: the others are positions, types."""
    long = [one for one in tokens if one.values.ndim > 1]
    if not long:
        return list(tokens)  # one id a sample each: a recommender's
    return [max(long, key=lambda one: int(getattr(one.embedding, "num_embeddings", 0)))]


def _embedded(embedding: nn.Module, ids: Tensor) -> Tensor:
    out = embedding(ids)
    return out.detach() if isinstance(out, Tensor) else torch.empty(0)


def _blocks(count: int, device: torch.device) -> Tensor:
    """`count` numbers, counting up, in at most `MOST_GROUPS` equal runs."""
    run = max(1, math.ceil(count / MOST_GROUPS))
    return torch.arange(count, device=device) // run


def _cells(height: int, width: int, device: torch.device) -> Tensor:
    """(H, W) squares of a grid, counted row by row."""
    side_h, side_w = math.ceil(height / CELLS), math.ceil(width / CELLS)
    across = math.ceil(width / side_w)
    rows = torch.arange(height, device=device) // side_h
    columns = torch.arange(width, device=device) // side_w
    return rows[:, None] * across + columns[None, :]
