"""What one optimizer does to its parameters: gradients before a step, updates after it.

Shapes: P parameters with a gradient. Norms are Euclidean; gradient norms are those before clipping.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nndiag.adapters.base import NAN, NO_GRADIENT
from nndiag.adapters.pytorch.loss_taps import Scalar
from nndiag.adapters.pytorch.tensor_stats import norms, sample_of

SAMPLE = 1 << 16  # coordinates of one parameter that are followed exactly; larger ones are thinned
SAMPLES_IN_ALL = 1 << 22  # of one optimizer: 16 MB in float32
PLAIN = (Tensor, torch.nn.Parameter)
MAX_PARAMETERS = 2_000  # followed one by one; the global norm always covers all


@dataclass(slots=True)
class Measured:
    """What was measured in the step that is under way."""

    grad_norm: Scalar = NAN
    norms: dict[int, Scalar] = field(default_factory=dict)  # id(parameter) -> gradient norm
    before: list[Tensor] = field(default_factory=list)  # samples of the parameters


class StepObserver:
    """Follows one optimizer from step to step."""

    def __init__(self, optimizer: torch.optim.Optimizer, index: int) -> None:
        self.index = index
        self.owner = ""
        self.newest = 0  # when it made its newest step, in steps of all optimizers
        self._parameters = [weakref.ref(p) for p in self.parameters(optimizer)]
        self.kind = type(optimizer).__name__
        self.steps = 0
        self.due = True  # whether the step under way gets layer statistics
        self.follows_update = False  # whether at least its update is measured
        self.last_due = self.last_update = 0  # the newest steps that were
        self.last_end_s: float | None = None
        self.measured = Measured()  # before the step under way
        self.learning_rates_of_step: list[Scalar] | None = None
        self._update: dict[int, Tensor] = {}  # id(parameter) -> samples of the last update

    def is_for(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether `optimizer` is of the same kind and holds the same parameters."""
        parameters = self.parameters(optimizer)
        return (
            type(optimizer).__name__ == self.kind
            and len(parameters) == len(self._parameters)
            and all(ref() is p for ref, p in zip(self._parameters, parameters, strict=True))
        )

    def parameters(self, optimizer: torch.optim.Optimizer) -> list[Tensor]:
        return [p for group in optimizer.param_groups for p in group["params"]]

    def learning_rates(self, optimizer: torch.optim.Optimizer) -> list[Scalar]:
        """The rate of each parameter group that this step uses."""
        found: list[Scalar] = []
        for group in optimizer.param_groups[:16]:
            lr = group.get("lr", NAN)
            on_device = isinstance(lr, Tensor) and lr.device.type != "cpu"
            found.append(lr.detach().clone() if on_device else float(lr))
        return found

    def settings(self, optimizer: torch.optim.Optimizer) -> dict[str, float]:
        """Hyper-parameters of the first group, under their common names."""
        group = optimizer.param_groups[0] if optimizer.param_groups else {}
        found = {
            name: float(group[name])
            for name in ("lr", "momentum", "eps", "weight_decay", "alpha")
            if isinstance(group.get(name), int | float)
        }
        betas = group.get("betas")
        if isinstance(betas, tuple | list) and all(isinstance(b, int | float) for b in betas):
            found |= {f"beta{i}": float(b) for i, b in enumerate(betas[:2], 1)}
        return found

    def gradients(
        self, parameters: list[Tensor], *, each: bool, total: bool, unscale: Scalar = 1.0
    ) -> Measured:
        """Norms of the gradients as they lie in `.grad`, divided by `unscale`.

        `each`: one norm per parameter; `total`: their global norm.
        """
        measured = Measured()
        if not (each or total):
            return measured
        with_grad = [p for p in parameters if p.grad is not None]
        found = norms([_local(p.grad) for p in with_grad])
        if unscale != 1.0:
            found = [n / unscale for n in found]
        if total and found:
            measured.grad_norm = global_norm(found)
        if each:
            measured.norms = {id(p): NO_GRADIENT for p in parameters[:MAX_PARAMETERS]}
            kept = zip(with_grad, found, strict=True)
            measured.norms |= {id(p): n for p, n in kept if id(p) in measured.norms}
        return measured

    def cosine_with_last_update(self, parameters: list[Tensor]) -> Scalar:
        """cos(gradient now, update of the last step); NaN unless that step was measured.

        Below -0.05 on average the steps are too short: the fresh gradient still points on the way
        that was just gone. Tensors above SAMPLE coordinates take part with a fixed sample.
        """
        if not self._update:
            return NAN
        dots: list[Tensor] = []
        grads: list[Tensor] = []
        updates: list[Tensor] = []
        limit = self._limit(len(parameters))
        for p in parameters:
            update = self._update.get(id(p))
            if update is None or p.grad is None or p.grad.layout is not torch.strided:
                continue
            g = sample_of(_local(p.grad), limit).to(update.dtype)
            dots.append(torch.dot(g, update))
            grads.append(g)
            updates.append(update)
        self._update = {}
        if not dots:
            return NAN
        lengths = global_norm(norms(grads)) * global_norm(norms(updates))
        return _sum(dots) / lengths  # 0/0 is NaN: nothing moved

    def remember(self, parameters: list[Tensor]) -> list[Tensor]:
        """Samples of the parameters before the step, to be handed to `updates` after it."""
        limit = self._limit(len(parameters))
        return [sample_of(_local(p), limit).clone() for p in parameters[:MAX_PARAMETERS]]

    def updates(
        self, parameters: list[Tensor], before: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """(norms of the parameters, norms of their last update), both (P,).

        The update norm of a thinned parameter is scaled up from its sample.
        """
        limit = self._limit(len(parameters))
        followed = parameters[: len(before)]
        after = [sample_of(_local(p), limit) for p in followed]
        moved = [a - b for a, b in zip(after, before, strict=True)]
        self._update = {id(p): m for p, m in zip(followed, moved, strict=True)}
        shares = [p.numel() / max(m.numel(), 1) for p, m in zip(followed, moved, strict=True)]
        lengths = [n * s**0.5 for n, s in zip(norms(moved), shares, strict=True)]
        return norms([_local(p) for p in followed]), lengths

    def forget_update(self) -> None:
        self._update = {}

    def _limit(self, parameters: int) -> int:
        return max(64, min(SAMPLE, SAMPLES_IN_ALL // max(parameters, 1)))


def _local(tensor: Any) -> Tensor:
    """This rank's part of a sharded tensor; reading the whole would be a collective."""
    if type(tensor) in PLAIN:  # hundreds a step: `unseen` keeps autograd away
        return tensor  # type: ignore[no-any-return]
    to_local = getattr(tensor, "to_local", None)
    local: Tensor = tensor if to_local is None else to_local()
    return local.detach()


def global_norm(parts: list[Tensor]) -> Tensor:
    """Euclidean norm of several norms, possibly of several devices."""
    if len({p.device for p in parts}) > 1:
        parts = [p.to(parts[0].device) for p in parts]
    length: Tensor = torch.linalg.vector_norm(torch.stack(parts))  # of mixed kinds the widest
    return length


def _sum(parts: list[Tensor]) -> Tensor:
    return torch.stack([p.to(parts[0].device).float() for p in parts]).sum()
