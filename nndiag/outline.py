"""What reports need of a run, in a few kilobytes: so that the diagnoses of a thousand fit.

The loss and the validation loss keep their shape, spikes included (thinning.py). Other
series of the whole run keep their name, their first and their last point. Series of layers and
parameters go; the layers themselves stay.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from nndiag.records import Diagnosis, Run, Series
from nndiag.thinning import at, thinned

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


def _ends(series: Series) -> Series:
    count = len(series)
    return series if count <= 2 else at(series, np.array([0, count - 1]))
