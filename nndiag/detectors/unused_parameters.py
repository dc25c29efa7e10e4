"""unused-parameters: trainable parameters that never get a gradient."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag.curves import depth
from nndiag.detectors.base import Detector
from nndiag.records import Abstention, Evidence, Finding, Parameter, Run, Series, Severity

_DEAD = 0.99  # share of silent units from which nothing passes a ReLU layer


@dataclass(frozen=True, kw_only=True)
class UnusedParameters(Detector):
    """Trainable parameters that an optimizer holds never get a gradient.

    What it sees
        Parameters whose gradient was missing (None) or exactly 0 at every recorded step.

    Why it happens
        The module is not called in forward(), its output does not reach the loss, or a detach(),
        .data, .item() or no_grad() cuts the graph. Weight decay and Adam may still move them, so
        nothing else shows it.

    Evidence
        gradient None or 0 at all of at least 5 recorded steps of a run of at least 20 steps
        left out: frozen parameters; biases whose weight does get a gradient; gradients of 0 in a
        model with a ReLU layer that is dead as a whole, whose doing they are

    Remedy
        1. Call the module in forward(), and let its output reach the loss without detach().
        2. If it is meant: requires_grad_(False), and leave it out of the optimizer.

    Source
        torch DistributedDataParallel's find_unused_parameters asks the same for one step. The
        numbers of steps are our own choice.
    """

    name = "unused-parameters"
    explains = ("loss-plateau", "slow-convergence", "untrained-parameters",
                "update-too-small")  # fmt: skip

    recorded: int = 5  # recorded steps
    steps: int = 20  # optimizer steps

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        index = depth.Index(run, ("param_grad_norm",))
        if not index.any_of("param_grad_norm"):
            yield Abstention(self.name, depth.NOT_RECORDED)
            return
        blocked = _blocked(run)
        unused: dict[str, list[tuple[Parameter, Series]]] = {}
        judged, short = 0, ""
        for parameter in run.parameters:
            if not parameter.requires_grad or parameter.optimizer is None:
                continue
            series = index.of_parameter("param_grad_norm", parameter)
            if series is None:
                continue
            optimizer = run.optimizer(parameter.optimizer)
            steps = optimizer.steps if optimizer else int(series.steps[-1]) + 1
            if steps < self.steps:
                short = f"{steps} optimizer steps; {self.steps} needed"
                continue
            if len(series) < self.recorded:
                short = f"{len(series)} recorded steps; {self.recorded} needed"
                continue
            judged += 1
            if not np.isin(series.values, (-1.0, 0.0)).all():
                continue
            if parameter.model in blocked and (series.values == 0).any():
                continue
            owner = parameter.optimizer if len(run.optimizers) > 1 else ""
            unused.setdefault(owner, []).append((parameter, series))
        if not judged and short:
            yield Abstention(self.name, short)
        for owner, found in unused.items():
            found = [(p, s) for p, s in found if not _lone_bias(p, index, run)]
            if found:
                yield self._finding(run, owner, found)

    def _finding(self, run: Run, owner: str, found: list[tuple[Parameter, Series]]) -> Finding:
        layers = tuple(dict.fromkeys(p.layer for p, _ in found))
        missing = [p for p, s in found if (s.values == -1).all()]
        numbers = sum(int(np.prod(p.shape)) for p, _ in found)
        trainable = [p for p in run.parameters if p.requires_grad]
        total = sum(int(np.prod(p.shape)) for p in trainable) or 1
        how = "no gradient (None)" if len(missing) == len(found) else "a gradient of 0 or none"
        called = {layer.name for layer in run.layers}
        idle = [name for name in layers if run.layers and name not in called]
        why = ""
        if idle and len(idle) == len(layers):
            why = "; they are never called in a training forward pass"
        elif missing and not idle:
            why = "; they are called, but the graph from the loss does not reach them"
        recorded = min(len(s) for _, s in found)
        return Finding(
            name=self.name,
            severity=Severity.WARNING,
            confidence=1.0 if missing else 0.9,
            message=(
                f"{len(found)} of {len(trainable)} trainable parameters get {how} at any of "
                f"{recorded} recorded steps: {depth.named(layers)} "
                f"({numbers:,} of {total:,} numbers){why}"
            ),
            step_start=int(min(s.steps[0] for _, s in found)),
            step_end=int(max(s.steps[-1] for _, s in found)),
            series="param_grad_norm",
            owner=owner,
            layers=layers,
            evidence=(
                Evidence("parameters", len(found)),
                Evidence("share_of_all", numbers / total),
                Evidence("recorded_steps", recorded, self.recorded),
                Evidence("gradient_missing", bool(missing)),
                Evidence("never_called", bool(idle) and len(idle) == len(layers)),
            ),
        )


def _blocked(run: Run) -> set[str]:
    """Models with a ReLU layer that is dead as a whole.

    No gradient passes it backward and no signal forward: zeros before and after are its doing.
    """
    models: set[str] = set()
    for series in run.series_of("dead_unit_fraction"):
        layer = depth.where_is(run, series)
        if layer is not None and len(series) and np.nanmedian(series.values) >= _DEAD:
            models.add(layer.model)
    return models


def _lone_bias(parameter: Parameter, index: depth.Index, run: Run) -> bool:
    """A bias (or alike) of a layer whose other parameters do get gradients."""
    if parameter.is_weight:
        return False
    for other in run.parameters:
        if other.layer == parameter.layer and other.model == parameter.model:
            series = index.of_parameter("param_grad_norm", other)
            if series is not None and (series.values > 0).any():
                return True
    return False
