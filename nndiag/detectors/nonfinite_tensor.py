"""nonfinite-tensor: NaN or infinity somewhere inside, while the loss still looks fine."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag.curves import depth
from nndiag.detectors.base import Detector
from nndiag.records import Abstention, Evidence, Finding, NonfiniteOrigin, Run, Series, Severity


@dataclass(frozen=True, kw_only=True)
class NonfiniteTensor(Detector):
    """A gradient, parameter or activation holds NaN or infinity although the loss is finite.

    What it sees
        The first tensor that went bad at a step whose loss was finite, in forward order for
        activations and in backward order for gradients; and layers whose gradients or outputs
        are non-finite at recorded steps while the loss is finite.

    Why it happens
        A backward function without a finite derivative (sqrt, norm or log at 0), an overflow in
        half precision, a division by an empty mask. The loss can stay finite because the bad
        values are masked away, belong to an unused part, or come one step before it breaks.

    Evidence
        the origin (kind, place, step, value), with the loss of that step finite, and
        the number of recorded steps with non-finite values
        left out: minus infinity in activations (attention masks), activations bad in fewer than 3
        recorded steps, gradients that a loss scaler skips, and a loss that breaks within 3 steps
        (that is loss-nonfinite, which names the same tensor)

    Remedy
        1. Mend the operation that is named: an epsilon inside sqrt, log and division.
        2. Inspect the data of that step.
        3. bfloat16 or float32 where float16 overflowed.

    Source
        torch.autograd.detect_anomaly; detection order and exclusions are our own choice.
    """

    name = "nonfinite-tensor"
    explains = ("loss-nonfinite", "loss-divergence", "loss-plateau", "unused-parameters",
                "untrained-parameters", "update-too-small")  # fmt: skip

    persistent: int = 3  # recorded steps with a bad activation
    breaks_within: int = 3  # optimizer steps after which a bad loss is the same event
    scaler_share: float = 0.01  # of the steps may be skipped by a loss scaler

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        recorded = ("activation_nonfinite", "param_grad_norm", "param_norm")
        watched = any(s.metric in recorded for s in run.series)
        if not watched and not run.nonfinite:
            yield Abstention(self.name, depth.NOT_RECORDED)
            return
        places = self._origins(run) or self._gradients(run) or self._activations(run)
        if not places:
            return
        first = min(places, key=lambda origin: origin.step)
        if self._breaks_soon(run, first.step):
            return
        steps = sorted({origin.step for origin in places})
        last = max(places, key=lambda origin: origin.step)
        operation = first.detail if "Backward" in first.detail else ""
        aside = f" ({first.detail})" if first.detail else ""
        detail = f" from {operation}" if operation else aside
        value = "NaN" if math.isnan(first.value) else "an infinity"
        where = f" of `{first.where}`" if first.where else ""
        yield Finding(
            name=self.name,
            severity=Severity.WARNING if first.kind == "activation" else Severity.CRITICAL,
            confidence=0.8 if first.kind == "activation" else 0.95,
            message=(
                f"the {first.kind}{where} holds {value}{detail} at step {first.step} while the "
                f"loss is finite"
                + (f", and so on at {len(steps)} recorded steps" if len(steps) > 1 else "")
            ),
            step_start=first.step,
            step_end=last.step if last.step > first.step else None,
            layers=_modules(run, places),
            evidence=(
                Evidence("kind", first.kind),
                Evidence("where", first.where),
                Evidence("value", first.value),
                Evidence("operation", operation),
                Evidence("steps", len(steps)),
            ),
        )

    def _origins(self, run: Run) -> list[NonfiniteOrigin]:
        """What the recorder saw go bad first, if it counts."""
        origins = [o for o in run.nonfinite if o.loss_finite]
        tensors = [o for o in origins if o.kind in ("gradient", "parameter")]
        if tensors and self._skipped_by_scaler(run, len({o.step for o in tensors})):
            tensors = [o for o in tensors if o.kind == "parameter"]
        return tensors

    def _skipped_by_scaler(self, run: Run, bad_steps: int) -> bool:
        """A loss scaler finds its scale by overflowing now and then, and skips those steps."""
        scale = next((s for s in run.series_of("loss_scale") if len(s)), None)
        if scale is None or not (scale.values > 1).any():
            return False
        steps = max((o.steps for o in run.optimizers), default=len(scale))
        return bad_steps <= max(5, self.scaler_share * steps)

    def _gradients(self, run: Run) -> list[NonfiniteOrigin]:
        """Gradient and parameter norms that are NaN at steps with a finite loss.

        An infinite norm may be only the square of large numbers that overflowed.
        """
        found = []
        for kind, metric in (("parameter", "param_norm"), ("gradient", "param_grad_norm")):
            for series in run.series_of(metric):
                found += _bad(run, series, kind, np.isnan(series.values))
        if found and self._skipped_by_scaler(run, len({o.step for o in found})):
            return []
        return found

    def _activations(self, run: Run) -> list[NonfiniteOrigin]:
        """Module outputs that stay non-finite: NaN in the mean, so that -inf masks do not count."""
        found = []
        means = {(s.owner, s.where): s for s in run.series_of("activation_mean")}
        for series in run.series_of("activation_nonfinite"):
            mean = means.get((series.owner, series.where))
            bad = series.values > 0
            if mean is not None and len(mean) == len(series):
                bad &= ~(mean.values == -np.inf)
            origins = _bad(run, series, "activation", bad)
            half = len(origins) >= 0.5 * len(series)
            if len(origins) >= self.persistent and half and mean is not None:
                found += origins
        return found

    def _breaks_soon(self, run: Run, step: int) -> bool:
        for loss in run.series_of("loss"):
            near = (loss.steps >= step) & (loss.steps <= step + self.breaks_within)
            if near.any() and not np.isfinite(loss.values[near]).all():
                return True
        return False


def _bad(run: Run, series: Series, kind: str, bad: np.ndarray) -> list[NonfiniteOrigin]:
    """The steps of a series that are bad while the loss is finite."""
    if not bad.any():
        return []
    loss = run.companion("loss", series)
    steps = series.steps[bad]
    if loss is not None:
        broken = loss.steps[~np.isfinite(loss.values)]
        steps = steps[~np.isin(steps, broken)]
    return [NonfiniteOrigin(int(s), kind, series.where, math.nan, True) for s in steps]


def _modules(run: Run, places: list[NonfiniteOrigin]) -> tuple[str, ...]:
    """Module names of the places, in forward order."""
    of_parameter = {p.name: p.layer for p in run.parameters}
    names = {of_parameter.get(o.where, o.where) for o in places if o.where}
    order = {layer.name: layer.order for layer in run.layers}
    return tuple(sorted(names, key=lambda name: (order.get(name, -1), name)))
