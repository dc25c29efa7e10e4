"""Samples whose input is unlike that of the others of their batch, whatever their loss is.

With batch statistics one odd sample moves the loss of all, so that no loss stands out. Its numbers
still do.
"""

from __future__ import annotations

import math

import torch

from nndiag.attribution.captured import Captured
from nndiag.records import OddInput

ODD = 5.0  # times the usual largest number of a sample. Our own choice: normal data stay below
USUAL = 0.75  # quantile over the samples: of single numbers the median is far below many
FEWEST = 4  # samples, for one to be unlike the others
MOST = 5  # samples that are named


def odd_inputs(captured: Captured) -> list[OddInput]:
    """The odd samples, the oddest first; of each the input in which it is oddest."""
    found: dict[int, tuple[float, OddInput]] = {}
    for name in sorted(captured.batched):
        values = captured.inputs[name]
        if not values.is_floating_point() or values.shape[0] < FEWEST or not values[0].numel():
            continue
        sizes_RE = values.reshape(values.shape[0], -1).float().abs()
        sizes_RE = sizes_RE.nan_to_num(nan=math.inf, posinf=math.inf)
        largest_R, places_R = sizes_RE.max(dim=1)
        usual = float(largest_R.quantile(USUAL))
        if not 0 < usual < math.inf:
            continue
        for row in (largest_R > ODD * usual).nonzero().reshape(-1).tolist():
            times = float(largest_R[row]) / usual
            index = torch.unravel_index(places_R[row], values.shape[1:]) if values.ndim > 1 else ()
            place = tuple(int(i) for i in index)
            odd = OddInput(row, name, place, float(values[(row, *place)]), usual)
            if row not in found or times > found[row][0]:
                found[row] = times, odd
    order = sorted(found.values(), key=lambda pair: -pair[0])
    return [odd for _, odd in order[:MOST]]
