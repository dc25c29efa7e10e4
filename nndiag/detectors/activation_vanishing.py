"""activation-vanishing: the signal dies on its way through the layers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nndiag.curves import depth
from nndiag.detectors.base import Detector
from nndiag.records import Abstention, Evidence, Finding, Layer, Run, Severity


@dataclass(frozen=True, kw_only=True)
class ActivationVanishing(Detector):
    """Differences between the samples fade from layer to layer, and the net does not learn.

    What it sees
        In rows of Linear and convolution layers, the variance of each unit across the samples of
        a batch at the first recorded step. It shrinks along the depth by orders of magnitude, so
        that the last layers answer nearly the same to every input, and the loss stays where it
        began. A net that learns is left in peace whatever its variances are: Adam rescues many.

    Why it happens
        Each layer multiplies the variance by (fan-in x weight variance x slope of the activation
        squared). Below 1, depth makes it a power of that: too small an initialisation, the
        default one of nn.Linear in a deep ReLU net, or sigmoids, whose slope is at most 1/4.
        The variance over all elements does not show it: biases hold it up.

    Evidence
        V_l = mean over units of the variance across samples, of layer l, at the first measurement
        R = V_last / V_first over layers with no normalisation between them
        reported when R < limit while the loss lost less than 15 % of its first level

    Remedy
        1. He initialisation for ReLU-like activations, Xavier for tanh, biases at 0.
        2. A normalisation layer after each Linear or convolution, or residual connections.
        3. ReLU, GELU or SiLU in place of sigmoid.

    Source
        Glorot and Bengio 2010; He et al. 2015, arXiv:1502.01852. Variance across samples, the
        limits, and the condition that the net does not learn: our own runs (ReLU of 3 layers with
        R = 2e-2 learns; of 8 layers with 2e-6 stays at ln 10 under SGD and learns under Adam).
    """

    name = "activation-vanishing"
    explains = ("vanishing-gradient", "dead-relu", "unused-parameters", "loss-plateau",
                "slow-convergence", "update-too-small")  # fmt: skip

    limit: float = 1e-4  # R, ratio of variances; our own choice, see Source
    limit_output: float = 1e-5  # R when only the output is small: heads may start small on purpose
    critical: float = 1e-6  # R, beyond which only a rescue by Adam was ever seen
    layers_needed: int = 3  # of a row; fewer show no trend

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        index = depth.Index(run, ("activation_sample_variance",))
        if not index.any_of("activation_sample_variance"):
            yield Abstention(self.name, depth.why_no_variance(run))
            return
        for layers in depth.by_model(run):
            rows = [self._measured(index, row) for row in depth.chains(layers)]
            rows = [row for row in rows if len(row) >= self.layers_needed]
            if not rows:
                continue
            owner = index.owner_of(rows[0][0][0])
            trained = depth.progress(run, owner)
            if trained is None:
                yield Abstention(self.name, "no loss was recorded")
                return
            worst = min(rows, key=self._ratio)
            if self._ratio(worst) >= self.limit:
                continue
            if trained.points < depth.ENOUGH_STEPS:
                yield Abstention(
                    self.name,
                    f"{trained.points} steps; {depth.ENOUGH_STEPS} needed to see if it learns",
                )
            elif trained.stuck:
                yield self._finding(worst, trained, owner)

    def _measured(self, index: depth.Index, row: list[Layer]) -> depth.VarianceRow:
        found = depth.variances_at_start(index, row)
        if found and found[-1][1] == 0 and found[-2:-1] and found[-2][1] > 0:
            found.pop()  # a head that starts at zero on purpose
        return found

    def _ratio(self, row: depth.VarianceRow) -> float:
        """R of a row: of its last two layers, so that one small head does not decide."""
        first = row[0][1]
        if first <= 0:
            return 1.0
        inner, last = max(row[-1][1], row[-2][1]) / first, row[-1][1] / first
        if inner < self.limit:
            return last
        return last if last < self.limit_output else 1.0

    def _finding(self, row: depth.VarianceRow, trained: depth.Progress, owner: str) -> Finding:
        ratio = self._ratio(row)
        (first, v_first, step), (last, v_last, _) = row[0], row[-1]
        faded = tuple(layer.name for layer, v, _ in row[1:] if v < self.limit * v_first)
        per_layer = ratio ** (1 / (len(row) - 1)) if ratio > 0 else 0.0
        return Finding(
            name=self.name,
            severity=Severity.CRITICAL,
            confidence=0.95 if ratio < self.critical else 0.85,
            message=(
                f"the variance across samples falls from {v_first:.2g} in `{first.name}` to "
                f"{v_last:.2g} in `{last.name}` over {len(row)} layers (x {per_layer:.2g} a layer; "
                f"the ideal is 1), and {trained.in_words}"
            ),
            step_start=step,
            series="activation_sample_variance",
            owner=owner,
            layers=faded or (last.name,),
            evidence=(
                Evidence("variance_ratio", ratio, self.limit),
                Evidence("variance_first", v_first),
                Evidence("variance_last", v_last),
                Evidence("factor_per_layer", per_layer),
                Evidence("layers", len(row)),
                Evidence("loss_learned_fraction", trained.learned),
            ),
        )
