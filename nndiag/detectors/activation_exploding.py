"""activation-exploding: the signal grows without bound through the layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nndiag.curves import depth
from nndiag.detectors.base import Detector
from nndiag.records import Abstention, Evidence, Finding, Run, Severity


@dataclass(frozen=True, kw_only=True)
class ActivationExploding(Detector):
    """Activations grow from layer to layer by orders of magnitude, from the first step on.

    What it sees
        In rows of Linear and convolution layers, the variance of each unit across the samples of
        a batch at the first recorded step. It grows along the depth until the outputs are of
        size 10 and more, which no loss that was made for outputs of order 1 can use.

    Why it happens
        Each layer multiplies the variance by (fan-in x weight variance x slope of the activation
        squared). Above 1, depth makes it a power of that: weights drawn from N(0, 1) are the
        usual cause, deep residual nets without normalisation another.

    Evidence
        V_l = mean over units of the variance across samples, of layer l, at the first measurement
        R = V_last / V_first over layers with no normalisation between them
        reported when V_last > limit_variance, and R > limit, or R ** (1 / layers) > limit_layer
        with V_last > limit_large; and the loss shows it: it starts at 3 times the level that it
        soon comes down to, or the net does not learn, or it breaks. A trained model that is
        trained on has large outputs too, but meant ones.

    Remedy
        1. He initialisation for ReLU-like activations, Xavier for tanh, biases at 0.
        2. A normalisation layer after each Linear or convolution.
        3. In residual nets, branches scaled by 1 / sqrt(number of blocks).

    Source
        He et al. 2015, arXiv:1502.01852. The limits are our own: ReLU nets of 8 layers from
        N(0, 1) have R = 1e10; 12 residual blocks with layer norm have 15 and learn.
    """

    name = "activation-exploding"
    explains = ("exploding-gradient", "loss-divergence", "loss-nonfinite", "nonfinite-tensor",
                "loss-oscillation", "loss-plateau", "slow-convergence", "loss-spike",
                "loss-off-chance", "saturated-activation", "clip-always-active",
                "dead-relu")  # fmt: skip

    limit: float = 1e3  # R, ratio of variances; our own choice, see Source
    critical: float = 1e6  # R
    limit_variance: float = 100.0  # of the last layer: outputs of size 10, far from order 1
    limit_layer: float = 5.0  # factor of each layer, for nets too shallow to reach R
    limit_large: float = 1e4  # variance of the last layer of those: outputs of size 100
    limit_fall: float = 3.0  # first loss / its level after the opening
    layers_needed: int = 3  # of a row; fewer show no trend

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        index = depth.Index(run, ("activation_sample_variance",))
        if not index.any_of("activation_sample_variance"):
            yield Abstention(self.name, depth.why_no_variance(run))
            return
        for layers in depth.by_model(run):
            rows = [depth.variances_at_start(index, row) for row in depth.chains(layers)]
            rows = [row for row in rows if len(row) >= self.layers_needed]
            if not rows:
                continue
            worst = max(rows, key=self._ratio)
            owner = index.owner_of(worst[0][0])
            trained = depth.progress(run, owner)
            if self._explodes(worst) and self._shows(trained):
                yield self._finding(worst, trained, owner)

    def _explodes(self, row: depth.VarianceRow) -> bool:
        ratio, last = self._ratio(row), row[-1][1]
        steep = ratio > self.limit_layer ** (len(row) - 1) and last > self.limit_large
        return last > self.limit_variance and (ratio > self.limit or steep)

    def _shows(self, trained: depth.Progress | None) -> bool:
        """Whether the loss suffers from it; where there is none, it is taken to."""
        if trained is None or depth.is_harmed(trained):
            return True
        return trained.start > self.limit_fall * max(trained.opened, 0.0)

    @staticmethod
    def _ratio(row: depth.VarianceRow) -> float:
        return row[-1][1] / row[0][1] if row[0][1] > 0 else 1.0

    def _finding(
        self, row: depth.VarianceRow, trained: depth.Progress | None, owner: str
    ) -> Finding:
        ratio = self._ratio(row)
        (first, v_first, step), (last, v_last, _) = row[0], row[-1]
        grown = tuple(layer.name for layer, v, _ in row[1:] if v > self.limit * v_first)
        per_layer = ratio ** (1 / (len(row) - 1))
        says = f", and {trained.in_words}" if trained else ""
        return Finding(
            name=self.name,
            severity=Severity.CRITICAL if ratio > self.critical else Severity.WARNING,
            confidence=0.97 if ratio > self.critical else 0.85,
            message=(
                f"the variance across samples grows from {v_first:.2g} in `{first.name}` to "
                f"{v_last:.2g} in `{last.name}` over {len(row)} layers (x {per_layer:.2g} a layer; "
                f"the ideal is 1){says}"
            ),
            step_start=step,
            series="activation_sample_variance",
            owner=owner,
            layers=grown or (last.name,),
            evidence=(
                Evidence("variance_ratio", ratio, self.limit),
                Evidence("variance_first", v_first),
                Evidence("variance_last", v_last, self.limit_variance),
                Evidence("factor_per_layer", per_layer),
                Evidence("layers", len(row)),
            ),
        )
