"""Which steps are measured, and that the budget is kept."""

from __future__ import annotations

from itertools import pairwise

from nndiag.watch.schedule import DENSE_STEPS, FREE_S, STRIDE, Schedule


def measured(schedule: Schedule, steps: int, *, each_s: float, step_s: float) -> list[int]:
    """The steps that a run of this length measures, if a measurement takes `each_s` seconds."""
    found: list[int] = []
    cost_s = elapsed_s = 0.0
    for step in range(steps):
        if schedule.wants(step, found[-1] if found else 0, cost_s=cost_s, elapsed_s=elapsed_s):
            found.append(step)
            cost_s += each_s
        elapsed_s += step_s
    return found


def test_a_fixed_stride_is_kept_whatever_it_costs():
    assert measured(Schedule(7), 30, each_s=100.0, step_s=0.1) == [0, 7, 14, 21, 28]


def test_the_first_steps_are_measured_and_then_every_tenth_where_it_is_cheap():
    found = measured(Schedule("auto"), 100, each_s=1e-4, step_s=0.1)

    assert found == [*range(DENSE_STEPS), *range(STRIDE, 100, STRIDE)]


def test_dear_measurements_keep_to_the_budget_and_reach_the_whole_run():
    steps, step_s, each_s = 20_000, 0.01, 0.05
    found = measured(Schedule("auto", 0.02), steps, each_s=each_s, step_s=step_s)

    spent, allowed = len(found) * each_s, FREE_S + 0.02 * steps * step_s
    assert spent <= 2 * allowed + DENSE_STEPS * each_s
    assert max(found) > 0.9 * steps
    assert all(later <= 1.2 * former + 50 for former, later in pairwise(found))


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
