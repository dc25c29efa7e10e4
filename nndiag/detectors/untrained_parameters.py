"""untrained-parameters: trainable parameters that no optimizer holds, or that never change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag.curves import depth
from nndiag.detectors.base import Detector
from nndiag.records import Abstention, Evidence, Finding, Parameter, Run, Severity


@dataclass(frozen=True, kw_only=True)
class UntrainedParameters(Detector):
    """Parameters that ask for gradients are never changed by an optimizer.

    What it sees
        In a model of which other parts are trained: parameters with requires_grad that no
        optimizer holds, and parameters whose update is exactly 0 at every recorded step although
        they get a gradient. A model that no optimizer holds at all counts if it gets gradients.

    Why it happens
        The optimizer was given a part of the model, or was made before the head was replaced or
        the model copied; a parameter group has learning rate 0; a list of layers that is not an
        nn.ModuleList is invisible to parameters(). Frozen backbones (requires_grad = False) are
        meant and left alone.

    Evidence
        held by no optimizer, in a layer that takes part in the training forward pass; or
        |update| = 0 and |gradient| > 1e-5 |weight| at all of at least 5 recorded steps

    Remedy
        1. Give them to the optimizer: Adam(model.parameters()).
        2. A group with learning rate 0: give it one, or freeze it with requires_grad_(False).

    Source
        Deterministic but for the number of recorded steps and the rounding of float32.
    """

    name = "untrained-parameters"
    explains = ("loss-plateau", "slow-convergence", "update-too-small")

    recorded: int = 5  # recorded steps
    steps: int = 20  # optimizer steps
    rounding: float = 1e-5  # gradient / weight norm; smaller SGD steps are lost in float32 rounding

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        if not run.parameters:
            yield Abstention(self.name, depth.NOT_RECORDED)
            return
        steps = max((o.steps for o in run.optimizers), default=0)
        if steps < self.steps:
            yield Abstention(self.name, f"{steps} optimizer steps; {self.steps} needed")
            return
        homeless = self._homeless(run)
        if homeless:
            yield self._finding(run, homeless, homeless=True)
        still = self._still(run)
        if still:
            yield self._finding(run, still, homeless=False)

    @staticmethod
    def _homeless(run: Run) -> list[Parameter]:
        """Trainable, held by no optimizer, in use, and in a model of which a part is trained.

        A model of which no part is trained counts where gradients pile up in it: a generator that
        was forgotten. A teacher or an average of weights gets none.
        """
        trained = {p.model for p in run.parameters if p.optimizer and p.requires_grad}
        called = {(layer.model, layer.name) for layer in run.layers}

        def in_use(p: Parameter) -> bool:
            return not called or (p.model, p.layer) in called

        return [
            p
            for p in run.parameters
            if p.requires_grad
            and p.optimizer is None
            and (in_use(p) if p.model in trained else p.has_grad)
        ]

    def _still(self, run: Run) -> list[Parameter]:
        """Held by an optimizer, with a gradient, and never moved."""
        index = depth.Index(run, ("param_grad_norm", "param_norm", "param_update_norm"))
        found = []
        for parameter in run.parameters:
            if not parameter.requires_grad or parameter.optimizer is None:
                continue
            grad = index.of_parameter("param_grad_norm", parameter)
            update = index.of_parameter("param_update_norm", parameter)
            if grad is None or update is None or len(update) < self.recorded:
                continue
            moves = update.values[np.isfinite(update.values) & (update.values >= 0)]
            if moves.size < self.recorded or (moves > 0).any():
                continue
            norm = index.of_parameter("param_norm", parameter)
            size = norm.values if norm is not None and len(norm) == len(grad) else 1.0
            if (grad.values > self.rounding * size).mean() > 0.5:
                found.append(parameter)
        return found

    def _finding(self, run: Run, found: list[Parameter], *, homeless: bool) -> Finding:
        layers = tuple(dict.fromkeys(p.layer for p in found))
        numbers = sum(int(np.prod(p.shape)) for p in found)
        trainable = [p for p in run.parameters if p.requires_grad]
        total = sum(int(np.prod(p.shape)) for p in trainable) or 1
        at_zero = bool(found) and all(p.lr == 0 for p in found)
        if homeless:
            what = "are held by no optimizer"
        elif at_zero:
            what = "never change: the learning rate of their group is 0"
        else:
            what = "never change although they get a gradient"
        all_still = len(found) == len(trainable)
        return Finding(
            name=self.name,
            severity=Severity.CRITICAL if all_still else Severity.WARNING,
            confidence=0.95,
            message=(
                f"{len(found)} of {len(trainable)} trainable parameters {what}: "
                f"{depth.named(layers)} ({numbers:,} of {total:,} numbers)"
            ),
            step_start=0,
            layers=layers,
            evidence=(
                Evidence("parameters", len(found)),
                Evidence("share_of_all", numbers / total),
                Evidence("held_by_no_optimizer", homeless),
                Evidence("learning_rate_zero", at_zero and not homeless),
            ),
        )
