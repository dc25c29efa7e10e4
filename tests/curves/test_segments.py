"""Where a series changes for a reason that is no fault."""

from __future__ import annotations

import numpy as np

from nndiag.curves.segments import (
    Schedule,
    epoch_edges,
    is_fragment,
    regularly_spaced,
    schedule_of,
    seams,
)
from nndiag.records import Series
from tests import synthetic


def lr(values: object) -> Series:
    column = np.asarray(values, dtype=float)
    return Series("lr", np.arange(column.size), column)


def test_no_learning_rate_means_nothing_is_known_and_nothing_excused():
    assert schedule_of(None) == Schedule()
    assert not schedule_of(lr([np.nan, np.nan])).known
    assert not schedule_of(None).warming(0)


def test_a_warm_up_ends_at_the_first_peak():
    schedule = schedule_of(lr(synthetic.warm_up_cosine(500, warm=50)))

    assert 45 <= schedule.warmup_end <= 50
    assert schedule.warming(10) and not schedule.warming(60)
    assert schedule.restarts == ()


def test_a_constant_rate_has_no_warm_up_and_no_end():
    schedule = schedule_of(lr(np.full(100, 0.1)))

    assert schedule.warmup_end is None and schedule.finished is None


def test_a_restart_is_a_jump_that_stays():
    cosine = synthetic.run("warm restarts").one("lr")

    assert schedule_of(cosine).restarts == (200, 400, 600)


def test_a_bump_of_two_steps_is_no_restart():
    rates = np.full(400, 0.1)
    rates[200:202] = 3.0

    schedule = schedule_of(lr(rates))

    assert schedule.restarts == () and schedule.warmup_end is None
    assert schedule.peak == 0.1


def test_a_rate_raised_late_is_no_warm_up():
    rates = np.where(np.arange(400) < 200, 0.1, 1.0)

    assert schedule_of(lr(rates)).warmup_end is None
    assert schedule_of(lr(rates)).restarts == (200,)


def test_a_schedule_is_finished_once_the_rate_stays_below_a_hundredth():
    rates = np.concatenate([np.full(30, 1.0), np.full(70, 0.005)])

    assert schedule_of(lr(rates)).finished == 30
    assert schedule_of(lr(np.concatenate([rates, [1.0]]))).finished is None


def test_a_seam_is_a_gap_and_a_change_of_the_logging_interval_is_none():
    resumed = np.concatenate([np.arange(50), 5000 + np.arange(50)])
    sparser = np.concatenate([np.arange(100), 100 + 500 * np.arange(1, 60)])

    assert seams(resumed).tolist() == [50]
    assert seams(sparser).size == 0


def test_a_log_that_begins_late_is_a_fragment():
    assert is_fragment(np.arange(140_000, 190_000, 50))
    assert is_fragment(np.arange(15_000, 45_000, 50))  # resumed at a third
    assert not is_fragment(np.arange(1, 500))
    assert not is_fragment(np.arange(1000, 9000, 1000))  # logged every 1000 steps


def test_epochs_are_cut_where_the_whole_number_grows():
    epoch = Series("epoch", np.arange(100), np.arange(100) / 25.0)

    assert epoch_edges(epoch).tolist() == [25, 50, 75]
    assert epoch_edges(None).size == 0


def test_regular_events_are_told_from_accidents():
    assert regularly_spaced(np.array([94, 188, 282, 470, 564]))
    assert not regularly_spaced(np.array([40, 300, 370, 900, 1000]))
    assert not regularly_spaced(np.array([100, 200, 300]))
