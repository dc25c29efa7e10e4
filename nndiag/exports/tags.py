"""What series are called where slashes make folders: TensorBoard's tags, W&B's keys."""

from __future__ import annotations

from collections.abc import Sequence

from nndiag.exports.tables import is_of_layer, names_of, unused, whole_run
from nndiag.records import Run, Series

OURS = "nndiag"
OF_PARAMETERS = "param_"
ROOT = "(model)"  # the module without a name


def tagged(run: Run) -> list[tuple[str, Series]]:
    """(tag, series), all tags different; series of the whole run first.

    What the log calls by a name of its own keeps that name; what we measured is `nndiag/...`.
    """
    whole = whole_run(run)
    layers = [series for series in run.series if is_of_layer(series)]
    wanted = [
        f"{OURS}/{name}" if run.format == OURS and not series.name else name
        for name, series in zip(names_of(whole), whole, strict=True)
    ]
    wanted += [_of_layer(series, _several_owners(layers)) for series in layers]
    used: set[str] = set()
    tags = []
    for tag in wanted:
        tags.append(unused(tag, used))
        used.add(tags[-1])
    return list(zip(tags, [*whole, *layers], strict=True))


def _of_layer(series: Series, with_owner: bool) -> str:
    if series.metric.startswith(OF_PARAMETERS):
        kind, metric = "parameters", series.metric.removeprefix(OF_PARAMETERS)
    else:
        kind, metric = "layers", series.metric
    owner = f"{series.owner}/" if with_owner and series.owner else ""
    return f"{kind}/{owner}{series.where or ROOT}/{metric}"


def _several_owners(layers: Sequence[Series]) -> bool:
    return len({series.owner for series in layers}) > 1
