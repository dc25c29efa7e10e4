"""Series of layers as heat maps: a row for each layer in forward order, a column for some steps.

Shapes: T steps, L layers, C columns.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import reduce

import numpy as np

from nndiag.records import Finding, Run, Series
from nndiag.reports import wording
from nndiag.reports.html.courses import Axis
from nndiag.reports.html.packing import cells, packed
from nndiag.thinning import Grid, grid, offsets

MOST_LAYERS = 2000  # rows; of more, those that findings name, then the first
MOST_COLUMNS, FEWEST_COLUMNS = 320, 24  # a screen draws about 900 pixels
CELLS_BYTES = 1_050_000  # of all heat maps of a page, before base64 makes 4 of 3
_CELL_BYTES = 8  # lowest and highest as float32
_LABEL = 40  # columns of a layer's name; the whole of it is told where it is pointed at


@dataclass(frozen=True, slots=True)
class Measure:
    """What a heat map can show, and how it comes from the series of a layer."""

    key: str
    title: str
    logarithmic: bool  # colours; else they go from 0 to 1
    of_layer: Callable[[_Index, str], Series | None]


@dataclass(frozen=True, slots=True)
class HeatMap:
    """One measure of all layers; a layer without it has a row of NaN."""

    measure: Measure
    grid: Grid
    series: tuple[Series, ...]  # (L,) not thinned; empty where a layer has none

    @property
    def is_thinned(self) -> bool:
        return max(map(len, self.series)) > self.grid.starts.size


@dataclass(frozen=True, slots=True)
class Layers:
    """The heat maps of a run and its layers, which are their rows."""

    names: tuple[str, ...]
    kinds: tuple[str, ...]
    maps: tuple[HeatMap, ...]
    left_out: int = 0  # layers that have no row

    def row(self, name: str) -> int | None:
        return self.names.index(name) if name in self.names else None


class _Index:
    """Series of a run by metric and place, and the parameters of each layer."""

    def __init__(self, run: Run) -> None:
        self.series = {(s.metric, s.where): s for s in run.series if s.where and len(s)}
        self.parameters: dict[str, list[str]] = {layer.name: [] for layer in run.layers}
        for layer in run.layers:
            self.parameters[layer.name] += layer.parameters
        for parameter in run.parameters:
            owned = self.parameters.setdefault(parameter.layer, [])
            owned += [parameter.name] if parameter.name not in owned else []
        known = {name for names in self.parameters.values() for name in names}
        for metric, where in self.series:  # a log without a list of layers
            if metric.startswith("param_") and where not in known:
                known.add(where)
                module = where.rpartition(".")[0] or where
                self.parameters.setdefault(module, []).append(where)
            elif not metric.startswith("param_"):
                self.parameters.setdefault(where, [])

    def of_parameters(self, metric: str, layer: str) -> list[Series]:
        names = self.parameters.get(layer, ())
        return [self.series[metric, name] for name in names if (metric, name) in self.series]


def _own(metric: str) -> Callable[[_Index, str], Series | None]:
    return lambda index, layer: index.series.get((metric, layer))


def _norm(metric: str) -> Callable[[_Index, str], Series | None]:
    """The norm of all parameters of a layer together; -1, which is no gradient, becomes NaN."""

    def joined(index: _Index, layer: str) -> Series | None:
        found = [_measured(s) for s in index.of_parameters(metric, layer)]
        return reduce(_hypot, found) if found else None

    return joined


def _measured(series: Series) -> Series:
    has = series.values != -1.0
    if has.all():
        return series
    return replace(series, steps=series.steps[has], values=series.values[has])


def _hypot(a: Series, b: Series) -> Series:
    """Root of the sum of squares; of steps that only one has, that one."""
    with np.errstate(all="ignore"):
        if np.array_equal(a.steps, b.steps):
            return replace(a, values=np.hypot(a.values, b.values))
        steps = np.union1d(a.steps, b.steps)
        total = np.zeros(steps.size)
        for one in (a, b):
            at = np.searchsorted(steps, one.steps)
            total[at] = np.hypot(total[at], one.values)
    return replace(a, steps=steps, values=total)


def _update_ratio(index: _Index, layer: str) -> Series | None:
    """|step's change| / |parameters| of a layer."""
    moves, sizes = (_norm(m)(index, layer) for m in ("param_update_norm", "param_norm"))
    if moves is None or sizes is None:
        return None
    steps, of_moves, of_sizes = np.intersect1d(
        moves.steps, sizes.steps, assume_unique=True, return_indices=True
    )
    with np.errstate(all="ignore"):
        ratio = moves.values[of_moves] / sizes.values[of_sizes]
    has = sizes.values[of_sizes] != 0  # a weight that starts at 0 has no ratio
    return replace(moves, steps=steps[has], values=ratio[has])


