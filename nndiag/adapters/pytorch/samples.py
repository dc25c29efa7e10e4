"""Coordinates of many tensors in few matrices, so that a handful of kernels read them all.

A net of two hundred small layers has four hundred parameters: one call for each costs more than the
arithmetic. A matrix is no larger than what a core keeps at hand, unless a single tensor is.
Shapes: K tensors of one shape, n coordinates of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from nndiag.adapters.pytorch.tensor_stats import CHUNK, Scalar, as_wide, numbers_of, sample_of


@dataclass(frozen=True, slots=True)
class Group:
    """The samples of tensors of one shape: a copy."""

    places: list[int]  # of the tensors among all
    values: Tensor  # (K, n)

    def lengths(self) -> Sequence[Scalar]:
        """The Euclidean norm of each; on the CPU as numbers."""
        return numbers_of(torch.linalg.vector_norm(self.values, dim=1))

    def moved_to(self, tensors: Sequence[Tensor]) -> Tensor | None:
        """Turn `values` into how far they moved to get to `tensors`, the same ones as before.

        Gives what the values are now; None where a tensor has changed its shape meanwhile.
        """
        after = stacked(tensors)
        if after.shape != self.values.shape or after.device != self.values.device:
            return None
        torch.sub(after, self.values, out=self.values)
        return after


def sample(tensor: Tensor, limit: int) -> Tensor:
    """The coordinates of one tensor that are followed: not a copy where it is small enough."""
    return tensor if tensor.numel() <= limit else sample_of(tensor, limit)


def samples_of(tensors: Sequence[Tensor], limit: int) -> list[Group]:
    """Up to some `limit` coordinates of each tensor, always the same ones."""
    return grouped(tensors, [sample(t, limit) for t in tensors])


def grouped(tensors: Sequence[Tensor], samples: Sequence[Tensor]) -> list[Group]:
    """The samples of these tensors, put together by the shape of what they were taken from."""
    alike: dict[tuple[object, ...], list[int]] = {}
    for place, tensor in enumerate(tensors):
        alike.setdefault((tensor.shape, tensor.dtype, tensor.device), []).append(place)
    groups: list[Group] = []
    for places in alike.values():
        at_once = max(1, CHUNK // max(samples[places[0]].numel(), 1))
        for begin in range(0, len(places), at_once):
            some = places[begin : begin + at_once]
            groups.append(Group(some, stacked([samples[place] for place in some])))
    return groups


def stacked(members: Sequence[Tensor]) -> Tensor:
    """A copy of K tensors of one shape: (K, n)."""
    if len(members) == 1:
        return as_wide(members[0].detach().reshape(1, -1).clone())
    return as_wide(torch.stack(list(members)).reshape(len(members), -1))


def products(moved: Tensor, gradients: Tensor) -> Tensor | None:
    """Of update and gradient: their product, and the squares of both; (3,) for `cosine_of`.

    Shapes: both (K, n).
    """
    a = gradients
    if a.shape != moved.shape or a.device != moved.device:
        return None
    a, b = a.view(-1), moved.reshape(-1).to(a.dtype)
    parts = torch.stack([torch.dot(a, b), torch.dot(a, a), torch.dot(b, b)])
    return parts if parts.device.type == "mps" else parts.double()  # it has no float64


def cosine_of(parts: Sequence[Tensor]) -> Scalar:
    """cos of the angle between two long vectors, from their `products` in pieces; NaN for zero."""
    if not parts:
        return float("nan")
    total = torch.stack([part.to(parts[0].device) for part in parts]).sum(0)
    found = total[0] / (total[1] * total[2]).sqrt()
    return found.item() if found.is_cpu else found
