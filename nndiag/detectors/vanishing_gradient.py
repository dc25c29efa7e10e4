"""vanishing-gradient: the first layers get no usable gradient."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag.curves import depth
from nndiag.detectors.base import Detector
from nndiag.records import Abstention, Evidence, Finding, Layer, Optimizer, Parameter, Run, Severity


@dataclass(frozen=True, slots=True)
class _Weight:
    """The gradient of one weight matrix, typical over the run."""

    parameter: Parameter
    layer: Layer
    grad: float  # median norm
    relative: float  # median of gradient norm / weight norm
    per_element: float  # median root mean square of the gradient
    first_step: int


@dataclass(frozen=True, kw_only=True)
class VanishingGradient(Detector):
    """Gradients shrink from the output to the first layers so much that the net cannot learn.

    What it sees
        The gradient norm of each weight matrix (no biases, norms, embeddings or recurrent cells),
        typical over the recorded steps, along the depth; and whether the loss falls. What is too
        small depends on the optimizer: SGD moves a weight by its gradient, Adam by its gradient
        divided by the gradient's own size, until that sinks to Adam's eps.

    Why it happens
        Backpropagation multiplies one factor per layer. A sigmoid has slope 1/4 at most, a
        saturated tanh near 0, and weights that start too small shrink every factor.

    Evidence
        ratio = smallest median gradient norm / largest one, the smallest nearer to the input and
        in the first two thirds of the depth
        reported only while the loss lost less than 15 % of its first level, and when
        SGD family: ratio < limit, or gradient / weight norm < limit_relative in a layer
        adaptive:   ratio < limit_adaptive, or the gradient's RMS < 10 eps in a layer

    Remedy
        1. Sigmoid or tanh in depth: ReLU, GELU or SiLU with He initialisation.
        2. Weights too small: He or Xavier initialisation.
        3. Normalisation layers and residual connections; with SGD, then Adam.

    Source
        Hochreiter 1991; Glorot and Bengio 2010. Limits: our own runs (a ReLU net of 8 layers has
        ratio 1e-2 under SGD, which stays at ln 10, and under Adam, which learns).
    """

    name = "vanishing-gradient"
    explains = ("activation-vanishing", "unused-parameters", "untrained-parameters",
                "loss-plateau", "slow-convergence", "update-too-small")  # fmt: skip

    limit: float = 4e-2  # ratio along the depth, SGD family; 3.3e-2 in our net of 8 layers
    limit_adaptive: float = 1e-3  # ratio along the depth, adaptive optimizers
    limit_relative: float = 1e-5  # gradient norm / weight norm, SGD family
    eps_factor: float = 10.0  # times Adam's eps: below it, updates shrink with the gradient
    recorded: int = 5  # recorded steps needed
    weights_needed: int = 3  # matrices; fewer show no depth

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        index = depth.Index(run, ("param_grad_norm", "param_norm"))
        if not index.any_of("param_grad_norm"):
            yield Abstention(self.name, depth.NOT_RECORDED)
            return
        for layers in depth.by_model(run):
            places = {layer.name: layer for layer in layers}
            mine = [p for p in run.parameters if p.model == layers[0].model and p.layer in places]
            owner = next((index.owner_of(places[p.layer]) for p in mine), "")
            trained = depth.progress(run, owner)
            if trained is None:
                yield Abstention(self.name, "no loss was recorded")
                return
            until = depth.broken_from(run, owner)
            weights = [
                weight
                for p in mine
                if (weight := self._weight(index, p, places[p.layer], until)) is not None
            ]
            weights.sort(key=lambda weight: weight.layer.order)
            if len(weights) >= self.weights_needed and trained.stuck:
                optimizer = run.optimizer(weights[0].parameter.optimizer or "")
                yield from self._judge(weights, optimizer, trained, owner)

    def _weight(
        self, index: depth.Index, parameter: Parameter, layer: Layer, until: float
    ) -> _Weight | None:
        """What is typical of a weight, if it takes part in the depth profile."""
        if not (parameter.is_weight and depth.is_dense(layer) and parameter.optimizer):
            return None
        grad = index.of_parameter("param_grad_norm", parameter)
        norm = index.of_parameter("param_norm", parameter)
        if grad is None:
            return None
        seen = np.isfinite(grad.values) & (grad.values >= 0) & (grad.steps < until)
        if int(seen.sum()) < self.recorded:
            return None
        values = grad.values[seen]
        relative = math.nan
        if norm is not None and len(norm) == len(grad):
            relative = float(np.median(values / np.maximum(norm.values[seen], 1e-30)))
        size = max(1, math.prod(parameter.shape))
        typical = float(np.median(values))
        first = int(grad.steps[seen][0])
        return _Weight(parameter, layer, typical, relative, typical / math.sqrt(size), first)

    def _judge(
        self,
        weights: list[_Weight],
        optimizer: Optimizer | None,
        trained: depth.Progress,
        owner: str,
    ) -> Iterator[Finding]:
        adaptive = optimizer is not None and optimizer.is_adaptive
        largest = max(weights, key=lambda weight: weight.grad)
        early = weights[: max(1, math.ceil(len(weights) * 2 / 3))]
        smallest = min(early, key=lambda weight: weight.grad)
        if largest.grad <= 0:  # nothing reaches any layer: a dead layer or zero weights
            largest, smallest = weights[-1], weights[0]
        ratio = smallest.grad / largest.grad if largest.grad > 0 else 0.0
        limit = self.limit_adaptive if adaptive else self.limit
        along = ratio < limit and smallest.layer.order <= largest.layer.order
        if adaptive:
            eps = float((optimizer.setting("eps") if optimizer else None) or 1e-8)
            faint = smallest.per_element < self.eps_factor * eps
        else:
            faint = smallest.relative < self.limit_relative
        if not (along or faint):
            return
        starved = tuple(w.layer.name for w in weights if w.grad <= limit * largest.grad)
        slope = _slope(weights)
        yield Finding(
            name=self.name,
            severity=Severity.CRITICAL,
            confidence=_confidence(ratio, slope, along),
            message=self._message(smallest, largest, ratio, slope, trained, adaptive),
            step_start=smallest.first_step,
            series="param_grad_norm",
            owner=owner,
            layers=starved or (smallest.layer.name,),
            evidence=(
                Evidence("gradient_ratio", ratio, limit),
                Evidence("gradient_smallest", smallest.grad),
                Evidence("gradient_largest", largest.grad),
                Evidence("gradient_to_weight", smallest.relative, self.limit_relative),
                Evidence("factor_per_layer", math.exp(slope)),
                Evidence("adaptive_optimizer", adaptive),
                Evidence("loss_learned_fraction", trained.learned),
            ),
        )

    @staticmethod
    def _message(
        smallest: _Weight,
        largest: _Weight,
        ratio: float,
        slope: float,
        trained: depth.Progress,
        adaptive: bool,
    ) -> str:
        if smallest.grad == 0 and largest.grad == 0:
            what = f"the gradient of every weight matrix is exactly 0 (`{smallest.layer.name}` on)"
        else:
            what = (
                f"`{smallest.layer.name}` gets {ratio:.1g} of the gradient of "
                f"`{largest.layer.name}` (norm {smallest.grad:.2g} against {largest.grad:.2g}"
            )
            systematic = slope > math.log(1.5)
            what += f", x {math.exp(-slope):.2g} a layer towards the input)" if systematic else ")"
        kind = "even Adam's division by the gradient's size does not help" if adaptive else ""
        return f"{what}, and {trained.in_words}" + (f": {kind}" if kind else "")


def _slope(weights: list[_Weight]) -> float:
    """Growth of the log gradient norm per layer, towards the output (Theil-Sen)."""
    logs = [math.log(max(weight.grad, 1e-30)) for weight in weights]
    slopes = [(b - a) / (j - i) for i, a in enumerate(logs) for j, b in enumerate(logs) if j > i]
    return float(np.median(slopes)) if slopes else 0.0


def _confidence(ratio: float, slope: float, along: bool) -> float:
    """High where each layer loses a factor (a systematic cause), lower for one odd layer."""
    if not along:
        return 0.8
    if slope > math.log(3):
        return 0.96
    return 0.9 if ratio < 1e-3 else 0.8
