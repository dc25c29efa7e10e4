"""Which steps are measured, and that the budget is kept."""

from __future__ import annotations

from itertools import pairwise

import pytest

from nndiag.watcher.schedule import DENSE_STEPS, FREE_S, STRIDE, Schedule


def measured(
    schedule: Schedule, steps: int, *, each_s: float, step_s: float, always_s: float = 0.0
) -> list[int]:
    """The steps that a run of this length measures, by a clock of our own.

    `each_s`: what a measurement takes, `step_s`: a step of the training, `always_s`: what we take
    of each step, measured or not.
    """
    found: list[int] = []
    cost_s = elapsed_s = 0.0
    for step in range(steps):
        if schedule.wants(step, found[-1] if found else 0, cost_s=cost_s, elapsed_s=elapsed_s):
            found.append(step)
            cost_s += each_s
            elapsed_s += each_s
        cost_s += always_s
        elapsed_s += step_s + always_s
    return found


def test_a_fixed_stride_is_kept_whatever_it_costs():
    assert measured(Schedule(7), 30, each_s=100.0, step_s=0.1) == [0, 7, 14, 21, 28]


def test_the_first_steps_are_measured_and_then_every_tenth_where_it_is_cheap():
    found = measured(Schedule("auto"), 100, each_s=1e-4, step_s=0.1)

    assert found == [*range(DENSE_STEPS), *range(STRIDE, 100, STRIDE)]


@pytest.mark.parametrize("percent", [0.5, 2.0, 10.0])
@pytest.mark.parametrize(
    "each_s, step_s, always_s",
    [(0.02, 0.2, 0.002), (0.04, 0.5, 0.003), (0.01, 0.025, 0.0001), (0.3, 3.0, 0.001)],
)
def test_the_share_of_a_long_run_is_the_one_asked_for(percent, each_s, step_s, always_s):
    steps = 20_000
    found = measured(
        Schedule("auto", percent / 100), steps, each_s=each_s, step_s=step_s, always_s=always_s
    )

    cost_s = len(found) * each_s + steps * always_s
    allowed_s = FREE_S + (steps * step_s + cost_s) * percent / 100
    # What cannot be left out: the row of each step, and some measurements of each stretch of a run.
    floor_s = steps * always_s + (DENSE_STEPS + 60) * each_s
    assert cost_s <= max(allowed_s + each_s, floor_s)
    if 1.5 * floor_s < allowed_s:  # and the budget is used, up to every tenth step
        assert cost_s >= min(0.9 * allowed_s, steps * always_s + steps / STRIDE * each_s)


def test_a_step_that_is_dear_is_measured_less_often_than_one_that_is_cheap():
    cheap, dear = (
        measured(Schedule("auto", 0.02), 5000, each_s=each_s, step_s=0.1) for each_s in (0.005, 0.1)
    )

    assert len(cheap) > 4 * len(dear)


def test_dear_measurements_keep_to_the_budget_and_reach_the_whole_run():
    steps, step_s, each_s = 20_000, 0.01, 0.05
    found = measured(Schedule("auto", 0.02), steps, each_s=each_s, step_s=step_s)

    spent, allowed = len(found) * each_s, FREE_S + 0.02 * steps * step_s
    assert spent <= 2 * allowed + DENSE_STEPS * each_s
    assert max(found) > 0.9 * steps
    assert all(later <= 1.2 * former + 50 for former, later in pairwise(found))


def test_without_a_budget_a_run_is_still_looked_at_now_and_then():
    found = measured(Schedule("auto", 0.0), 10_000, each_s=0.05, step_s=0.01)

    assert 20 <= len(found) <= 60
    assert max(found) > 8000


def test_a_measurement_can_be_forced_once():
    schedule = Schedule(1000)
    schedule.force()

    assert [schedule.wants(step, 0, cost_s=9e9, elapsed_s=1.0) for step in (3, 4)] == [True, False]


def test_updates_are_followed_more_often_than_layers_while_that_is_free():
    schedule = Schedule("auto")
    cheap = [step for step in range(30) if schedule.wants_update(step, 0, cost_s=0.0)]

    assert cheap == list(range(0, 30, 3))
    assert not schedule.wants_update(30, 29, cost_s=FREE_S + 1)
    assert not Schedule(1).wants_update(3, 0, cost_s=0.0)


def test_ranks_that_train_together_measure_the_same_steps_whatever_their_clocks_say():
    def chosen(cost_s: float, elapsed_s: float) -> list[tuple[bool, bool, bool]]:
        schedule, last = Schedule("auto"), 0
        found = []
        for step in range(5000):
            now = {"cost_s": step * cost_s, "shared": True}
            wanted = schedule.wants(step, last, elapsed_s=step * elapsed_s, **now)
            last = step if wanted else last
            update = schedule.wants_update(step, last, **now)
            norm = schedule.wants_norm(step, elapsed_s=step * elapsed_s, **now)
            found.append((wanted, update, norm))
        return found

    quick, slow = chosen(1e-5, 1.0), chosen(10.0, 0.1)

    assert quick == slow
    steps = [step for step, (wanted, _, _) in enumerate(quick) if wanted]
    assert steps[: DENSE_STEPS + 3] == [*range(DENSE_STEPS), 10, 20, 30]
    assert all(norm for _, _, norm in quick)


@pytest.mark.parametrize("percent", [0.0, 0.5, 2.0, 10.0])
def test_ranks_that_train_together_measure_each_stretch_but_ever_fewer_steps(percent):
    schedule, steps = Schedule("auto", percent / 100), 200_000
    found = [s for s in range(steps) if schedule.wants(s, 0, cost_s=0, elapsed_s=0, shared=True)]

    assert found[-1] > 0.9 * steps
    assert len(found) <= DENSE_STEPS + 200 + 300 * percent
    # A measurement that takes as long as a step keeps to the budget from some thousand steps on.
    share = sum(step < 50_000 for step in found) / 50_000
    assert share <= max(percent / 100, 0.004)


def test_one_process_that_trains_alone_goes_by_its_clock():
    schedule = Schedule("auto", 0.02)

    assert schedule.wants(2010, 2000, cost_s=0.0, elapsed_s=0.0)
    assert not schedule.wants(2010, 2000, cost_s=0.0, elapsed_s=0.0, shared=True)
