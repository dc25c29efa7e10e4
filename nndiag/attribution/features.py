"""What of a batch is attributed to: kinds of inputs, their baselines, what is ablated together.

Shapes: R captured samples, b variations of one of them.

| input | kind | baseline |
| --- | --- | --- |
| float (R, C, H, W) | image | the median of each channel: an even field of the usual colour |
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
MEDIAN_OF = 20_000
FEWEST_ROWS = 4  # for their median to be no sample of its own; else zeros


@dataclass(frozen=True, slots=True, eq=False)
class Feature:
    """One input that is attributed to."""

    call: ModelCall
    name: str  # as the capture calls it
    kind: str  # "image", "tabular", "sequence", "tokens", "ids"
    embedding: nn.Module | None = None  # tokens: what they go through

    @property
    def has_gradient(self) -> bool:
        return self.kind != "ids"

    @property
    def values(self) -> Tensor:
        """(R, ...) as captured."""
        return self.call.batch(self.name)

    def given(self, row: int) -> Tensor:
        """(1, ...) what the model is given for a sample: numbers, or vectors for tokens."""
        values = self.values[row : row + 1]
        if self.embedding is not None:
            return self.call.vectors_of(self.embedding, values)
        return values.float() if values.dtype is torch.uint8 and self.kind == "image" else values

    def baseline(self) -> Tensor:
        """(1, ...) of the shape of `given`: what counts as nothing."""
        if self.embedding is not None:
            padding = getattr(self.embedding, "padding_idx", None)
            blank = torch.full_like(self.values[:1], 0 if padding is None else int(padding))
            return self.call.vectors_of(self.embedding, blank)
        given = self.given(0)
        if self.kind == "ids" or (self.kind != "image" and len(self.values) < FEWEST_ROWS):
            return torch.zeros_like(given)
        values = torch.where(self.values.isfinite(), self.values.float(), math.nan)
        if self.kind == "image":
            of_channel = values.movedim(1, 0).reshape(values.shape[1], -1)
            median = _median(of_channel).reshape(1, -1, *[1] * (values.ndim - 2))
        else:
            median = values.nanmedian(dim=0, keepdim=True).values
        return median.nan_to_num().to(given.dtype).expand_as(given).clone()

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
            found.append(Feature(call, name, _kind(values)))
        elif (embedding := trace.embedding_of(call.sample(name, 0))) is not None:
            tokens.append(Feature(call, name, "tokens", embedding))
    found = [*_words(tokens), *found]
    if not found:
        found = [
            Feature(call, name, "ids")
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


def _median(values_CN: Tensor) -> Tensor:
    """(C,) of at most some ten thousand numbers each, evenly taken: enough for a median."""
    stride = values_CN.shape[1] // MEDIAN_OF | 1  # odd: never down one column of an image
    return values_CN[:, ::stride].nanmedian(dim=1).values


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
