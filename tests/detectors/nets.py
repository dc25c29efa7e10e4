"""Runs of small nets for tests of layer detectors: the records that a watched training leaves."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np

from nndiag.detectors.base import Detector
from nndiag.records import Abstention, Finding, Layer, Optimizer, Parameter, Run, Series

STEPS = 400
EVERY = 10  # optimizer steps between two measurements of the layers


def series(
    metric: str, values: Iterable[float], where: str = "", *, every: int = 1, owner: str = ""
) -> Series:
    column = np.array(list(values), dtype=float)
    return Series(metric, np.arange(column.size) * every, column, where, owner)


def flat(value: float, points: int = STEPS // EVERY) -> list[float]:
    return [value] * points


def learns(start: float = 2.3, end: float = 0.1, points: int = STEPS) -> Series:
    """A loss that falls as it should, with some noise."""
    noise = 1 + 0.05 * np.sin(np.arange(points) * 2.399)
    return series("loss", (end + (start - end) * np.exp(-np.arange(points) / (points / 6))) * noise)


def drops(start: float, end: float) -> Series:
    """A loss that starts far too high and is down within some steps."""
    return series("loss", end + (start - end) * np.exp(-np.arange(STEPS) / (STEPS / 50)))


def crawls(points: int = STEPS) -> Series:
    """A healthy loss whose floor is high: cross-entropy with soft targets, 0.694 to 0.648."""
    noise = 0.001 * np.sin(np.arange(points) * 2.399)
    return series("loss", 0.648 + 0.046 * np.exp(-np.arange(points) / (points / 4)) + noise)


def stays(level: float = 2.303, points: int = STEPS) -> Series:
    """A loss that does not move but for its noise."""
    return series("loss", level * (1 + 0.01 * np.sin(np.arange(points) * 2.399)))


def breaks(after: int = 30, start: float = 2.3, factor: float = 2.0) -> Series:
    """A loss that climbs and becomes NaN."""
    climb = start * factor ** np.arange(after)
    return series("loss", np.concatenate([climb, np.full(STEPS - after, np.nan)]))


def net(
    loss: Series,
    *more: Series,
    depth: int = 6,
    activation: str = "ReLU",
    optimizer: str = "SGD",
    width: int = 64,
    lr: float = 0.1,
    norm: str = "",
    **settings: float,
) -> Run:
    """A plain net 0, 1, ... of `depth` Linear layers, an activation after each but the last."""
    kinds: list[str] = []
    for i in range(depth):
        kinds += ["Linear"]
        if i < depth - 1:
            kinds += ([norm] if norm else []) + [activation]
    layers, parameters = [], []
    for order, kind in enumerate(kinds):
        own = (f"{order}.weight", f"{order}.bias") if kind == "Linear" else ()
        layers.append(Layer(str(order), kind, order, "Net", own))
        for name, shape in zip(own, [(width, width), (width,)], strict=False):
            parameters.append(Parameter(name, shape, True, optimizer, "Net", str(order), lr))
    made = Optimizer(optimizer, optimizer, len(loss), (("lr", lr), *settings.items()))
    whole = (loss, series("lr", [lr] * len(loss)))
    return Run("net", "nndiag", (*whole, *more), tuple(layers), tuple(parameters), (made,))


def linears(run: Run) -> list[str]:
    return [layer.name for layer in run.layers if layer.kind == "Linear"]


def measured(run: Run, metric: str, values: Sequence[float], kind: str = "Linear") -> Run:
    """The run with a constant measurement at each layer of a kind, in forward order."""
    places = [layer.name for layer in run.layers if layer.kind == kind]
    assert len(places) == len(values), f"{len(values)} values for {len(places)} layers"
    new = tuple(
        series(metric, flat(v), where, every=EVERY) for where, v in zip(places, values, strict=True)
    )
    return replace(run, series=run.series + new)


def weights(run: Run, grads: Sequence[float], norm: float = 5.0) -> Run:
    """The run with gradient, parameter and update norms of each weight, in forward order."""
    new = []
    for where, g in zip(linears(run), grads, strict=True):
        name = f"{where}.weight"
        new.append(series("param_grad_norm", flat(g), name, every=EVERY))
        new.append(series("param_norm", flat(norm), name, every=EVERY))
        new.append(series("param_update_norm", flat(0.1 * max(g, 0)), name, every=EVERY))
    return replace(run, series=run.series + tuple(new))


def dead(run: Run, where: str, fractions: Sequence[float], samples: int = 2048) -> Run:
    """The run with the dead units of one layer."""
    seen = [series("dead_unit_fraction", fractions, where, every=EVERY)]
    seen.append(series("dead_unit_samples", [samples] * len(fractions), where, every=EVERY))
    return replace(run, series=run.series + tuple(seen))


def findings(detector: Detector, run: Run) -> list[Finding]:
    return [said for said in detector.examine(run) if isinstance(said, Finding)]


def reasons(detector: Detector, run: Run) -> list[str]:
    return [said.reason for said in detector.examine(run) if isinstance(said, Abstention)]
