"""Says which tensor went bad first, when a loss or a gradient norm is not finite."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from torch import Tensor

from nndiag.adapters.base import Sink
from nndiag.adapters.pytorch.autograd_graph import first_nonfinite
from nndiag.adapters.pytorch.discovery import Discovery, Model
from nndiag.adapters.pytorch.ranks import local
from nndiag.adapters.pytorch.tensor_stats import worst_value

MAX_ORIGINS = 2  # of one process; each search walks the whole graph


class Origins:
    """Tells the sink the first origins of a process."""

    def __init__(self, sink: Sink, discovery: Discovery) -> None:
        self._sink = sink
        self._discovery = discovery
        self._told = 0

    @property
    def wanted(self) -> bool:
        return self._told < MAX_ORIGINS

    def of_loss(self, losses: Sequence[Tensor], value: float, step: int) -> None:
        """Say which tensor of the graph behind these losses went bad first."""
        self._told += 1
        origin = first_nonfinite(losses)
        model = self._model_with(origin.where)
        where = ""
        if model is not None and origin.where is not None:
            names = model.parameters if origin.kind == "parameter" else model.layer_of
            where = names[origin.where]
        self._sink.nonfinite(
            step=step,
            kind=origin.kind,
            where=where,
            value=value,
            loss_finite=False,
            detail=origin.detail,
        )

    def of_gradients(self, parameters: Iterable[Tensor], step: int) -> None:
        """Name the parameter whose gradient went bad first, which is the last in forward order."""
        with_grad = [(p, local(p.grad).detach()) for p in parameters if p.grad is not None]
        # The norm of large but finite gradients can overflow, so each value counts.
        bad = [(p, value) for p, g in with_grad if not math.isfinite(value := worst_value(g))]
        if not bad:
            return
        self._told += 1
        parameter, value = bad[-1]
        model = self._model_with(id(parameter))
        self._sink.nonfinite(
            step=step,
            kind="gradient",
            where=model.parameters[id(parameter)] if model else "",
            value=value,
            loss_finite=True,
            detail=f"{len(bad)} of {len(with_grad)} gradients",
        )

    def _model_with(self, parameter: int | None) -> Model | None:
        return next((m for m in self._discovery.alive() if parameter in m.parameters), None)
