"""Whole comparisons: axes, findings, layers, settings, rankings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from nndiag.comparison import axes
from nndiag.comparison.compare import compare, compare_pair
from nndiag.comparison.facts import Change, Pair, Side
from nndiag.comparison.run_settings import course, settings_of
from nndiag.detectors import catalogue
from nndiag.diagnosis import diagnose
from nndiag.records import (
    Diagnosis,
    Evidence,
    Finding,
    Layer,
    Optimizer,
    Parameter,
    Run,
    Series,
    Severity,
    Verdict,
)
from tests import synthetic


def side(mark: str, *runs: Run) -> Side:
    return Side(mark, tuple(diagnose(run, catalogue.selected()) for run in runs))


def pair_of(a: Run, b: Run, align: str = "step") -> Pair:
    return compare_pair(side("A", a), side("B", b), align)


def with_findings(run: Run, *findings: Finding) -> Diagnosis:
    return Diagnosis(run, Verdict.WARNING, findings)


# axes


def test_epochs_are_never_taken_for_steps() -> None:
    a = synthetic.run("healthy", 1)
    b = replace(a, notes=("one point per epoch: steps are 'epoch'",))

    assert "cannot be aligned" in pair_of(a, b).not_comparable
    assert pair_of(a, b).curves == ()
    assert pair_of(a, b, "progress").curves


def test_the_note_by_which_epochs_are_known_is_the_readers(tmp_path: Path) -> None:
    from nndiag.readers.formats import csv_table

    log = tmp_path / "log.csv"
    log.write_text("epoch,loss\n" + "".join(f"{i},{1 / (i + 1)}\n" for i in range(30)))
    bare = tmp_path / "bare.csv"
    bare.write_text("loss\n" + "".join(f"{1 / (i + 1)}\n" for i in range(30)))

    assert axes.step_unit(csv_table.read(log, None)) == "epoch"
    assert axes.step_unit(csv_table.read(bare, None)) == "row"


def test_a_hundredth_in_common_is_doubtful() -> None:
    short, long = synthetic.run_of(loss=np.ones(30)), synthetic.run_of(loss=np.ones(10_000))

    assert "may not count the same" in pair_of(short, long).not_comparable


def test_no_steps_in_common() -> None:
    early, late = synthetic.run_of(loss=np.ones(30)), synthetic.run_of(loss=np.ones(30), start=90)

    assert pair_of(early, late).not_comparable == "they have no steps in common"


def test_time_needs_step_times() -> None:
    run = synthetic.run("healthy", 1)

    assert "no step times" in pair_of(run, run, "time").not_comparable


def test_what_is_left_out_is_said() -> None:
    g = np.random.default_rng(0)
    short = synthetic.run_of(loss=synthetic.healthy(g, 400)["loss"])
    long = synthetic.run_of(loss=synthetic.healthy(g, 900)["loss"])

    assert pair_of(short, long).notes == ("left out: B after step 399, to 899",)


# findings

SPIKE = Finding(
    "loss-spike", Severity.WARNING, 0.9, "rose", 400, 440, "loss",
    evidence=(Evidence("score", 10.0, 6.0),),
)  # fmt: skip
CHANGES = {
    "appeared": ((), (SPIKE,), Change.APPEARED),
    "gone": ((SPIKE,), (), Change.GONE),
    "the same at other steps": ((SPIKE,), (SPIKE.with_(step_start=7),), Change.SAME),
    "graver": ((SPIKE,), (SPIKE.with_(severity=Severity.CRITICAL),), Change.WORSE),
    "milder": ((SPIKE,), (SPIKE.with_(severity=Severity.INFO),), Change.BETTER),
    "twice as far beyond": (
        (SPIKE,),
        (SPIKE.with_(evidence=(Evidence("score", 21.0, 6.0),)),),
        Change.WORSE,
    ),
    "a little farther": (
        (SPIKE,),
        (SPIKE.with_(evidence=(Evidence("score", 13.0, 6.0),)),),
        Change.SAME,
    ),
}


@pytest.mark.parametrize(("before", "after", "expected"), CHANGES.values(), ids=CHANGES)
def test_findings(
    before: tuple[Finding, ...], after: tuple[Finding, ...], expected: Change
) -> None:
    run = synthetic.run("healthy", 1)
    pair = compare_pair(
        Side("A", (with_findings(run, *before),)), Side("B", (with_findings(run, *after),))
    )

    [change] = pair.findings
    assert change.change is expected
    assert bool(change.why) == (expected in (Change.WORSE, Change.BETTER))


def test_of_several_seeds_it_is_counted_in_how_many_a_finding_is() -> None:
    run = synthetic.run("healthy", 1)
    a = Side("A", (with_findings(run, SPIKE), with_findings(run)))
    b = Side("B", (with_findings(run, SPIKE), with_findings(run, SPIKE)))

    [change] = compare_pair(a, b).findings
    assert (change.runs_a, change.runs_b) == (1, 2)


# layers


def watched(seed: int, gain: float = 1.0, names: tuple[str, ...] = ("enc.0", "enc.1")) -> Run:
    """Two layers whose gradients and activations scatter; `gain` multiplies those of the second."""
    g = np.random.default_rng(seed)
    t = np.arange(0, 600, 3)
    series = [Series("loss", np.arange(600), synthetic.healthy(g, 600)["loss"])]
    layers, parameters = [], []
    for order, name in enumerate(names):
        factor = gain if order == 1 else 1.0
        weight = f"{name}.weight"
        layers.append(Layer(name, "Linear", order, "Net", (weight,)))
        parameters.append(Parameter(weight, (8, 8 + order), True, "Adam", "Net", name))
        for metric, where in (
            ("param_grad_norm", weight),
            ("activation_variance", name),
            ("param_norm", weight),
            ("param_update_norm", weight),
        ):
            scale = factor if metric == "param_grad_norm" else 1.0
            values = scale * np.exp(0.2 * g.standard_normal(t.size))
            series.append(Series(metric, t, values, where))
    return Run(
        "w", "nndiag", tuple(series), tuple(layers), tuple(parameters),
        (Optimizer("Adam", "Adam", 600, (("lr", 0.1), ("beta1", 0.9))),),
    )  # fmt: skip


def test_the_layer_that_differs_is_found_and_no_other() -> None:
    layers = pair_of(watched(1), watched(2, gain=3.0)).layers

    [one] = [found for found in layers.different if found.is_large]
    assert (one.layer, one.measure) == ("enc.1", "gradient norm")
    assert one.difference.value == pytest.approx(np.log(3.0), abs=one.difference.band)


def test_layers_of_two_seeds_hardly_ever_differ() -> None:
    different = [pair_of(watched(seed), watched(100 + seed)).layers.different for seed in range(12)]

    assert sum(map(len, different)) <= 1


def test_a_gradient_that_is_not_there_is_no_number() -> None:
    a = watched(1)
    series = tuple(
        replace(s, values=np.full(len(s), -1.0)) if s.metric == "param_grad_norm" else s
        for s in a.series
    )

    assert pair_of(watched(2), replace(a, series=series)).layers.compared == 6


def test_layers_that_were_renamed_added_or_removed_are_named() -> None:
    layers = pair_of(watched(1), watched(2, names=("enc.0", "body.1"))).layers
    assert layers.renamed == (("enc.1", "body.1"),)
    assert layers.added == layers.removed == ()

    more = pair_of(watched(1), watched(2, names=("enc.0", "enc.1", "enc.2"))).layers
    assert more.added == ("enc.2",)


# settings


def test_settings_that_differ_are_told_with_both_values() -> None:
    a = watched(1)
    settings = (("lr", 0.1), ("beta1", 0.95))
    b = replace(
        a,
        optimizers=(Optimizer("AdamW", "AdamW", 600, settings),),
        environment=(("torch", "2.6"),),
    )
    a = replace(a, environment=(("torch", "2.5"),))
    told = {one.name: (one.a, one.b) for one in pair_of(a, b).settings}

    assert told == {
        "optimizer": (("Adam",), ("AdamW",)),
        "optimizer beta1": (("0.9",), ("0.95",)),
        "torch": (("2.5",), ("2.6",)),
    }


def test_a_log_that_tells_no_optimizer_lacks_none() -> None:
    bare = replace(watched(1), optimizers=())

    assert [one.name for one in pair_of(watched(1), bare).settings] == []


def test_a_schedule_is_told_by_its_ends_and_its_top() -> None:
    g = np.random.default_rng(0)
    steps = np.arange(300)
    warm = synthetic.warm_up_cosine(300, 30)

    assert course(Series("lr", steps, np.full(300, 0.003))) == "0.003"
    assert course(Series("lr", steps, warm)).split(" -> ")[1] == "0.001 (step 29)"
    loss = synthetic.healthy(g, 300)["loss"]
    assert settings_of(synthetic.run_of(loss=loss))["logging interval"] == "1"


def test_schedules_with_the_same_ends_that_differ_between_are_told_apart() -> None:
    loss = synthetic.curve("healthy", 1)
    t = np.linspace(1.0, 0.1, loss.size)
    bent = t.copy()
    bent[300:500] -= 0.01
    pair = pair_of(synthetic.run_of(loss=loss, lr=t), synthetic.run_of(loss=loss, lr=bent))

    assert [one.name for one in pair.settings] == ["learning rate"]
    assert "at step 300" in pair.settings[0].a[0]


# many runs


def test_many_runs_are_ranked_by_their_level_at_the_common_end() -> None:
    g = np.random.default_rng(0)

    def run(steps: int, end: float) -> Run:
        noise = 0.02 * g.standard_normal(steps)
        return synthetic.run_of(loss=synthetic.falling(steps, end=end) + noise)

    broken = run(600, 0.1)
    values = broken.series[0].values.copy()
    values[50:] = np.nan
    broken = replace(broken, series=(replace(broken.series[0], values=values),))
    runs = [run(600, 0.5), run(900, 0.2), broken, run(600, 0.9)]
    found = compare([side(mark, one) for mark, one in zip("ABCD", runs, strict=True)])

    assert [rank.mark for rank in found.ranking] == ["B", "A", "D", "C"]
    assert np.isnan(found.ranking[-1].level)
    assert found.ranked_by == "loss"
    assert [pair.b.mark for pair in found.pairs] == ["B", "C", "D"]


def test_the_same_runs_give_the_same_comparison() -> None:
    sides = [side("A", watched(1)), side("B", watched(2))]

    assert repr(compare(sides)) == repr(compare(sides))
