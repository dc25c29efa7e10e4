"""Checks of the first steps: the loss against chance, where it goes, how large the updates are."""

from __future__ import annotations

import math

import numpy as np

from nndiag.curves import depth
from nndiag.detectors.loss_off_chance import Chance, chance_of
from nndiag.preflight.check import Check, Findings, State
from nndiag.records import Run, Series

ABOVE, BELOW = 2.0, 0.5  # times chance, worth a look; our healthy trainings: 0.67 to 1.6
# |update| / |weight| of a step, worth a look; our healthy trainings have 2e-4 to 0.09
SMALL, LARGE = 1e-5, 0.1
LARGE_FIRST = 1.0  # of the very first step: the initialisation is gone after it
ROSE = 1.5  # times the first loss, at the end
PEAK = 3.0  # times the first loss, on the way
STILL = 1e-6  # of the level: a loss that moves less does not move


def loss_at_start(run: Run, found: Findings) -> Check:
    """The first loss, against that of a model that knows nothing yet."""
    check, about = "first loss", ("loss-off-chance", "softmax-before-cross-entropy")
    loss = _loss(run)
    if loss is None or not math.isfinite(float(loss.values[0])):
        return found.check(check, about, State.UNSEEN, "no loss was seen at the first step")
    first = float(loss.values[0])
    chance = chance_of(run, loss)
    if not isinstance(chance, Chance):
        text = f"{first:.4g}, chance unknown: {chance}"
        return found.check(check, about, State.UNSEEN, text, first=first)
    times = first / chance.value
    text = f"{first:.4g}, chance is {chance.value:.4g} ({chance.words})"
    state = State.OK
    if times > ABOVE:
        text, state = f"{text}: {times:.2g} times that", State.LOOK
    elif times < BELOW:
        text, state = f"{text}: far below, as only a trained model starts", State.LOOK
    return found.check(check, about, state, text, first=first, chance=chance.value)


def loss_moves(run: Run, found: Findings) -> Check:
    """Whether the loss is finite in all steps, and goes somewhere but up."""
    check = "loss"
    about = ("loss-nonfinite", "loss-divergence", "loss-plateau", "loss-spike")
    loss = _blamed(run, found.among(about), found) or _loss(run)
    if loss is None:
        return found.check(check, about, State.UNSEEN, "no loss was seen: was backward() called?")
    finite = loss.values[np.isfinite(loss.values)]
    if finite.size < len(loss):
        text = f"NaN or infinite in {len(loss) - finite.size} of {len(loss)} steps"
        return found.check(check, about, State.LOOK, text, steps=len(loss))
    first, last, peak = float(finite[0]), _last_level(finite), float(finite.max())
    text = f"{first:.4g} -> {last:.4g} in {len(loss)} steps"
    state = State.OK
    if len(loss) > 2 and np.ptp(finite) <= STILL * max(abs(first), 1e-30):
        text, state = f"stays at {first:.6g} in all {len(loss)} steps", State.LOOK
    elif len(loss) >= 10 and last > ROSE * first > 0:
        text, state = f"{text}: it rises", State.LOOK
    elif peak > PEAK * first > 0:
        text, state = f"{text}, after a peak of {peak:.3g}", State.LOOK
    return found.check(check, about, state, text, first=first, last=last, steps=len(loss))


def first_updates(run: Run, found: Findings) -> Check:
    """How far a step moves the weights, as a share of their size."""
    check, about = "updates", ("update-too-small", "update-too-large")
    index = depth.Index(run, ("param_update_norm", "param_norm"))
    ratios, firsts = [], []
    for parameter in run.parameters:
        if not (parameter.requires_grad and parameter.is_weight and parameter.optimizer):
            continue
        update = index.of_parameter("param_update_norm", parameter)
        norm = index.of_parameter("param_norm", parameter)
        if update is None or norm is None or len(update) != len(norm):
            continue
        usable = (update.values >= 0) & (norm.values > 0) & np.isfinite(norm.values)
        if usable.any():
            firsts += _against_before(update.values[usable][0], norm.values[usable][0])
            ratios.append(float(np.median(update.values[usable] / norm.values[usable])))
    if not ratios:
        return found.check(check, about, State.UNSEEN, "no update of a weight matrix was recorded")
    middle, least, most = float(np.median(ratios)), min(ratios), max(ratios)
    text = f"{middle:.1g} of the weight a step"
    if len(ratios) > 1 and most > least:
        text += f" ({least:.0g} to {most:.0g} by layer)"
    opening = float(np.median(firsts)) if firsts else math.nan
    state = State.OK if SMALL <= middle <= LARGE else State.LOOK
    if opening > LARGE_FIRST:
        text, state = f"{text}; {opening:.1g} in the first", State.LOOK
    if state is State.LOOK:
        text += "; about 1e-3 is usual"
    return found.check(
        check, about, state, text, median=middle, least=least, most=most, first=opening
    )


def _against_before(update: float, after: float) -> list[float]:
    """|update| / |weight before it|; nothing where the weight is all update: it began at zero.

    The size before a step is not recorded. A first step is hardly related to the initialisation,
    so the two are taken to be at right angles.
    """
    if not 0 <= update < 0.9999 * after:
        return []
    return [update / math.sqrt(after**2 - update**2)]


def _loss(run: Run) -> Series | None:
    """The longest loss: of a GAN, that of the part that is trained most often."""
    return max((s for s in run.series_of("loss") if len(s)), key=len, default=None)


def _blamed(run: Run, names: tuple[str, ...], found: Findings) -> Series | None:
    """The loss that a finding is about, where there are several."""
    owners = {one.owner for one in found.all if one.name in names}
    return next((s for s in run.series_of("loss") if len(s) and s.owner in owners), None)


def _last_level(values: np.ndarray) -> float:
    """The median of the last three: a batch more or less does not matter."""
    return float(np.median(values[-max(1, min(3, values.size // 4)) :]))
