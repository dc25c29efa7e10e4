"""What one optimizer does to its parameters: gradients before a step, updates after it.

Shapes: P parameters with a gradient. Norms are Euclidean; gradient norms are those before clipping.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from nndiag.adapters.base import NAN, NO_GRADIENT
from nndiag.adapters.pytorch.global_norm import GlobalNorm
from nndiag.adapters.pytorch.loss_taps import Scalar
from nndiag.adapters.pytorch.ranks import (
    is_distributed,
    is_partial,
    local,
    shards_of,
    share_of_norm,
)
from nndiag.adapters.pytorch.samples import Group, cosine_of, products, sample, samples_of, stacked
from nndiag.adapters.pytorch.tensor_stats import norm_of_norms, norms

SAMPLE = 1 << 16  # coordinates of one parameter that are followed exactly; larger ones are thinned
SAMPLES_IN_ALL = 1 << 21  # of one optimizer: 8 MB in float32
MAX_PARAMETERS = 2_000  # followed one by one; the global norm always covers all


@dataclass(slots=True)
class Measured:
    """What was measured in the step that is under way."""

    grad_norm: Scalar = NAN
    norms: dict[int, Scalar] = field(default_factory=dict)  # id(parameter) -> gradient norm
    before: list[Group] = field(default_factory=list)  # samples of the parameters
    cosine: Scalar | None = None  # with the last update, where it was measured already
    clipped: bool = True  # clipping came first, so its factor has to be taken out of `norms`


class StepObserver:
    """Follows one optimizer from step to step."""

    def __init__(self, optimizer: torch.optim.Optimizer, index: int) -> None:
        self.index = index
        self.owner = ""
        self.newest = 0  # when it made its newest step, in steps of all optimizers
        self._parameters = [weakref.ref(p) for p in self.parameters(optimizer)]
        self.kind = type(optimizer).__name__
        self.steps = 0
        self.measured_steps = 0  # of them with layer statistics
        self.due = True  # whether the step under way gets layer statistics
        self.norm_due = True  # whether it gets the global norm of its gradients
        self.follows_update = False  # whether at least its update is measured
        self.last_due = self.last_update = 0  # the newest steps that were
        self.last_end_s: float | None = None
        self.measured = Measured()  # before the step under way
        self.learning_rates_of_step: list[Scalar] | None = None
        self.calls_before_step = 0  # backward calls that were not made by its closure
        self._global_norm = GlobalNorm()
        self._update: list[Group] = []  # samples of the last update
        # Of a sharded model each rank measures its own part, see `ranks`.
        self.sharded = any(shards_of(p) > 1 for p in self.parameters(optimizer))
        self._distributed = any(map(is_distributed, self.parameters(optimizer)))

    def is_for(self, optimizer: torch.optim.Optimizer) -> bool:
        """Whether `optimizer` is of the same kind and holds the same parameters."""
        parameters = self.parameters(optimizer)
        return (
            type(optimizer).__name__ == self.kind
            and len(parameters) == len(self._parameters)
            and all(ref() is p for ref, p in zip(self._parameters, parameters, strict=True))
        )

    def count_of(self, held: Mapping[int, Tensor]) -> int:
        """How many of these parameters, by their ids, its optimizer held when it was made."""
        alive = (ref() for ref in self._parameters)
        return sum(p is not None and held.get(id(p)) is p for p in alive)

    def parameters(self, optimizer: torch.optim.Optimizer) -> list[Tensor]:
        return [p for group in optimizer.param_groups for p in group["params"]]

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
        measured = Measured(grad_norm=NAN if total else NO_GRADIENT)
        if not (each or total):
            return measured
        if not each and not self._distributed:  # the steps that are not measured: most of them
            grads = [g for p in parameters if (g := p.grad) is not None]
            if grads:
                found_norm = self._global_norm.of(grads)
                measured.grad_norm = found_norm if unscale == 1.0 else found_norm / unscale
            return measured
        if each and not self._distributed and self._update:
            self._follow_gradients(parameters, measured)
        with_grad = [p for p in parameters if p.grad is not None]
        partial: set[int] = set()
        if self._distributed:
            partial = {id(p) for p in with_grad if is_partial(p.grad)}
            with_grad = [p for p in with_grad if id(p) not in partial]
        known_norms = measured.norms
        rest = [p for p in with_grad if id(p) not in known_norms]
        lengths = dict(zip(map(id, rest), norms([local(p.grad) for p in rest]), strict=True))
        found = [known_norms[i] if (i := id(p)) in known_norms else lengths[i] for p in with_grad]
        if unscale != 1.0:
            found = [n / unscale for n in found]
        if total and found and not partial:
            measured.grad_norm = norm_of_norms(self._shares(with_grad, found))
        if each:
            known = (p for p in parameters[:MAX_PARAMETERS] if id(p) not in partial)
            measured.norms = {id(p): NO_GRADIENT for p in known}
            kept = zip(with_grad, found, strict=True)
            measured.norms |= {id(p): n for p, n in kept if id(p) in measured.norms}
        return measured

    def _follow_gradients(self, parameters: list[Tensor], measured: Measured) -> None:
        """The cosine with the last update, and the norms of the gradients that are read for it."""
        limit = self.limit(len(parameters))
        parts: list[Tensor] = []
        for group, grads, moved in self._along_update(parameters):
            read = Group(group, stacked([sample(g, limit) for g in grads]))
            part = products(moved, read.values)
            parts += [part] if part is not None else []
            if read.values.shape[1] == grads[0].numel():
                owners = (id(parameters[place]) for place in group)
                measured.norms |= zip(owners, read.lengths(), strict=True)
        measured.cosine = cosine_of(parts)
        self._update = []

    def _along_update(
        self, parameters: list[Tensor]
    ) -> Iterator[tuple[list[int], list[Tensor], Tensor]]:
        """Places, gradients and last updates of parameters of one shape, where there are both."""
        for group in self._update:
            if group.places[-1] >= len(parameters):
                continue
            found = [parameters[place].grad for place in group.places]
            if not all(type(g) is Tensor and g.layout is torch.strided for g in found):
                found = [_comparable(g) for g in found]
            rows = [row for row, g in enumerate(found) if g is not None]
            if rows:
                moved = group.values if len(rows) == len(found) else group.values[rows]
                places = [group.places[row] for row in rows]
                yield places, [g for g in found if g is not None], moved

    def _shares(self, parameters: list[Tensor], found: list[Scalar]) -> list[Scalar]:
        """Norms as shares of this rank, where the parameters are sharded; else as they are."""
        if not self.sharded:
            return found
        shares = [share_of_norm(shards_of(p)) for p in parameters]
        return [n * share for n, share in zip(found, shares, strict=True)]

    def cosine_with_last_update(self, parameters: list[Tensor]) -> Scalar:
        """cos(gradient now, update of the last step); NaN unless that step was measured.

        Below -0.05 on average the steps are too short: the fresh gradient still points on the way
        that was just gone. Tensors above SAMPLE coordinates take part with a fixed sample.
        """
        if not self._update:
            return NAN
        limit = self.limit(len(parameters))
        parts = [
            products(moved, stacked([sample(g, limit) for g in grads]))
            for _, grads, moved in self._along_update(parameters)
        ]
        self._update = []
        return cosine_of([part for part in parts if part is not None])

    def remember(self, parameters: list[Tensor]) -> list[Group]:
        """Samples of the parameters before the step, to be handed to `updates` after it."""
        followed = [local(p) for p in parameters[:MAX_PARAMETERS]]
        return samples_of(followed, self.limit(len(parameters)))

    def updates(
        self, parameters: list[Tensor], before: list[Group]
    ) -> tuple[list[Scalar], list[Scalar]]:
        """(norms of the parameters, norms of their last update), both (P,).

        The update norm of a thinned parameter is scaled up from its sample.
        """
        followed = [local(p) for p in parameters[:MAX_PARAMETERS]]
        limit = self.limit(len(parameters))
        self._update = []
        sizes: list[Scalar] = [NAN] * len(followed)
        moves: list[Scalar] = [NAN] * len(followed)
        for group in before:
            whole = [followed[place] for place in group.places]
            after = group.moved_to([sample(p, limit) for p in whole])
            if after is None:
                continue
            self._update.append(group)
            elements, sampled = whole[0].numel(), after.shape[1]
            lengths = norms(whole) if sampled < elements else Group(group.places, after).lengths()
            share = (elements / max(sampled, 1)) ** 0.5
            for place, size, move in zip(group.places, lengths, group.lengths(), strict=True):
                sizes[place], moves[place] = size, move * share
        return sizes, moves

    def seconds_until(self, moment_s: float | None) -> float:
        """How long after this optimizer's last step; NaN where there was none."""
        if moment_s is None or self.last_end_s is None:
            return NAN
        return moment_s - self.last_end_s

    def forget_update(self) -> None:
        self._update = []

    def limit(self, parameters: int) -> int:
        """How many coordinates of each of so many parameters are sampled."""
        return max(64, min(SAMPLE, SAMPLES_IN_ALL // max(parameters, 1)))


def learning_rates(optimizer: Any) -> list[Scalar]:
    """The rate of each parameter group that this step uses."""
    found: list[Scalar] = []
    for group in optimizer.param_groups[:16]:
        lr = group.get("lr", NAN)
        on_device = isinstance(lr, Tensor) and lr.device.type != "cpu"
        found.append(lr.detach().clone() if on_device else float(lr))
    return found


def ratio(part: Scalar, whole: Scalar) -> Scalar:
    """`part / whole`; NaN for 0 / 0, where a number would raise."""
    if isinstance(part, Tensor) or isinstance(whole, Tensor):
        return part / whole
    return part / whole if whole else NAN


def _comparable(grad: Tensor | None) -> Tensor | None:
    """A gradient, if there is one that can be compared with an update."""
    if grad is None or grad.layout is not torch.strided or is_partial(grad):
        return None
    return local(grad)
