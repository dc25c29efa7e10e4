"""The Euclidean norm of all gradients together, at every step: it must cost next to nothing.

A call for each of hundreds of small tensors costs more than their arithmetic, so tensors of one
shape are stacked, as many as a core keeps at hand; how they go together is worked out once.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from nndiag.adapters.pytorch.tensor_stats import (
    CHUNK,
    SMALL,
    Scalar,
    as_wide,
    by_shape,
    norm_of_norms,
    norms,
)


class GlobalNorm:
    """The norm of a list of tensors that has the same shapes step after step."""

    def __init__(self) -> None:
        self._length = -1  # of the list that the places below are for
        self._stacks: list[list[int]] = []  # places of small tensors of one shape
        self._alone: list[int] = []  # places of all others

    def of(self, tensors: list[Tensor]) -> Scalar:
        """Their norm. Shapes: any."""
        if {type(t) for t in tensors} != {Tensor} or not tensors[0].is_cpu:
            return norm_of_norms(norms(tensors))
        if len(tensors) != self._length:
            self._plan(tensors)
        try:
            return self._add_up(tensors)
        except RuntimeError:  # other shapes than last time
            self._length = -1
            return norm_of_norms(norms(tensors))

    def _add_up(self, tensors: list[Tensor]) -> float:
        squares = 0.0
        for places in self._stacks:
            stacked = as_wide(torch.stack([tensors[place] for place in places]))
            length = torch.linalg.vector_norm(stacked).item()
            squares += length * length
        for number in norms([tensors[place] for place in self._alone]):
            squares += float(number) * float(number)
        return math.sqrt(squares)

    def _plan(self, tensors: Sequence[Tensor]) -> None:
        self._length, self._stacks, self._alone = len(tensors), [], []
        for places in by_shape(tensors).values():
            first = tensors[places[0]]
            at_once = CHUNK // max(first.numel(), 1)
            if first.numel() > SMALL or len(places) == 1 or first.layout is not torch.strided:
                self._alone += places
                continue
            for begin in range(0, len(places), at_once):
                self._stacks.append(places[begin : begin + at_once])
