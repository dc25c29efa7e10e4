"""Which leaps are kept: the highest of a run, the beginning of a climb, and not each noise."""

from __future__ import annotations

import math

import numpy as np

from nndiag.adapters.pytorch.leaps import Leaps
from nndiag.adapters.pytorch.shortlist import (
    MOST,
    MOST_IN_ALL,
    MOST_WRITES,
    REST,
    Room,
    Shortlist,
)


class Run:
    """A shortlist fed with scores; 0 is a usual loss."""

    def __init__(self, room: Room | None = None) -> None:
        self.list = Shortlist(room)
        self.kept: list[int] = []
        self.writes = 0

    def see(self, step: int, score: float) -> None:
        if not score:
            self.list.saw_usual()
        elif self.list.wants(step, score):
            self.writes += 1
            replaced = self.list.take(str(step), step, score)
            self.kept = [s for s in self.kept if str(s) != replaced] + [step]


def test_a_higher_leap_soon_after_a_small_one_is_kept() -> None:
    run = Run()
    for step, score in ((314, 4.5), (315, 0), (320, 30.0)):
        run.see(step, score)

    assert run.kept == [314, 320]


def test_noise_soon_after_a_leap_is_not() -> None:
    run = Run()
    for step in range(100, 100 + REST):
        run.see(step, 4.5 if step % 2 else 0)

    assert run.kept == [101]


def test_of_a_climb_the_beginning_is_kept() -> None:
    run = Run()
    for step in range(100, 140):
        run.see(step, 4.0 * 1.5 ** (step - 100))

    assert run.kept == [100]


def test_of_many_leaps_the_highest_stay() -> None:
    run = Run()
    for i, score in enumerate([5, 9, 7, 20, 6, 50]):
        run.see(1000 * i, score)
        run.see(1000 * i + 1, 0)

    assert len(run.kept) == MOST
    assert run.kept == [1000, 3000, 5000]  # 9, 20 and 50


def test_of_losses_that_are_not_finite_the_first_is_kept_at_any_time() -> None:
    run = Run()
    for step, score in ((10, 5.0), (11, 0), (12, math.inf), (13, 0), (14, math.inf)):
        run.see(step, score)

    assert run.kept == [10, 12]


def test_a_noisy_run_of_weeks_leaves_room_for_its_spike() -> None:
    """Heavy-tailed losses leap by themselves; that must not use up what a real spike needs."""
    rng = np.random.default_rng(0)
    losses = np.exp(0.1 * rng.standard_t(3, size=100_000))
    losses[90_000] = 1e5  # the noise alone goes up to some hundred
    leaps, run = Leaps(), Run()
    for step, loss in enumerate(losses):
        run.see(step, leaps.score(float(loss)))
        leaps.add(float(loss))

    assert 90_000 in run.kept
    assert run.writes < MOST_WRITES / 2


def test_models_share_the_room_of_a_run() -> None:
    room = Room()
    kept = 0
    for _ in range(MOST_IN_ALL):
        run = Run(room)
        for i, score in enumerate([5, 9, 7, 20, math.inf]):
            run.see(1000 * i, score)
            run.see(1000 * i + 1, 0)
        kept += len(run.kept)

    assert kept == MOST_IN_ALL
