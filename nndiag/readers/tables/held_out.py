"""Validation losses: batch by batch on the way, or on another scale than the training loss."""

from __future__ import annotations

import numpy as np

from nndiag.records import Series

FEWEST_BATCHES = 3  # values at one step that are batches of a validation; two may be two of them
SCALES_APART = 30.0  # ratio; a mean over batches is not so far from the first training losses
FIRST = 5  # training losses that stand for the untrained model


def mean_of_batches(
    steps: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """(steps, values, what to say) with one value for each validation.

    `steps`, (n,) int64, in the order of the log. A program that prints its validation batch by
    batch has many values at one training step: their mean counts, as the last is one batch of it.
    """
    if steps.size < FEWEST_BATCHES:
        return steps, values, []
    order = np.argsort(steps, kind="stable")
    steps, values = steps[order], values[order]
    first = np.flatnonzero(np.diff(steps, prepend=steps[0] - 1))
    counts = np.diff(first, append=steps.size)
    if counts.max() < FEWEST_BATCHES:
        return steps, values, []
    with np.errstate(invalid="ignore", over="ignore"):
        means = np.add.reduceat(values, first) / counts
    last = values[first + counts - 1]
    is_batches = counts >= FEWEST_BATCHES
    note = f"{int(is_batches.sum())} validations have a value for each batch: their means count"
    return steps[first], np.where(is_batches, means, last), [note]


def scale_note(loss: Series, held_out: Series) -> list[str]:
    """Says so where one of two losses seems to be a sum and the other a mean.

    Nothing is converted: what a sum was taken over is not in the log. The limits are our own
    choice; a mean validation loss is near the loss of the untrained model or below it.
    """
    train = loss.values[np.isfinite(loss.values) & (loss.values > 0)]
    val = held_out.values[np.isfinite(held_out.values) & (held_out.values > 0)]
    if not train.size or not val.size:
        return []
    with np.errstate(over="ignore"):  # 1e308 / 1e-308 is infinite: larger than any limit
        above = val.min() / float(np.median(train[:FIRST]))
        below = float(np.quantile(train, 0.05)) / val.max()
    if above > SCALES_APART:
        larger, smaller, ratio = held_out.label, loss.label, above
    elif below > SCALES_APART:
        larger, smaller, ratio = loss.label, held_out.label, below
    else:
        return []
    return [
        f"{larger!r} is at least {ratio:.2g} times {smaller!r}, as a sum beside a mean would be: "
        "each is judged by its own course, their heights are not compared"
    ]
