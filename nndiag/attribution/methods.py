"""Captum's methods, each called for one sample, with its error where it has one.

A score takes the given inputs (b, ...) and returns (b,). Everything here runs on one sample.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from captum.attr import (
    FeatureAblation,
    InputXGradient,
    IntegratedGradients,
    LayerConductance,
    LayerGradCam,
    Saliency,
)
from torch import Tensor

from nndiag.attribution.layers import Layer

FIRST_STEPS, MOST_STEPS = 32, 256  # of the integral
ENOUGH = 0.05  # |delta| / |f(x) - f(baseline)|: above, the steps are doubled
ROUNDING = 1e-5  # of the two numbers: a change that small has no error to speak of
MOST_AT_ONCE = 64  # variations in one forward pass
ELEMENTS_AT_ONCE = 1 << 22  # of the inputs of one pass: 16 MiB of float32

Inputs = tuple[Tensor, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Problem:
    """One sample to be attributed."""

    score: Callable[..., Tensor]  # (b, ...) for each input -> (b,)
    given: Inputs  # (1, ...) each
    baselines: Inputs
    groups: Inputs  # (1, ...) whole numbers: what is ablated together
    layer: Layer | None = None
    deadline: float = math.inf  # of time.monotonic: then the integral is refined no more
    at_most: int = MOST_AT_ONCE

    def at_once(self) -> int:
        """Variations that fit into one pass."""
        elements = sum(one.numel() for one in self.given)
        return max(1, min(self.at_most, MOST_AT_ONCE, ELEMENTS_AT_ONCE // max(1, elements)))


@dataclass(frozen=True, slots=True, eq=False)
class Attributed:
    """Attributions of one sample: to each input, or to the units of the layer."""

    values: Inputs  # (1, ...)
    at_sample: float  # score of the sample
    at_baseline: float
    delta: float | None = None  # sum of the attributions - (at_sample - at_baseline)
    steps: int = 0


def integrated_gradients(problem: Problem, at_once: int, steps: int) -> Attributed:
    """Sundararajan et al. 2017, arXiv:1703.01365."""
    return _converged(problem, IntegratedGradients(problem.score).attribute, at_once, steps)


def layer_conductance(problem: Problem, at_once: int, steps: int) -> Attributed:
    """Dhamdhere et al. 2018, arXiv:1805.12233."""
    layer = _layer(problem)
    conductance = LayerConductance(problem.score, layer.module)
    attribute = partial(conductance.attribute, attribute_to_layer_input=layer.of_input)
    return _converged(problem, attribute, at_once, steps)


def _converged(
    problem: Problem, attribute: Callable[..., Any], at_once: int, steps: int
) -> Attributed:
    """Double the steps until the error is small, or the steps or the time are at their end."""
    at_sample, at_baseline = _ends(problem)
    change = abs(at_sample - at_baseline)
    rounding = ROUNDING * (abs(at_sample) + abs(at_baseline))
    steps = max(FIRST_STEPS, steps)
    while True:
        began = time.monotonic()
        values, delta = attribute(
            problem.given,
            baselines=problem.baselines,
            n_steps=steps,
            internal_batch_size=at_once,
            return_convergence_delta=True,
        )
        error = float(delta.sum())
        now = time.monotonic()
        is_late = now + 2 * (now - began) > problem.deadline
        is_exact = abs(error) <= max(ENOUGH * change, rounding) or math.isnan(error)
        if is_exact or is_late or steps >= MOST_STEPS:
            return Attributed(_tuple(values), at_sample, at_baseline, error, steps)
        steps *= 2


def input_x_gradient(problem: Problem, at_once: int, steps: int) -> Attributed:
    """Shrikumar et al. 2016, arXiv:1605.01713."""
    found = InputXGradient(problem.score).attribute(problem.given)
    return Attributed(_tuple(found), *_ends(problem))


def saliency(problem: Problem, at_once: int, steps: int) -> Attributed:
    """Simonyan et al. 2013, arXiv:1312.6034."""
    found = Saliency(problem.score).attribute(problem.given)
    return Attributed(_tuple(found), *_ends(problem))


def feature_ablation(problem: Problem, at_once: int, steps: int) -> Attributed:
    """Each group of elements put to its baseline; the change is shared out among the group."""
    with torch.no_grad():
        found = FeatureAblation(problem.score).attribute(
            problem.given,
            baselines=problem.baselines,
            feature_mask=_counted_through(problem.groups),
            perturbations_per_eval=at_once,
        )
    shared = tuple(
        value / _sizes(group) for value, group in zip(_tuple(found), problem.groups, strict=True)
    )
    return Attributed(shared, *_ends(problem))


def layer_gradcam(problem: Problem, at_once: int, steps: int) -> Attributed:
    """Selvaraju et al. 2016, arXiv:1610.02391."""
    found = LayerGradCam(problem.score, _layer(problem).module).attribute(
        problem.given, relu_attributions=True
    )
    return Attributed(_tuple(found), *_ends(problem))


RUN: dict[str, Callable[[Problem, int, int], Attributed]] = {
    "integrated-gradients": integrated_gradients,
    "input-x-gradient": input_x_gradient,
    "saliency": saliency,
    "layer-conductance": layer_conductance,
    "layer-gradcam": layer_gradcam,
    "feature-ablation": feature_ablation,
}


def _ends(problem: Problem) -> tuple[float, float]:
    """The score of the sample and of its baseline."""
    with torch.no_grad():
        return float(problem.score(*problem.given)[0]), float(problem.score(*problem.baselines)[0])


def _layer(problem: Problem) -> Layer:
    assert problem.layer is not None
    return problem.layer


def _tuple(found: Tensor | Inputs) -> Inputs:
    inputs = found if isinstance(found, tuple) else (found,)
    return tuple(one.detach() for one in inputs)


def _counted_through(groups: Inputs) -> Inputs:
    """The groups of all inputs with no number twice, as Captum wants them."""
    counted, used = [], 0
    for group in groups:
        counted.append(group + used)
        used += int(group.max()) + 1
    return tuple(counted)


def _sizes(group: Tensor) -> Tensor:
    """(1, ...) how many elements each one's group has."""
    counts = torch.bincount(group.reshape(-1))
    return counts[group]
