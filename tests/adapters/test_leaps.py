"""Which losses leap, judged at once."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable

import pytest

from nndiag.adapters.pytorch.leaps import FEWEST, Leaps


def leaping(losses: Iterable[float]) -> list[int]:
    """The places of the losses that leap."""
    leaps, found = Leaps(), []
    for i, loss in enumerate(losses):
        if leaps.score(loss):
            found.append(i)
        leaps.add(loss)
    return found


HEALTHY: dict[str, Callable[[int, random.Random], float]] = {
    "even noise": lambda i, r: math.exp(r.gauss(0, 0.1)),
    "a falling loss": lambda i, r: (0.1 + 5 * math.exp(-i / 200)) * math.exp(r.gauss(0, 0.1)),
    "an exponential": lambda i, r: 0.1 + r.expovariate(1.0),
    "losses below zero": lambda i, r: r.gauss(-1, 0.2),
    "a constant": lambda i, r: 2.0,
    "zero": lambda i, r: 0.0,
}


@pytest.mark.parametrize("draw", HEALTHY.values(), ids=HEALTHY)
def test_healthy_losses_leap_less_than_once_in_a_thousand(draw: Callable):
    chance = random.Random(0)

    assert len(leaping(draw(i, chance) for i in range(3000))) <= 3


@pytest.mark.parametrize("draw", HEALTHY.values(), ids=HEALTHY)
def test_a_loss_that_is_far_above_leaps(draw: Callable):
    chance = random.Random(1)
    losses = [draw(i, chance) for i in range(300)]
    losses[250] = 100 * max(abs(loss) for loss in losses[200:250]) + 1

    assert 250 in leaping(losses)


def test_a_loss_that_is_not_finite_leaps_from_the_first_on():
    assert leaping([1.0, math.nan, 1.0, math.inf, -math.inf]) == [1, 3, 4]


def test_nothing_else_leaps_before_there_is_something_usual():
    assert leaping([1.0, 1000.0, *[1.0] * FEWEST, 1000.0]) == [FEWEST + 2]


def test_a_rise_of_a_fifth_of_a_loss_without_noise_is_none():
    assert leaping([*[1.0] * 30, 1.15, *[1.0] * 30, 1.3]) == [61]
