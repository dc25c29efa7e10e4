"""The sentences of a comparison, which its reports share."""

from __future__ import annotations

import math

from nndiag.comparison.facts import (
    CONFIDENCE,
    Basis,
    Change,
    Comparison,
    CurveDifference,
    Difference,
    FindingChange,
    LayerDifference,
    Pair,
    Rank,
    Reached,
    Side,
)
from nndiag.reports import wording
from nndiag.reports.wording import clean, number

NOT_RECORDED = "(not recorded)"
CHANGES = (Change.APPEARED, Change.WORSE, Change.GONE, Change.BETTER, Change.SAME)


def plus_minus(value: float, band: float) -> str:
    """`0.12 ± 0.03`: the band with two digits, the value as far as the band lets it be known."""
    if not math.isfinite(band):
        return number(value)
    if band <= 0.0 or not math.isfinite(value):
        return f"{number(value)} ± {number(band)}"
    decimals = 1 - math.floor(math.log10(band))
    if decimals > 8 or band >= 1e7:
        return f"{number(value)} ± {band:.1e}"
    rounded = round(value, decimals)
    if rounded == 0.0:
        rounded = 0.0  # not -0
    shown = max(0, decimals)
    return f"{rounded:.{shown}f} ± {round(band, decimals):.{shown}f}"


def verdict(pair: Pair, curve: CurveDifference) -> str:
    """`B is lower by 0.12 ± 0.03`, `no difference beyond noise (0.01 ± 0.03)`."""
    return difference(curve.difference, curve.is_ratio, pair.a.mark, pair.b.mark)


def difference(one: Difference, is_ratio: bool, a: str = "A", b: str = "B") -> str:
    word = one.outcome.name
    if word == "IDENTICAL":
        return "identical"
    if word == "UNDECIDED":
        return f"cannot be told: {wording.told(one.reason)}"
    if is_ratio:
        low, high = (_times(one.value + sign * one.band) for sign in (-1, 1))
        times = f"{number(_short(_times(one.value)))} times {a}"
        interval = f"{number(_short(low))} to {number(_short(high))}"
        if word == "SAME":
            return f"no difference beyond noise ({times}, {interval})"
        return f"{b} is {one.outcome.value}: {times} ({interval})"
    if word == "SAME":
        return f"no difference beyond noise ({plus_minus(one.value, one.band)})"
    return f"{b} is {one.outcome.value} by {plus_minus(abs(one.value), one.band)}"


def _times(logarithm: float) -> float:
    """A factor from its logarithm, never beyond what a float holds."""
    return math.exp(min(700.0, logarithm))


def _short(value: float) -> float:
    """Three significant digits."""
    return float(f"{value:.3g}") if math.isfinite(value) else value


def is_better(curve: CurveDifference) -> bool | None:
    """Whether B is better than A; None where it is no question, or cannot be told."""
    outcome = curve.difference.outcome.value
    if not curve.better or outcome not in ("lower", "higher"):
        return None
    return outcome == curve.better


def name(curve: CurveDifference) -> str:
    """What to call a curve: our word, with the logs' own where they differ from it."""
    owner = f" of {clean(curve.owner)}" if curve.owner else ""
    if curve.metric == "other":
        return clean(curve.label_a) + owner
    labels = dict.fromkeys((curve.label_a, curve.label_b))
    if len(labels) == 1:
        return clean(curve.label_a) + owner
    return f"{curve.metric} ({clean(curve.label_a)}, {clean(curve.label_b)}){owner}"


def at(place: float, unit: str) -> str:
    """`step 300`, `epoch 7`, `12.3 s`, `30 % of the way`."""
    if unit == "s":
        return f"{number(_short(place))} s"
    if unit == "share":
        return f"{100 * place:.0f} % of the way"
    return f"{unit} {round(place)}"


def levels(curve: CurveDifference, unit: str) -> str:
    """`0.42 -> 0.30 at steps 900-999`."""
    one = curve.difference
    if curve.is_ratio or not 0.0 < one.band < 1e7:
        return " -> ".join(number(_short(value)) for value in (one.a, one.b))
    decimals = min(8, max(0, 1 - math.floor(math.log10(one.band))))
    return " -> ".join(
        f"{value:.{decimals}f}" if math.isfinite(value) and abs(value) < 1e7 else number(value)
        for value in (one.a, one.b)
    )


def way(pair: Pair, curve: CurveDifference) -> str:
    """Since when the difference holds, or how often it was there on the way."""
    outcome = curve.difference.outcome
    differs = outcome.value in ("lower", "higher")
    if not curve.way:
        return ""
    if differs and curve.since is not None:
        first = curve.way[0].start
        if curve.since <= first:
            return f"{outcome.value} all the way"
        return f"{outcome.value} from {at(curve.since, pair.unit)} on"
    sides = [point.difference.outcome.value for point in curve.way]
    parts = []
    for word in ("lower", "higher"):
        if word in sides and not (differs and word == outcome.value):
            when = [p for p, side in zip(curve.way, sides, strict=True) if side == word]
            within = "in" if len(when) == 1 else f"in {len(when)} of {len(sides)} parts,"
            parts.append(f"{word} {within} {span(when[0].start, when[-1].end, pair.unit)}")
    return ", ".join(parts)


