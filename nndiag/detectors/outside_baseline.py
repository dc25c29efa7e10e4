"""outside-baseline: a curve above the band that earlier runs of the same training make."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nndiag.curves import band
from nndiag.curves.band import Learned, Place
from nndiag.detectors.base import Detector
from nndiag.records import Abstention, Evidence, Finding, Remedy, Run, Series, Severity


@dataclass(frozen=True, kw_only=True)
class OutsideBaseline(Detector):
    """A loss lies above the band that earlier runs of the same training make.

    What it sees
        The training and the validation loss of one run, beside those of a baseline:
        nndiag check RUN1 ... RUN5 --write-baseline base.json learns it from runs that differ in
        nothing but their seed, nndiag check RUN --baseline base.json compares. Without a baseline
        it says nothing.

    Why it happens
        Something that came with this run makes it learn worse: a change of the model, the data,
        the optimizer, a library. Or the change was meant to cost something, and the baseline is
        out of date.

    Evidence
        Each curve is cut into 16 equal blocks over the steps that all runs cover; its level in a
        block is the median there. At the end, half way and at a quarter (two blocks each), with
        x = log loss of the n runs of the baseline (the loss itself where one is not positive):
        limit = mean(x) + t(1 - alpha; n - 1) * sd(x) * sqrt(1 + 1/n)
        reported where the run lies above it. alpha is `false_alarm_rate` divided among the curves,
        and half of that to the end of each, so that a healthy run is reported that often at most
        where seeds spread x normally, and somewhat more often where they do not (docs/ci.md has
        figures). sd is at least the noise of the levels themselves. Fewer than 3 runs: no band.

    Remedy
        1. Find what changed since the baseline, and take it back: nndiag compare shows both runs.
        2. If the change is meant, learn a new baseline.

    Source
        The prediction interval for one more observation: Hahn and Meeker 1991, "Statistical
        Intervals", section 4.7. Blocks, windows and the rate are our own choice;
        docs/ci.md tells how often healthy runs were reported, and which shifts were found.
    """

    name = "outside-baseline"
    false_alarm_rate: float = 0.001  # of a whole run, 0..1

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        """Nothing: a run alone has no baseline. See `compare`."""
        return iter(())

    def compare(self, run: Run, learned: Sequence[Learned]) -> Iterator[Finding | Abstention]:
        """What lies above the band; an abstention for each curve that could not be compared."""
        pairs = []
        for one in learned:
            curve = counterpart(one, run)
            if isinstance(curve, str):
                yield Abstention(self.name, curve)
            else:
                pairs.append((one, curve))
        for one, curve in pairs:
            places = band.compare(one, curve, self.false_alarm_rate / len(pairs))
            if not places:
                yield Abstention(self.name, _why_not(one, curve))
            outside = [place for place in places if place.is_outside]
            if outside:
                worst = max(outside, key=lambda place: place.excess)
                yield self._finding(one, worst, outside[0].start, outside[-1].end)

    def _finding(self, learned: Learned, place: Place, start: int, end: int) -> Finding:
        label = learned.label
        return Finding(
            name=self.name,
            severity=Severity.WARNING,
            confidence=1.0 - self.false_alarm_rate,
            message=(
                f"{label} is {place.value:.4g} at steps {place.start}-{place.end}, above the band "
                f"of the baseline: its {place.runs} runs have {place.lowest:.4g} to "
                f"{place.highest:.4g} there, and the band ends at {place.limit:.4g}."
            ),
            step_start=start,
            step_end=end,
            series=label,
            owner=learned.owner,
            evidence=(
                Evidence("value", place.value, place.limit),
                Evidence("baseline", place.centre),
                Evidence("baseline_lowest", place.lowest),
                Evidence("baseline_highest", place.highest),
                Evidence("baseline_runs", place.runs),
                Evidence("deviations", place.excess),
                Evidence("false_alarm_rate", self.false_alarm_rate),
            ),
            remedies=(
                Remedy(
                    "revert-change",
                    text="find what changed since the baseline, and take it back",
                    why="runs that differ in nothing but their seed stay inside the band",
                ),
                Remedy(
                    "update-baseline",
                    text="if the change is meant, learn a new baseline from several seeds: "
                    "nndiag check RUN... --write-baseline FILE",
                    why="the band knows only the training it was learned from",
                ),
            ),
        )


def counterpart(learned: Learned, run: Run) -> Series | str:
    """The curve of `run` to compare with a learned one; else why there is none."""
    found = [series for series in run.series_of(learned.metric) if len(series)]
    same_owner = [series for series in found if series.owner == learned.owner] or (
        found if len(found) == 1 else []
    )
    if not same_owner:
        return f"no {learned.label} in this log to compare with the baseline"
    for series in same_owner:
        if series.label == learned.label:
            return series
    other = same_owner[0].label
    return f"the baseline has {learned.label} where this log has {other}; --loss names the series"


def _why_not(learned: Learned, curve: Series) -> str:
    if not band.band(learned, 0.5):
        return (
            f"{learned.label}: the baseline has {len(learned.levels)} different runs; a band needs "
            f"{band.FEWEST}"
        )
    return (
        f"{learned.label}: steps {int(curve.steps[0])}-{int(curve.steps[-1])} cover too little of "
        f"the baseline's {learned.first}-{learned.last}"
    )