# In the order in which they are offered; where there is no room for all, the last ones go.
MEASURES = (
    Measure("grad_norm", "gradient norm", True, _norm("param_grad_norm")),
    Measure("variance", "activation variance", True, _own("activation_variance")),
    Measure("dead", "dead units", False, _own("dead_unit_fraction")),
    Measure("saturated", "saturated units", False, _own("saturated_unit_fraction")),
    Measure("samples", "variance across samples", True, _own("activation_sample_variance")),
    Measure("update", "update / weight", True, _update_ratio),
)

# What a heat map shows of a finding: its series, else its name, says which.
_OF_SERIES = {
    "param_grad_norm": "grad_norm",
    "grad_norm": "grad_norm",
    "activation_variance": "variance",
    "activation_sample_variance": "samples",
    "dead_unit_fraction": "dead",
    "saturated_unit_fraction": "saturated",
    "param_update_norm": "update",
    "update_ratio": "update",
}


def measure_of(finding: Finding, found: Layers) -> HeatMap | None:
    """The heat map that shows a finding of layers best; None for one that a whole run shows."""
    own = _OF_SERIES.get(finding.series, "")
    if not finding.layers or (finding.series and not own):
        return None
    by_key = {one.measure.key: one for one in found.maps}
    return by_key[own] if own in by_key else next(iter(found.maps), None)


def layers(
    run: Run, named: Sequence[str], axis: Axis, room_bytes: int = CELLS_BYTES
) -> Layers | None:
    """The heat maps of a run, `named` layers in any case; None where it has no series of layers."""
    index = _Index(run)
    order = [layer.name for layer in sorted(run.layers, key=lambda one: one.order)]
    order = _with_inner(order, index.parameters)
    rows = {
        measure.key: {name: s for name in order if (s := measure.of_layer(index, name))}
        for measure in MEASURES
    }
    measured = {name for one in rows.values() for name in one}
    names = _chosen([name for name in order if name in measured], set(named))
    filled = [measure for measure in MEASURES if rows[measure.key]]
    if not names:
        return None
    filled = filled[: max(1, room_bytes // (FEWEST_COLUMNS * _CELL_BYTES * len(names)))]
    columns = room_bytes // (_CELL_BYTES * len(names) * len(filled))
    columns = max(FEWEST_COLUMNS, min(MOST_COLUMNS, columns))
    maps = [_heat_map(measure, names, rows[measure.key], columns, axis) for measure in filled]
    kinds = {layer.name: layer.kind for layer in run.layers}
    shown_kinds = tuple(kinds.get(name, "") for name in names)
    return Layers(tuple(names), shown_kinds, tuple(maps), len(measured) - len(names))


def _with_inner(order: Sequence[str], modules: Iterable[str]) -> list[str]:
    """Modules that hold parameters and no forward pass has shown stand after what they are in."""
    known = set(order)
    inner: dict[str, list[str]] = {}
    for name in modules:
        if name not in known:
            outer = name.rpartition(".")[0]
            inner.setdefault(outer if outer in known else "", []).append(name)
    lone = inner.pop("", []) if "" not in known else []
    placed = [one for name in order for one in (name, *inner.get(name, ()))]
    return [*(name for name in lone if not name), *placed, *filter(None, lone)]


def _chosen(names: Sequence[str], named: set[str]) -> list[str]:
    if len(names) <= MOST_LAYERS:
        return list(names)
    kept = {name for name in names if name in named}
    rest = [name for name in names if name not in kept]
    kept.update(rest[: max(0, MOST_LAYERS - len(kept))])
    return [name for name in names if name in kept][:MOST_LAYERS]


def _heat_map(
    measure: Measure, names: Sequence[str], rows: dict[str, Series], columns: int, axis: Axis
) -> HeatMap:
    nothing = Series(measure.key, np.empty(0, np.int64), np.empty(0))
    series = tuple(rows.get(name, nothing) for name in names)
    return HeatMap(measure, grid(series, columns, axis.origin), series)


def as_data(found: Layers, marked: dict[str, list[int]], axis: Axis) -> dict[str, object]:
    """The heat maps as the page's script takes them; `marked`: numbers of findings by layer."""
    return {
        "names": [_name(name) for name in found.names],
        "labels": [wording.shortened(_name(name), _LABEL) for name in found.names],
        "kinds": [wording.clean(kind)[:80] for kind in found.kinds],
        "marked": [marked.get(name, []) for name in found.names],
        "maps": list(_maps_data(found.maps, axis)),
    }


def _name(name: str) -> str:
    return wording.clean(name)[:400] or "(the model)"


def _maps_data(maps: Sequence[HeatMap], axis: Axis) -> Iterator[dict[str, object]]:
    for one in maps:
        given = one.grid
        same = np.array_equal(given.lowest, given.highest, equal_nan=True)
        yield {
            "key": one.measure.key,
            "title": one.measure.title,
            "log": one.measure.logarithmic,
            "columns": int(given.starts.size),
            "starts": packed(given.starts),
            "ends": packed(given.ends),
            "first": packed(offsets(given.first, axis.origin)),
            "last": packed(offsets(given.last, axis.origin)),
            "low": cells(given.lowest),
            "high": None if same else cells(given.highest),
            "broken": packed(given.broken) if given.broken.any() else None,
        }