def reached(pair: Pair, curve: CurveDifference) -> str:
    """`0.42 is reached by B at step 620 (580 to 655), by A at step 960`."""
    if curve.target is None or curve.reached_a is None or curve.reached_b is None:
        return ""
    a, b = (_reach(one, pair.unit) for one in (curve.reached_a, curve.reached_b))
    target = number(_short(curve.target))
    return f"{target} is reached by {pair.b.mark} at {b}, by {pair.a.mark} at {a}"


def _reach(one: Reached, unit: str) -> str:
    text = at(one.at, unit)
    if unit in ("step", "epoch", "row"):
        text += f" ({round(one.earliest)} to {round(one.latest)})"
    if one.seconds is not None and unit != "s":
        text += f", {number(_short(one.seconds))} s"
    return text


def best(pair: Pair, curve: CurveDifference) -> str:
    """`best value A 0.391 at step 940, B 0.284 at step 988`."""
    if curve.best_a is None or curve.best_b is None:
        return ""
    a, b = (
        f"{number(_short(one.value))} at {at(one.at, pair.unit)}"
        for one in (curve.best_a, curve.best_b)
    )
    return f"best value {pair.a.mark} {a}, {pair.b.mark} {b}"


def span(start: float, end: float, unit: str) -> str:
    """`steps 900-999`."""
    if unit in ("step", "epoch", "row"):
        return f"{unit}s {round(start)}-{round(end)}"
    return f"{at(start, unit)} to {at(end, unit)}"


def rank(one: Rank) -> str:
    """`0.42 ± 0.03`, or that the run has no final level."""
    return plus_minus(one.level, one.band) if math.isfinite(one.level) else "ended in NaN"


def headline(pair: Pair) -> str:
    """One sentence for the whole pair: of the first curve."""
    if pair.not_comparable:
        return f"the curves are not compared: {wording.told(pair.not_comparable)}"
    if not pair.curves:
        return "they have no curve in common"
    first = pair.curves[0]
    said = verdict(pair, first)
    where = f" at {at(first.end, pair.unit)}" if math.isfinite(first.end) else ""
    if said == "identical":
        where = ""
    broken = "".join(f"; {note}" for note in first.notes)
    return f"{name(first)}: {said}{where}{broken}"


def side(one: Side, index: int | None = None) -> str:
    return one.mark if index is None or not one.is_several else f"{one.mark}{index + 1}"


def change(one: FindingChange, pair: Pair) -> str:
    """Where, and why it counts as worse; of several runs in how many."""
    told = one.after if one.after is not None else one.before
    if told is None:
        return ""
    where = ", ".join(filter(None, (wording.place(told), wording.step_range(told))))
    parts = [where]
    if one.why:
        parts.append(wording.told(one.why))
    if pair.a.is_several or pair.b.is_several:
        parts.append(
            f"in {one.runs_a} of {len(pair.a.diagnoses)} runs of {pair.a.mark}, "
            f"{one.runs_b} of {len(pair.b.diagnoses)} of {pair.b.mark}"
        )
    return "; ".join(filter(None, parts))


def severity(one: FindingChange) -> str:
    told = one.after if one.after is not None else one.before
    return "" if told is None else str(told.severity)


def layer(pair: Pair, one: LayerDifference) -> str:
    """`gradient norm at the end 0.44 -> 0.23, 0.53 times A (0.45 to 0.62)`."""
    was, now = (number(_short(value)) for value in (one.difference.a, one.difference.b))
    if one.is_ratio:
        apart, band = one.difference.value, one.difference.band
        low, high = (_times(apart + sign * band) for sign in (-1, 1))
        times = number(_short(_times(apart)))
        how = f"{times} times {pair.a.mark} ({number(_short(low))} to {number(_short(high))})"
    else:
        how = plus_minus(one.difference.value, one.difference.band)
    return f"{one.measure} at the {one.phase}  {was} -> {now}, {how}"


def setting(values: tuple[str, ...]) -> str:
    return " or ".join(clean(value) or NOT_RECORDED for value in values) or NOT_RECORDED


def meaning_of_band(comparison: Comparison) -> str:
    """What the bands cover, honestly."""
    percent = f"{100 * CONFIDENCE:g} %"
    bases = {curve.difference.basis for pair in comparison.pairs for curve in pair.curves} - {
        Basis.NONE
    }
    if not bases:
        return ""
    if Basis.SEEDS in bases:
        return f"{percent} over all curves together, from the differences between seeds (Welch's t)"
    return (
        f"{percent} over all curves together, from the noise within each run. "
        "One run a side: whether other seeds differ the same way cannot be told"
    )
