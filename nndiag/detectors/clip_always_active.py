"""clip-always-active: clipping throttles nearly every step."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag.curves.depth import percent, progress
from nndiag.detectors.base import Detector
from nndiag.records import Abstention, Evidence, Finding, Run, Series, Severity


@dataclass(frozen=True, kw_only=True)
class ClipAlwaysActive(Detector):
    """Gradient clipping cuts nearly every step to a fraction of its size.

    What it sees
        The global gradient norm before clipping against the threshold of that step. With SGD a
        clipped step is a shorter step, so the learning rate that counts is lr x c / |g|. Adam and
        its relatives divide by the size of the gradient anyway: for them this is a remark only.

    Why it happens
        A threshold taken over from another model ("1.0 is standard") that is far below the norms
        of this one, or norms that grew during the run.

    Evidence
        fires = share of steps with |g| > c
        cut   = median of |g| / c
        reported when fires > limit and cut > limit_cut over at least `steps` steps; a warning
        only for SGD and its relatives, while the loss does not fall well, and not where the
        cosine of gradient and last update says that the steps are long enough

    Remedy
        1. Raise the threshold to the 90th percentile of the norms, or remove it.
        2. If the steps then turn unstable: lower the learning rate instead of the threshold.

    Source
        Google tuning playbook ("more than 50 % of updates clipped" is extreme). Our own runs of
        3 layers: clipping at 0.01 stalled SGD at 2.3 and cost Adam nothing.
    """

    name = "clip-always-active"
    explains = ("slow-convergence", "loss-plateau", "update-too-small")

    limit: float = 0.9  # share of steps
    limit_cut: float = 3.0  # norm / threshold
    steps: int = 50  # optimizer steps
    learns_well: float = 0.5  # of the first loss is gone: then the cut does not hurt enough
    too_slow: float = -0.05  # cosine of the next gradient with the update: the steps are too short
    long_enough: float = 0.02  # cosine above which longer steps would only overshoot more
    samples: int = 50  # of the cosine

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        thresholds = [s for s in run.series_of("clip_threshold") if len(s)]
        norms = [s for s in run.series_of("grad_norm") if len(s)]
        if not norms or (not thresholds and not run.layers):
            yield Abstention(self.name, "gradient norms and clip thresholds were not recorded")
            return
        for threshold in thresholds:
            norm = run.companion("grad_norm", threshold)
            if norm is None:
                continue
            g, c, steps = _together(norm, threshold)
            if g.size < self.steps:
                if g.size:
                    yield Abstention(self.name, f"{g.size} clipped steps; {self.steps} needed")
                continue
            fires = float((g > c).mean())
            cut = float(np.median(g / c))
            if fires > self.limit and cut > self.limit_cut:
                yield self._finding(run, threshold, fires, cut, g, c, steps)

    def _finding(
        self,
        run: Run,
        threshold: Series,
        fires: float,
        cut: float,
        g: np.ndarray,
        c: np.ndarray,
        steps: np.ndarray,
    ) -> Finding:
        optimizer = run.optimizer(threshold.owner)
        adaptive = optimizer is not None and optimizer.is_adaptive
        trained = progress(run, threshold.owner)
        kappa = _mean_cosine(run, threshold, self.samples)
        slow = kappa is not None and kappa < self.too_slow
        overshoots = kappa is not None and kappa > self.long_enough
        fine = overshoots or (
            trained is not None and trained.learned > self.learns_well and not slow
        )
        limit, usual = float(np.median(c)), float(np.median(g))
        lr = run.companion("lr", threshold)
        learning_rate = float(np.median(lr.values)) if lr is not None and len(lr) else None
        effect = ""
        if adaptive and optimizer is not None:
            effect = f"; {optimizer.kind} divides by the gradient's size, so this costs little"
        elif learning_rate is not None:
            effect = f", so lr {learning_rate:.2g} acts like {learning_rate / cut:.2g}"
        evidence = [
            Evidence("clipped_fraction", fires, self.limit),
            Evidence("norm_to_threshold", cut, self.limit_cut),
            Evidence("clip_threshold", limit),
            Evidence("gradient_norm_median", usual),
            Evidence("gradient_norm_p90", float(np.quantile(g, 0.9))),
            Evidence("adaptive_optimizer", adaptive),
        ]
        if learning_rate is not None:
            evidence.append(Evidence("effective_lr", learning_rate / cut))
        if kappa is not None:
            evidence.append(Evidence("update_gradient_cosine", kappa, self.too_slow))
        return Finding(
            name=self.name,
            severity=Severity.INFO if adaptive or fine else Severity.WARNING,
            confidence=0.95 if slow else 0.85,
            message=(
                f"clipping at {limit:.2g} cuts {percent(fires)} of the steps; the gradient norm "
                f"is {usual:.2g}, {cut:.2g} times the threshold{effect}"
            ),
            step_start=int(steps[0]),
            step_end=int(steps[-1]),
            series=threshold.label,
            owner=threshold.owner,
            evidence=tuple(evidence),
        )


def _together(norm: Series, threshold: Series) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Norms and thresholds of the steps that have both, finite."""
    steps, i, j = np.intersect1d(
        norm.steps, threshold.steps, assume_unique=True, return_indices=True
    )
    g, c = norm.values[i], threshold.values[j]
    usable = np.isfinite(g) & np.isfinite(c) & (c > 0)
    return g[usable], c[usable], steps[usable]


def _mean_cosine(run: Run, of: Series, samples: int) -> float | None:
    """Mean cosine of gradient and last update after the first quarter; None where too few."""
    cosine = run.companion("update_gradient_cosine", of)
    if cosine is None:
        return None
    values = cosine.values[len(cosine) // 4 :]
    values = values[np.isfinite(values)]
    return float(values.mean()) if values.size >= samples else None
