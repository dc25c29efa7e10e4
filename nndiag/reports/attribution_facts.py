"""What attributions say, in numbers: which samples carried a loss, which features count most.

Shapes: S samples that were attributed, B of the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from nndiag.records import AttributedInput, AttributedSample, Attribution, Finding

MOST_OF_IT = 0.8  # of the loss of a batch: who makes up so much carries it
FEW = 1 / 8  # of the samples of a batch: so many, or fewer, stand out
UNCONVERGED = 0.05  # |delta| / |change| above which the integral is not to be trusted
REGION = 4  # an image has four regions along each side
FEW_PLACES = 1 / 2  # of the elements of a loss: so many, or fewer, are worth to be named
NO_CHANGE = 0.1  # of a loss, from a blank input to the sample
NEAR = 2  # steps between a captured batch and the finding that it belongs to


@dataclass(frozen=True, slots=True)
class Carriers:
    """How the loss of a batch is spread over its samples."""

    rows: tuple[int, ...]  # with the largest loss, until they are `MOST_OF_IT`, or of the rise
    shares: tuple[float, ...]  # of the loss of the batch, 0..1, of each of them
    total: int  # B
    nonfinite: tuple[int, ...] = ()  # samples whose loss is NaN or infinite

    @property
    def stand_out(self) -> bool:
        """Whether a few samples carry the loss, and not the batch as a whole."""
        return bool(self.nonfinite) or (self.total > 1 and len(self.rows) <= _few(self.total))


@dataclass(frozen=True, slots=True)
class Part:
    """One feature of one sample, or of all."""

    index: tuple[int, ...]  # in the input
    share: float  # of the sum of |attribution|, 0..1
    sign: int  # +1: it raises the number that was attributed
    value: float = math.nan  # what the model was given
    typical: float = math.nan  # baseline there


def carriers(attribution: Attribution) -> Carriers | None:
    """Who carried the loss; None where the loss of each sample is not known."""
    losses_B = attribution.batch
    if losses_B is None or not losses_B.size:
        return None
    bad = np.flatnonzero(~np.isfinite(losses_B))
    if bad.size:
        rows = tuple(int(row) for row in bad)
        return Carriers(rows, tuple(math.nan for _ in rows), losses_B.size, rows)
    sizes_B = np.abs(losses_B.astype(np.float64))
    total = float(sizes_B.sum())
    if not total > 0:
        return None
    order = np.argsort(-sizes_B, kind="stable")
    shares = sizes_B[order] / total
    count = min(int(np.searchsorted(np.cumsum(shares), MOST_OF_IT)) + 1, order.size)
    of_rise = _who_made_it_rise(sizes_B[order], attribution)
    count = of_rise if of_rise <= _few(order.size) else count
    return Carriers(
        tuple(int(row) for row in order[:count]),
        tuple(float(share) for share in shares[:count]),
        int(order.size),
    )


def _few(total: int) -> int:
    return max(1, int(FEW * total))


def _who_made_it_rise(falling_B: np.ndarray, attribution: Attribution) -> int:
    """How many of the largest losses it takes for the mean of the others to be as usual.

    That is the question: of a loss of 0.7 that was 0.4 before, one sample of 32 can have made all
    the rise with no more than half of the sum. Up to a fifth of the rise may be left.
    """
    before, loss = attribution.before, attribution.loss
    if not 0 < before < loss < math.inf:
        return falling_B.size
    mean = float(falling_B.mean())
    most = mean * (before + (1 - MOST_OF_IT) * (loss - before)) / loss
    others = falling_B[::-1].cumsum() / np.arange(1, falling_B.size + 1)  # of the smallest 1, 2, ..
    left = int(np.searchsorted(others, most, side="right"))  # so many are as usual together
    return max(1, falling_B.size - left)


@dataclass(frozen=True, slots=True)
class Places:
    """Where in a sample its loss is made: positions of a text, pixels of a map."""

    indices: tuple[tuple[int, ...], ...]  # with the largest loss, until `MOST_OF_IT` is reached
    losses: tuple[float, ...]
    share: float  # of the loss of the sample, of all of them together
    total: int  # elements that count


def places(attribution: Attribution, sample: int) -> Places | None:
    """The few elements that make up the loss of a sample; None where no few do."""
    if attribution.elements is None:
        return None
    elements = attribution.elements[sample].astype(np.float64)
    sizes = np.abs(np.nan_to_num(elements.reshape(-1), nan=0.0, posinf=0.0, neginf=0.0))
    counted = int(np.isfinite(elements).sum())
    total = float(sizes.sum())
    if counted < 2 or not total > 0:
        return None
    order = np.argsort(-sizes, kind="stable")
    shares = np.cumsum(sizes[order]) / total
    count = int(np.searchsorted(shares, MOST_OF_IT)) + 1
    if count > FEW_PLACES * counted:
        return None
    chosen = order[:count]
    return Places(
        tuple(tuple(int(i) for i in np.unravel_index(k, elements.shape)) for k in chosen),
        tuple(float(elements.reshape(-1)[k]) for k in chosen),
        float(shares[count - 1]),
        counted,
    )


def parts(attribution: Attribution, one: AttributedInput, sample: int, most: int) -> list[Part]:
    """The features of an input of a sample that count most, as shares of all its inputs."""
    if one.attributions is None:
        return []
    found = one.attributions[sample].astype(np.float64)
    total = _total(attribution, sample)
    return _ranked(found, most, one.values[sample], one.baseline, total)


def parts_of_all(attribution: Attribution, one: AttributedInput, most: int) -> list[Part]:
    """The same over all samples: the mean of their shares. Only where a place means the same."""
    if one.attributions is None:
        return []
    found = _finite(one.attributions.reshape(len(one.attributions), -1))
    total = np.array([[_total(attribution, sample)] for sample in range(len(found))])
    share = np.divide(np.abs(found), total, out=np.zeros_like(found), where=total > 0).mean(axis=0)
    signed = np.sign(found.sum(axis=0))
    return _ranked((share * signed).reshape(one.attributions.shape[1:]), most, total=1.0)


def share_of(attribution: Attribution, one: AttributedInput, sample: int) -> float:
    """How much of the sum of |attribution| of a sample one of its inputs has, 0..1."""
    total = _total(attribution, sample)
    if one.attributions is None or not total > 0:
        return 0.0
    return float(np.abs(_finite(one.attributions[sample])).sum()) / total


def by_share(attribution: Attribution, sample: int) -> list[AttributedInput]:
    """The inputs of a sample, those that count most first."""
    return sorted(attribution.inputs, key=lambda one: -share_of(attribution, one, sample))


def _total(attribution: Attribution, sample: int) -> float:
    given = [one.attributions for one in attribution.inputs if one.attributions is not None]
    return sum(float(np.abs(_finite(each[sample])).sum()) for each in given)


def _finite(found: np.ndarray) -> np.ndarray:
    return np.nan_to_num(found.astype(np.float64), nan=0.0, posinf=0.0, neginf=0.0)


def units(attribution: Attribution, most: int) -> list[Part]:
    """The units of a layer that count most, over all samples: channels, where it has some."""
    if attribution.units is None:
        return []
    found_SU = attribution.units.astype(np.float64)
    if found_SU.ndim > 3:
        found_SU = found_SU.sum(axis=tuple(range(2, found_SU.ndim)))
    return _ranked(np.nan_to_num(found_SU).mean(axis=0), most)


def _ranked(
    found: np.ndarray,
    most: int,
    values: np.ndarray | None = None,
    baseline: np.ndarray | None = None,
    total: float | None = None,
) -> list[Part]:
    """The largest, as shares of `total`, by default of their own sum."""
    flat = _finite(found.reshape(-1))
    total = float(np.abs(flat).sum()) if total is None else total
    if not total > 0:
        return []
    order = np.argsort(-np.abs(flat), kind="stable")[:most]
    shape = found.shape or (1,)
    return [
        Part(
            index=tuple(int(i) for i in np.unravel_index(place, shape)),
            share=float(abs(flat[place]) / total),
            sign=int(np.sign(flat[place])),
            value=_at(values, place),
            typical=_at(baseline, place),
        )
        for place in order
        if flat[place]
    ]


def _at(array: np.ndarray | None, place: int) -> float:
    return math.nan if array is None or place >= array.size else float(array.reshape(-1)[place])


@dataclass(frozen=True, slots=True)
class Region:
    """A part of an image, a quarter of it high and wide, and how much of all is in it."""

    rows: tuple[int, int]  # first and last
    columns: tuple[int, int]
    share: float  # of the sum of |attribution|, 0..1


def sizes_of_pixels(one: AttributedInput, sample: int) -> np.ndarray | None:
    """(H, W) |attribution| of an image, summed over its channels; None for other inputs."""
    if one.attributions is None or one.kind != "image":
        return None
    found = np.abs(np.nan_to_num(one.attributions[sample].astype(np.float64)))
    summed: np.ndarray = found.reshape(-1, *found.shape[-2:]).sum(axis=0)
    return summed


def region(map_HW: np.ndarray) -> Region | None:
    """Where most of it is; None of an empty map."""
    total = float(map_HW.sum())
    if not total > 0:
        return None
    height, width = (max(1, round(size / REGION)) for size in map_HW.shape)
    summed = np.pad(map_HW, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    inside = (
        summed[height:, width:]
        - summed[:-height, width:]
        - summed[height:, :-width]
        + summed[:-height, :-width]
    )
    row, column = (int(i) for i in np.unravel_index(int(inside.argmax()), inside.shape))
    share = float(inside[row, column] / total)
    return Region((row, row + height - 1), (column, column + width - 1), share)


def pooled(map_HW: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """(rows, columns) the mean of each cell of a grid, the largest being 1."""
    height, width = map_HW.shape
    rows, columns = min(rows, height), min(columns, width)
    of_row = np.arange(height) * rows // height
    of_column = np.arange(width) * columns // width
    cells = np.zeros((rows, columns))
    np.add.at(cells, (of_row[:, None], of_column[None, :]), map_HW)
    cells /= np.bincount(of_row)[:, None] * np.bincount(of_column)[None, :]
    largest = float(cells.max())
    return cells / largest if largest > 0 else cells


def is_about_the_target(attribution: Attribution, sample: AttributedSample) -> bool:
    """Whether a sample made the loss leap that a blank input would have made leap as well."""
    carried = carriers(attribution)
    if attribution.of != "loss" or carried is None or not carried.stand_out:
        return False
    if sample.row not in carried.rows:
        return False
    change = abs(sample.at_sample - sample.at_baseline)
    return change < NO_CHANGE * abs(sample.at_sample)


def is_unconverged(attribution: Attribution) -> bool:
    delta = attribution.relative_delta
    return delta is not None and not delta <= UNCONVERGED


def belongs_to(attribution: Attribution, findings: Sequence[Finding]) -> bool:
    """Whether one of the findings is about the step of this batch; the last batch is of its own."""
    if attribution.why == "end":
        return True
    for finding in findings:
        if finding.owner and attribution.owner and finding.owner != attribution.owner:
            continue
        start, end = finding.step_start, finding.step_end
        if start is not None and start - NEAR <= attribution.step <= (
            math.inf if end is None else end + NEAR
        ):
            return True
    return False
