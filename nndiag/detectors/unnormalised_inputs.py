"""unnormalised-inputs: input scale far from order 1."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag.curves import depth
from nndiag.detectors.base import NO_FACTS, Detector
from nndiag.records import Abstention, Evidence, Fact, Finding, Run, Severity


@dataclass(frozen=True, kw_only=True)
class UnnormalisedInputs(Detector):
    """The numbers that enter the first layer are far from order 1.

    What it sees
        Mean, standard deviation and largest magnitude of the data that enter a trained layer, in
        the first steps. Tokens that an embedding looks up are not data in this sense, and a layer
        that batch norm or layer norm follows at once does not care.

    Why it happens
        Images left at 0..255, prices, years or counts as they come, spectrograms in decibels.
        Initialisations are made for inputs of variance 1: outputs, gradients and useful learning
        rates scale with the inputs.

    Evidence
        s = sqrt(mean^2 + std^2) of the values, median of the first steps
        reported when s > `limit`, or no value is larger than `faint`; a mere remark where the
        training goes well all the same

    Remedy
        1. Subtract the mean and divide by the standard deviation, each feature for itself.

    Source
        LeCun et al. 1998, "Efficient BackProp", section 4.3. The limits are our own choice:
        pixels of 0..255 have s of about 80 to 150, dB spectrograms 40; standardised data have 1.
    """

    name = "unnormalised-inputs"
    explains = (
        "saturated-activation", "dead-relu", "exploding-gradient", "activation-exploding",
        "loss-divergence", "loss-spike", "loss-oscillation", "loss-plateau", "slow-convergence",
        "loss-nonfinite", "update-too-large", "update-too-small", "vanishing-gradient",
        "clip-always-active", "activation-vanishing", "nonfinite-tensor",
    )  # fmt: skip

    limit: float = 20.0  # root mean square of the values
    faint: float = 1e-3  # largest magnitude
    learns_well: float = 0.5  # share of the first loss that is gone; then it is a mere remark
    settled: int = 100  # optimizer steps after which the loss tells whether it goes well

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        if not run.facts:
            yield Abstention(self.name, NO_FACTS)
            return
        by_place: dict[tuple[str, str], list[Fact]] = defaultdict(list)
        for fact in run.facts_of("input"):
            by_place[fact.where, fact.owner].append(fact)
        found = [(where, owner, facts) for (where, owner), facts in by_place.items()]
        far = [one for one in found if self._is_far(one[2]) and not _rescaled(run, one[0])]
        told: set[str] = set()
        for where, owner, facts in far:
            if owner not in told:  # the first layer of a model stands for those beside it
                told.add(owner)
                yield self._finding(run, where, owner, facts)

    def _is_far(self, facts: list[Fact]) -> bool:
        size = _size(facts)
        largest = _median(facts, "abs_max")
        return size > self.limit or 0 < largest < self.faint

    def _finding(self, run: Run, where: str, owner: str, facts: list[Fact]) -> Finding:
        size, largest = _size(facts), _median(facts, "abs_max")
        mean, std = _median(facts, "mean"), _median(facts, "std")
        trained = depth.progress(run, owner)
        fine = (
            trained is not None
            and trained.points >= self.settled
            and not trained.broke
            and trained.learned > self.learns_well
        )
        told = "" if size > self.limit else f", and none is larger than {largest:.2g}"
        return Finding(
            name=self.name,
            severity=Severity.INFO if fine else Severity.WARNING,
            confidence=0.8 if size > 2 * self.limit else 0.65,
            message=(
                f"the values that enter `{where}` have a mean of {mean:.3g} and a standard "
                f"deviation of {std:.3g} (0 and 1 are right){told}"
            ),
            step_start=facts[0].step,
            owner=owner,
            layers=(where,),
            evidence=(
                Evidence("input_rms", size, self.limit if size > self.limit else None),
                Evidence("input_mean", mean),
                Evidence("input_std", std),
                Evidence("input_abs_max", largest, None if size > self.limit else self.faint),
                Evidence("feature_std_lowest", _median(facts, "feature_std_min")),
                Evidence("feature_std_highest", _median(facts, "feature_std_max")),
            ),
        )


def _median(facts: list[Fact], name: str) -> float:
    return float(np.median([fact.amount(name) for fact in facts]))


def _size(facts: list[Fact]) -> float:
    return math.hypot(_median(facts, "mean"), _median(facts, "std"))


def _rescaled(run: Run, where: str) -> bool:
    """Whether a normalisation follows the layer at once, so that the scale goes."""
    place = next((layer for layer in run.layers if layer.name == where), None)
    if place is None:
        return False
    later = [
        layer
        for layer in run.layers
        if layer.model == place.model and layer.order > place.order and layer.name
    ]
    following = min(later, key=lambda layer: layer.order, default=None)
    return following is not None and depth.resets_variance(following)
