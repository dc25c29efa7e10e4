"""symmetric-units: units of a layer stay identical."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

from nndiag.curves import depth
from nndiag.detectors.base import NO_FACTS, Detector
from nndiag.records import Abstention, Evidence, Fact, Finding, Run, Severity


@dataclass(frozen=True, kw_only=True)
class SymmetricUnits(Detector):
    """The units of a layer begin alike and stay alike.

    What it sees
        Weights all of whose rows are the same numbers after the first step, and still are many
        steps later.

    Why it happens
        Weights initialised to zero or to any constant. Units that start alike and see the same
        inputs get the same gradient, so all of them remain one and the same unit; between two
        layers of zeros there is no gradient at all. A last layer or an adapter that starts at
        zero on purpose leaves that state with its first steps, and is left alone.

    Evidence
        max over rows of |row - first row| = 0 at the first and the newest look, at least `steps`
        optimizer steps apart
        left out: layers of one unit, embeddings, normalisations, frozen parameters, and weights
        that never got a gradient although others did (those are unused)

    Remedy
        1. Initialise the weights at random: nn.init.kaiming_normal_ or xavier_uniform_. Biases
           may start at 0.

    Source
        Goodfellow, Bengio & Courville 2016, "Deep Learning", section 8.4: the initial parameters
        must break symmetry. The number of steps is our own choice.
    """

    name = "symmetric-units"
    explains = (
        "vanishing-gradient", "loss-plateau", "slow-convergence", "activation-vanishing",
        "update-too-small", "unused-parameters", "untrained-parameters", "dead-relu",
        "saturated-activation",
    )  # fmt: skip

    steps: int = 8  # optimizer steps between the first look and the newest

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        if not run.facts:
            yield Abstention(self.name, NO_FACTS)
            return
        by_place: dict[tuple[str, str], list[Fact]] = defaultdict(list)
        for fact in run.facts_of("weights"):
            by_place[fact.owner, fact.where].append(fact)
        alike: dict[str, list[list[Fact]]] = defaultdict(list)
        for (owner, where), facts in by_place.items():
            apart = facts[-1].step - facts[0].step
            same = all(fact.number("identical") is True for fact in facts)
            if same and apart >= self.steps and not _unused(run, owner, where):
                alike[owner].append(facts)
        for owner, several in alike.items():
            yield self._finding(run, owner, several)

    def _finding(self, run: Run, owner: str, several: list[list[Fact]]) -> Finding:
        layer_of = {p.name: p.layer for p in run.parameters}
        names = [facts[0].where for facts in several]
        layers = tuple(dict.fromkeys(layer_of.get(n, n.rpartition(".")[0]) for n in names))
        newest = max(facts[-1].step for facts in several)
        zero = sum(facts[-1].number("zero") is True for facts in several)
        units = sum(facts[0].count("units") for facts in several)
        return Finding(
            name=self.name,
            severity=Severity.WARNING,
            confidence=0.95,
            message=(
                f"all units of {depth.named(layers)} are identical, and stay so until step "
                f"{newest}: their weights {'are 0' if zero == len(several) else 'began constant'}"
            ),
            step_start=min(facts[0].step for facts in several),
            step_end=newest,
            owner=owner,
            layers=layers,
            evidence=(
                Evidence("weights", len(several)),
                Evidence("units", units),
                Evidence("all_zero", zero == len(several)),
                Evidence("steps", newest - min(facts[0].step for facts in several), self.steps),
            ),
        )


def _unused(run: Run, owner: str, where: str) -> bool:
    """Whether the weight never gets a gradient though others do: then it is merely unused."""
    norms = [s for s in run.series_of("param_grad_norm") if s.owner == owner and len(s)]
    mine = next((s for s in norms if s.where == where), None)
    if mine is None or not (mine.values == -1).all():
        return False
    return any((s.values > 0).any() for s in norms)
