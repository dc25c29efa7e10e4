"""Checks along the depth: does the signal get through forward, and the gradient back?"""

from __future__ import annotations

import math

import numpy as np

from nndiag.curves import depth
from nndiag.preflight.check import Check, Findings, State, brief
from nndiag.records import Layer, Run

FADED, GROWN = 1e-4, 1e3  # ratio of variances along a row of layers, worth a look
STARVED = 1e-4  # ratio of gradient norms along the depth, worth a look; healthy nets: 1e-3 and up
DEAD = 0.5  # share of units, worth a look
SAMPLES = 64  # behind a share of dead units; over 8 samples 9 % of healthy units look dead
MOST_BARS = 24  # layers of a profile


def variance(run: Run, found: Findings) -> Check:
    """The variance across samples from layer to layer, before the first update."""
    check = "variance"
    about = ("activation-vanishing", "activation-exploding", "saturated-activation")
    index = depth.Index(run, ("activation_sample_variance",))
    rows: list[depth.VarianceRow] = []
    everything: depth.VarianceRow = []
    for layers in depth.by_model(run):
        dense = depth.variances_at_start(index, filter(depth.is_dense, layers))
        everything = max(everything, dense, key=len)
        rows += [depth.variances_at_start(index, row) for row in depth.chains(layers)]
    if not everything:
        why = "no Linear or convolution layer was seen" if run.layers else depth.NOT_RECORDED
        return found.check(check, about, State.UNSEEN, why)
    row = max(rows, key=_contrast)
    profile = _thinned([value for _, value, _ in everything])
    if len(row) < 3:
        values = [value for _, value, _ in everything]
        text = f"{brief(min(values))} to {brief(max(values))} in {_layers(len(values))}"
        text += ", normalised between" if any(map(depth.resets_variance, run.layers)) else ""
        return found.check(check, about, State.OK, text, profile, layers=len(values))
    (_, first, _), (_, last, _) = row[0], row[-1]
    factor = _ratio(row) ** (1 / (len(row) - 1))
    text = f"{brief(first)} -> {brief(last)} over {_layers(len(row))}, x {brief(factor)} a layer"
    ratio = _inner_ratio(row)
    odd = ratio < FADED or (_ratio(row) > GROWN and last > 100) or not math.isfinite(last)
    return found.check(
        check,
        about,
        State.LOOK if odd else State.OK,
        text,
        profile,
        first=first,
        last=last,
        factor_per_layer=factor,
        layers=len(row),
    )


def gradient_norms(run: Run, found: Findings) -> Check:
    """The norm of the first gradient of each weight, from the first layer to the last."""
    check, about = "gradient norm", ("vanishing-gradient", "exploding-gradient", "symmetric-units")
    index = depth.Index(run, ("param_grad_norm",))
    best: list[tuple[Layer, float]] = []
    for layers in depth.by_model(run):
        places = {layer.name: layer for layer in layers}
        mine: list[tuple[Layer, float]] = []
        for parameter in run.parameters:
            layer = places.get(parameter.layer) if parameter.model == layers[0].model else None
            if layer is None or not parameter.is_weight or not depth.is_dense(layer):
                continue
            series = index.of_parameter("param_grad_norm", parameter)
            seen = series.values[series.values >= 0][:5] if series is not None else np.empty(0)
            if seen.size:
                # the largest of the first: the first of a LoRA pair has none at step 0
                mine.append((layer, float(seen.max())))
        best = max(best, sorted(mine, key=lambda one: one[0].order), key=len)
    if not best:
        return found.check(
            check, about, State.UNSEEN, "no gradient of a weight matrix was recorded"
        )
    norms = [norm for _, norm in best]
    profile = _thinned(norms)
    smallest, largest = min(norms), max(norms)
    ratio = smallest / largest if largest > 0 else 0.0
    text = f"{brief(norms[0])} in the first layer, {brief(norms[-1])} in the last"
    if len(norms) > 2:
        text += f"; smallest / largest {ratio:.1g}"
    odd = (len(norms) > 2 and ratio < STARVED) or largest == 0 or not math.isfinite(largest)
    return found.check(
        check,
        about,
        State.LOOK if odd else State.OK,
        text,
        profile,
        first=norms[0],
        last=norms[-1],
        ratio=ratio,
        layers=len(norms),
    )


def dead_units(run: Run, found: Findings) -> Check:
    """How many units of a ReLU layer answer no sample, from the start."""
    check, about = "dead units", ("dead-relu",)
    born: list[tuple[float, str, int]] = []
    newest = 0.0
    few = 0
    for series in run.series_of("dead_unit_fraction"):
        counted = run.one("dead_unit_samples", series.where, series.owner)
        samples = counted.values if counted is not None and len(counted) == len(series) else None
        enough = np.isfinite(series.values)
        if samples is not None:
            enough &= samples >= SAMPLES
            few = max(few, int(np.nanmax(samples, initial=0)))
        if enough.any():
            first, last = np.flatnonzero(enough)[[0, -1]]
            count = int(samples[first]) if samples is not None else 0
            born.append((float(series.values[first]), series.where, count))
            newest = max(newest, float(series.values[last]))
    if not born:
        why = f"{few} samples a unit; {SAMPLES} needed" if few else "no ReLU was seen"
        return found.check(check, about, State.UNSEEN, why)
    share, where, seen = max(born)
    text = f"{depth.percent(share)} of {depth.named([where]) or 'a ReLU'}"
    text += f", the most of {len(born)} layers" if len(born) > 1 else ""
    if newest > share:
        text += f"; {depth.percent(newest)} in the newest steps"
    text += f" (over {seen} samples)" if seen else ""
    state = State.LOOK if max(share, newest) > DEAD else State.OK
    return found.check(check, about, state, text, at_start=share, newest=newest, layers=len(born))


def _ratio(row: depth.VarianceRow) -> float:
    return row[-1][1] / row[0][1] if row and row[0][1] > 0 else 1.0


def _inner_ratio(row: depth.VarianceRow) -> float:
    """Of the last two layers, so that one head that starts small does not decide."""
    if row[0][1] <= 0:
        return 0.0
    return max(row[-1][1], row[-2][1]) / row[0][1]


def _contrast(row: depth.VarianceRow) -> tuple[bool, float, int]:
    """The row that changes most a layer; one of three layers and more before a shorter one."""
    ratio = _ratio(row)
    return len(row) >= 3, abs(math.log(ratio)) if 0 < ratio < math.inf else 1e9, len(row)


def _layers(count: int) -> str:
    return "1 layer" if count == 1 else f"{count} layers"


def _thinned(values: list[float]) -> list[float]:
    """At most `MOST_BARS` of the values, evenly spread, the first and the last among them."""
    if len(values) <= MOST_BARS:
        return values
    places = np.linspace(0, len(values) - 1, MOST_BARS).round().astype(int)
    return [values[place] for place in places]
