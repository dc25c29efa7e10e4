"""exploding-gradient: gradients too large for their weights, along the depth or along the run."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag.curves import depth
from nndiag.detectors.base import Detector
from nndiag.records import Abstention, Evidence, Finding, Run, Series, Severity


@dataclass(frozen=True, kw_only=True)
class ExplodingGradient(Detector):
    """Gradients are far too large for their weights, and the training suffers from it.

    What it sees
        Two things. At the first recorded steps: weight matrices whose gradient norm is many times
        their own norm. Over the run: a global gradient norm that keeps jumping to a hundred times
        its own usual level, while the loss rises with it. Large norms that do no harm, because
        clipping or an adaptive optimizer divides them away, are left alone.

    Why it happens
        Backpropagation multiplies one factor per layer and, in recurrent nets, one per time step.
        Factors above 1 (large initial weights, recurrent weights with gain above 1, no
        normalisation, unscaled inputs or targets) make the product explode.

    Evidence
        at the start: |g_l| / |w_l| > limit_start at the first measurement of a weight matrix
        in the run:   |g| > limit_jump x the median of the block of 100 steps before, in 3 places
                      or 1 % of the steps
        reported only where the loss breaks, rises, does not fall, or (at the start) begins at 10
        times the level that it soon comes down to

    Remedy
        1. At the start: He or Xavier initialisation, normalised inputs and targets.
        2. In the run: clip the gradient norm at the 90th percentile of its healthy steps.
        3. A lower learning rate, or a warm-up.

    Source
        Pascanu et al. 2013, arXiv:1211.5063. Limits: our own runs (ReLU of 8 layers from N(0, 1):
        5e3 at the start; healthy nets 1e-2 to 3; healthy norms stay within 20 x their median).
    """

    name = "exploding-gradient"
    explains = ("loss-divergence", "loss-nonfinite", "nonfinite-tensor", "loss-oscillation",
                "loss-plateau", "slow-convergence", "clip-always-active",
                "loss-off-chance")  # fmt: skip

    limit_start: float = 10.0  # gradient norm / weight norm
    limit_fall: float = 10.0  # first loss / its level after the opening: it began absurdly high
    limit_jump: float = 100.0  # times the usual gradient norm
    places: int = 3  # separate jumps that make it a habit; fewer are a spike
    window: int = 100  # steps of a block that tells the usual level
    warm: int = 20  # steps before jumps are looked for
    as_at_first: float = 10.0  # limit_jump / this: how far above the first norms a jump must be

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        index = depth.Index(run, ("param_grad_norm", "param_norm"))
        norms = [s for s in run.series_of("grad_norm") if len(s)]
        if not norms and not index.any_of("param_grad_norm"):
            yield Abstention(self.name, "no gradient norms were recorded")
            return
        owners = [o.owner for o in run.optimizers] if len(run.optimizers) > 1 else [""]
        for owner in owners:
            trained = depth.progress(run, owner)
            if trained is None:
                yield Abstention(self.name, "no loss was recorded")
                return
            found = self._at_the_start(run, index, owner, trained)
            if found is None:
                norm = next((s for s in norms if s.owner == owner), norms[0] if norms else None)
                found = self._in_the_run(run, norm, owner, trained) if norm is not None else None
            if found is not None:
                yield found

    def _at_the_start(
        self, run: Run, index: depth.Index, owner: str, trained: depth.Progress
    ) -> Finding | None:
        loss = run.one("loss", owner=owner) or run.one("loss")
        high = trained.start > self.limit_fall * max(trained.opened, 0.0)
        if loss is None or not (trained.stuck or high or (trained.broke and _climbed(loss))):
            return None
        large: list[tuple[float, str, int]] = []
        for parameter in run.parameters:
            layer = index.layer_of(parameter)
            of_owner = not owner or parameter.optimizer == owner
            if layer is None or not (of_owner and parameter.is_weight and depth.is_dense(layer)):
                continue
            grad = index.of_parameter("param_grad_norm", parameter)
            norm = index.of_parameter("param_norm", parameter)
            if grad is None or norm is None or len(grad) != len(norm):
                continue
            # the first measurement only: a diverging run is large everywhere a few steps later
            relative = float(grad.values[0] / max(norm.values[0], 1e-30))
            if relative > self.limit_start:  # infinity counts, NaN does not
                large.append((relative, layer.name, int(grad.steps[0])))
        if not large:
            return None
        worst, where, step = max(large)
        if len(large) < 2 and worst < 10 * self.limit_start:
            return None  # one layer alone, and not by much: an output far from its targets
        return Finding(
            name=self.name,
            severity=Severity.CRITICAL if depth.is_harmed(trained) else Severity.WARNING,
            confidence=0.9,
            message=(
                f"at the first recorded step the gradient of `{where}` is {worst:.2g} times as "
                f"large as its weights ({len(large)} layers above {self.limit_start:g}), and "
                f"{trained.in_words}"
            ),
            step_start=step,
            series="param_grad_norm",
            owner=owner,
            layers=tuple(name for _, name, _ in large),
            evidence=(
                Evidence("gradient_to_weight", worst, self.limit_start),
                Evidence("at_start", True),
                Evidence("layers", len(large)),
            ),
        )

    def _in_the_run(
        self, run: Run, norm: Series, owner: str, trained: depth.Progress
    ) -> Finding | None:
        loss = run.one("loss", owner=owner) or run.one("loss")
        if loss is None:
            return None
        jumps = self._jumps(norm)
        broken = loss.steps[~np.isfinite(loss.values)]
        jumps = jumps[~np.isin(norm.steps[jumps], broken)]  # there the gradient only follows
        if jumps.size == 0:
            return None
        separate = 1 + int((np.diff(jumps) > 10).sum())
        often = jumps.size >= max(self.places, 0.01 * len(norm))
        if not (separate >= self.places or often):
            return None
        start = int(norm.steps[jumps[0]])
        rise = _rise(loss, start)
        if not (trained.broke or rise > 1.5):
            return None
        usual = float(np.median(norm.values[: jumps[0]]))
        finite = norm.values[jumps][np.isfinite(norm.values[jumps])]
        peak = float(finite.max()) if finite.size else math.inf
        return Finding(
            name=self.name,
            severity=Severity.CRITICAL if trained.broke or trained.stuck else Severity.WARNING,
            # modest: where the loss itself shows an event, that event is the better name for it
            confidence=0.6,
            message=(
                f"the gradient norm jumps from its usual {usual:.2g} up to {peak:.2g} "
                f"({jumps.size} steps in {separate} places from step {start}), and "
                f"{trained.in_words}"
            ),
            step_start=start,
            step_end=int(norm.steps[jumps[-1]]),
            series=norm.label,
            owner=owner,
            evidence=(
                Evidence("gradient_norm_peak", peak, self.limit_jump * usual),
                Evidence("gradient_norm_usual", usual),
                Evidence("at_start", False),
                Evidence("jumps", int(jumps.size)),
                Evidence("places", separate),
            ),
        )

    def _jumps(self, norm: Series) -> np.ndarray:
        """Indices at which the norm stands far above its usual level of the steps before."""
        values = norm.values
        if values.size <= self.warm:
            return np.zeros(0, dtype=np.int64)
        # A step is compared with the block before its own: cheap, and a jump that lasts does not
        # become its own usual level before it has been counted for a whole block.
        usual = np.empty(values.size)
        usual[: self.window] = _middle(values[: self.warm])
        for start in range(self.window, values.size, self.window):
            usual[start : start + self.window] = _middle(values[start - self.window : start])
        usual = np.maximum(usual, 1e-30)
        # A net that has learned everything has norms near 0, and any sample jumps out of them:
        # that is no explosion as long as the beginning had norms as large.
        usual = np.maximum(usual, _middle(values[: self.warm]) / self.as_at_first)
        jumped = values > self.limit_jump * usual  # infinity jumps; NaN is another fault
        jumped[: self.warm] = False
        return np.flatnonzero(jumped)


def _climbed(loss: Series) -> bool:
    """Whether a loss rose before it broke: NaN from nowhere has other causes."""
    finite = loss.values[np.isfinite(loss.values)]
    if finite.size < 2:
        return True
    return float(finite.max()) > 3 * abs(float(finite[0]))


def _middle(values: np.ndarray) -> float:
    finite = values[np.isfinite(values)]
    return float(np.median(finite)) if finite.size else math.inf


def _rise(loss: Series, step: int) -> float:
    """How far the loss stands above its earlier level in the steps after `step`, as a ratio."""
    before = loss.values[loss.steps < step]
    after = loss.values[(loss.steps >= step) & (loss.steps <= step + 20)]
    before, after = before[np.isfinite(before)], after[np.isfinite(after)]
    if before.size == 0 or after.size == 0:
        return 1.0
    # 1 % of the first level is added: near 0 a ratio says nothing
    floor = 0.01 * abs(float(np.median(before[:20])))
    level = float(np.median(before[-20:])) + floor
    return (float(after.max()) + floor) / level if level > 0 else 1.0
