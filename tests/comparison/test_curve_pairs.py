"""Curves against curves: what is called a difference, and what is not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nndiag.comparison.axes import Axis
from nndiag.comparison.curve_pairs import curve_differences, lacking
from nndiag.comparison.facts import Basis, CurveDifference, Outcome
from nndiag.comparison.levels import difference, end_window
from nndiag.records import Run, Series
from tests import synthetic

DIFFERENT = (Outcome.LOWER, Outcome.HIGHER)


def training(
    seed: int, *, steps: int = 800, every: int = 1, shift: float = 0.0, start: int = 0
) -> Run:
    """A loss that falls to 0.4 + shift, with white noise and noise with a memory."""
    g = np.random.default_rng(seed)
    t = np.arange(start, steps, every)
    level = 2.0 * np.exp(-t / 120.0) + 0.4 + shift
    memory = 0.9**every
    loss = level + 0.04 * g.standard_normal(t.size) + synthetic.wander(g, t.size, 0.03, memory)
    return Run(f"seed {seed}", "csv", (Series("loss", t, loss),))


def compared(a: Run, b: Run, align: str = "step") -> CurveDifference:
    return curve_differences([Axis(a, align)], [Axis(b, align)])[0]


def test_a_run_is_identical_to_its_copy() -> None:
    one = compared(training(1), replace(training(1), path="copy"))

    assert one.difference.outcome is Outcome.IDENTICAL
    assert one.difference.value == 0.0


def test_runs_that_differ_at_their_start_only_are_not_identical() -> None:
    a = training(1)
    values = a.series[0].values.copy()
    values[:100] += 1.0
    one = compared(a, Run("b", "csv", (replace(a.series[0], values=values),)))

    assert one.difference.outcome is Outcome.SAME
    assert one.way[-1].difference.outcome is Outcome.IDENTICAL


def test_another_seed_is_hardly_ever_called_a_difference() -> None:
    """One in a hundred is promised; 200 pairs, so 6 would be bad luck of one in 60."""
    axes = [Axis(training(seed, steps=500), "step") for seed in range(400)]
    courses = [axis.course(axis.run.series[0]) for axis in axes]
    window = end_window(courses, 0, 499)
    outcomes = [
        difference([a], [b], window, 0.01).outcome
        for a, b in zip(courses[::2], courses[1::2], strict=True)
    ]

    assert sum(outcome in DIFFERENT for outcome in outcomes) <= 5
    assert sum(outcome is Outcome.SAME for outcome in outcomes) >= 190


def test_another_seed_at_another_interval_is_hardly_ever_called_a_difference() -> None:
    alarms = [
        compared(training(seed), training(1000 + seed, steps=2400, every=20)).difference.outcome
        for seed in range(30)
    ]

    assert sum(outcome in DIFFERENT for outcome in alarms) <= 2


def test_a_real_difference_is_found_with_its_size() -> None:
    found = [compared(training(seed), training(50 + seed, shift=-0.2)) for seed in range(5)]

    assert all(one.difference.outcome is Outcome.LOWER for one in found)
    assert all(abs(one.difference.value + 0.2) <= one.difference.band for one in found)
    assert all(one.since is not None and one.since < 500 for one in found)


def test_the_level_of_the_worse_is_reached_earlier_by_the_better() -> None:
    one = compared(training(1), training(2, shift=-0.2))

    assert one.reached_a is not None and one.reached_b is not None
    assert one.reached_b.earliest <= one.reached_b.at <= one.reached_b.latest
    assert one.reached_b.at < 400 < one.reached_a.at


def test_different_lengths_are_compared_where_both_went() -> None:
    one = compared(training(1, steps=400), training(2, steps=4000))

    assert (one.start, one.end) == (0.0, 399.0)
    assert one.difference.outcome is Outcome.SAME


@pytest.mark.parametrize("every", [1, 7, 25])
def test_a_falling_curve_logged_less_often_is_the_same_curve(every: int) -> None:
    """Index by index, or by means of unlike places, these would be far apart."""
    t, coarse = np.arange(1000), np.arange(3, 1000, every)
    g = np.random.default_rng(0)
    a = Run("a", "csv", (Series("loss", t, 5 - t / 250 + 0.01 * g.standard_normal(t.size)),))
    noise = 0.01 * g.standard_normal(coarse.size)
    b = Run("b", "csv", (Series("loss", coarse, 5 - coarse / 250 + noise),))

    assert compared(a, b).difference.outcome is Outcome.SAME


def test_a_resumed_run_is_compared_by_its_steps() -> None:
    a = training(1)
    loss = training(2).series[0]
    kept = (loss.steps < 300) | (loss.steps >= 360)  # lost in between
    b = Run("b", "csv", (Series("loss", loss.steps[kept], loss.values[kept]),))

    assert compared(a, b).difference.outcome is Outcome.SAME


def test_a_run_that_broke_is_compared_until_then() -> None:
    broken = training(2).series[0].values.copy()
    broken[500:] = np.nan
    b = Run("b", "csv", (replace(training(2).series[0], values=broken),))
    one = compared(training(1), b)

    assert one.end == 499.0
    assert one.notes == ("B has no finite value from 500 on",)


def test_nothing_finite_cannot_be_told() -> None:
    never = Run("b", "csv", (Series("loss", np.arange(50), np.full(50, np.nan)),))
    one = compared(training(1), never)

    assert one.difference.outcome is Outcome.UNDECIDED
    assert "no finite value" in one.difference.reason


def test_few_values_cannot_be_told() -> None:
    short = Run("b", "csv", (Series("loss", np.arange(0, 800, 200), np.arange(4.0)),))
    one = compared(training(1), short)

    assert one.difference.outcome is Outcome.UNDECIDED
    assert "needed" in one.difference.reason


def test_a_spike_at_the_end_is_no_other_level() -> None:
    spiky = training(2).series[0].values.copy()
    spiky[780:790] += 20.0
    b = Run("b", "csv", (replace(training(2).series[0], values=spiky),))

    assert compared(training(1), b).difference.outcome is Outcome.SAME


def test_huge_values_do_no_harm() -> None:
    values = np.where(np.arange(800) % 2, 1e200, 1e290)
    b = Run("b", "csv", (Series("loss", np.arange(800), values),))

    with np.errstate(all="ignore"):
        assert compared(training(1), b) is not None


def test_gradient_norms_are_compared_as_ratios() -> None:
    a, b = synthetic.run("healthy", 1), synthetic.run("healthy", 2)
    doubled = tuple(
        replace(s, values=2.0 * s.values) if s.metric == "grad_norm" else s for s in b.series
    )
    differences = curve_differences([Axis(a, "step")], [Axis(replace(b, series=doubled), "step")])
    one = next(d for d in differences if d.metric == "grad_norm")

    assert one.is_ratio and one.difference.outcome is Outcome.HIGHER
    assert one.difference.value == pytest.approx(np.log(2.0), abs=one.difference.band)


def test_the_loss_comes_first_and_settings_are_no_curves() -> None:
    run = synthetic.run("healthy", 1)
    found = curve_differences([Axis(run, "step")], [Axis(synthetic.run("healthy", 2), "step")])

    assert [one.metric for one in found] == ["loss", "grad_norm"]


def test_a_series_of_one_side_only_is_named() -> None:
    a = synthetic.run("healthy", 1)
    b = Run("b", "csv", tuple(s for s in a.series if s.metric == "loss"))

    assert lacking([Axis(a, "step")], [Axis(b, "step")]) == ("grad_norm",)
    assert lacking([Axis(b, "step")], [Axis(a, "step")]) == ()


def seeds(first: int, count: int, shift: float = 0.0, scatter: float = 0.0) -> list[Axis]:
    g = np.random.default_rng(first)
    return [
        Axis(training(first + i, shift=shift + scatter * g.standard_normal()), "step")
        for i in range(count)
    ]


def test_several_seeds_are_judged_by_what_they_differ_among_themselves() -> None:
    found = curve_differences(seeds(0, 4), seeds(100, 4, shift=-0.3))[0]

    assert found.difference.basis is Basis.SEEDS
    assert found.difference.outcome is Outcome.LOWER


def test_a_difference_that_seeds_make_is_none() -> None:
    """Single runs would be told apart; the seeds say that it means nothing."""
    apart = [
        curve_differences(seeds(10 * i, 3, scatter=0.3), seeds(5000 + 10 * i, 3, scatter=0.3))[0]
        for i in range(10)
    ]

    assert sum(one.difference.outcome in DIFFERENT for one in apart) <= 1


def test_one_run_against_several_seeds_is_judged_by_their_scatter() -> None:
    many = seeds(0, 5, scatter=0.05)
    inside = curve_differences(many, seeds(900, 1))[0]
    outside = curve_differences(many, seeds(900, 1, shift=1.5))[0]

    assert inside.difference.outcome is Outcome.SAME
    assert outside.difference.outcome is Outcome.HIGHER


def test_progress_lays_runs_of_different_length_over_each_other() -> None:
    t = np.arange(1000)
    g = np.random.default_rng(3)
    short = 2 - 1.5 * np.linspace(0, 1, 500) + 0.01 * g.standard_normal(500)
    long = 2 - 1.5 * np.linspace(0, 1, 1000) + 0.01 * g.standard_normal(1000)
    a = Run("a", "csv", (Series("loss", t[:500], short),))
    b = Run("b", "csv", (Series("loss", t, long),))

    assert compared(a, b).difference.outcome is Outcome.HIGHER
    assert compared(a, b, "progress").difference.outcome is Outcome.SAME


def test_time_lays_runs_of_different_speed_over_each_other() -> None:
    def run(step_s: float, seed: int) -> Run:
        base = training(seed)
        return replace(
            base, series=(*base.series, Series("step_time_s", np.arange(800), np.full(800, step_s)))
        )

    one = compared(run(0.1, 1), run(0.2, 2), "time")

    assert one.end == pytest.approx(79.9, abs=0.1)
    assert one.way[2].difference.outcome is Outcome.HIGHER  # B has made half the steps of A
