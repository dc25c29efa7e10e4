"""What reports need of a run, in a few kilobytes: so that the diagnoses of a thousand fit.

The loss and the validation loss keep their shape: in each of `BUCKETS` equal ranges of steps the
lowest and the highest value and the first one that is not finite, so that no spike is lost. Other
series of the whole run keep their name, their first and their last point. Series of layers and
parameters go; the layers themselves stay.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nndiag.records import Diagnosis, Run, Series

BUCKETS = 512  # of the steps of a loss; a screen draws 144
DRAWN = ("loss", "val_loss")


def outline(diagnosis: Diagnosis) -> Diagnosis:
    """The same diagnosis, its run reduced to what reports show of it."""
    return replace(diagnosis, run=outline_of_run(diagnosis.run))


def outline_of_run(run: Run) -> Run:
    """The same run with fewer points; `Series.recorded` still counts those of the log."""
    kept = [
        thinned(series) if series.metric in DRAWN else _ends(series)
        for series in run.series
        if not series.where
    ]
    return replace(run, series=tuple(kept), parameters=(), nonfinite=())


def thinned(series: Series, buckets: int = BUCKETS) -> Series:
    """A series of at most 3 * `buckets` + 2 points that draws the same picture."""
    count = len(series)
    if count <= 3 * buckets:
        return series
    # unsigned and wrapping: the span of steps may exceed an int64
    position_T = (series.steps.view(np.uint64) - series.steps.view(np.uint64)[0]).astype(np.float64)
    bucket_T = np.minimum(position_T * (buckets / position_T[-1]), buckets - 1).astype(np.int64)
    is_finite = np.isfinite(series.values)
    finite, broken = np.flatnonzero(is_finite), np.flatnonzero(~is_finite)
    by_value = finite[np.lexsort((series.values[finite], bucket_T[finite]))]
    lowest = by_value[_firsts(bucket_T[by_value])]
    highest = by_value[::-1][_firsts(bucket_T[by_value][::-1])]
    ends = np.array([0, count - 1])
    first_broken = broken[_firsts(bucket_T[broken])]
    return _at(series, np.unique(np.concatenate([ends, lowest, highest, first_broken])))


def _firsts(sorted_T: np.ndarray) -> np.ndarray:
    """Where each value of a sorted array comes first."""
    return np.flatnonzero(np.diff(sorted_T, prepend=sorted_T[:1] - 1))


def _ends(series: Series) -> Series:
    count = len(series)
    return series if count <= 2 else _at(series, np.array([0, count - 1]))


def _at(series: Series, kept: np.ndarray) -> Series:
    return replace(series, steps=series.steps[kept], values=series.values[kept])
