"""The lines of the checklist, on records that were made for them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest

from nndiag.preflight import first_look, layers, start, wiring
from nndiag.preflight.check import Check, Findings, State
from nndiag.records import (
    Fact,
    Finding,
    Layer,
    Optimizer,
    Parameter,
    Run,
    Series,
    Severity,
    Verdict,
)

NOTHING = Findings(())
EMPTY = Run("x.py", "nndiag", ())


def series(metric: str, values: Sequence[float], where: str = "", owner: str = "") -> Series:
    return Series(metric, np.arange(len(values)), np.array(values, float), where, owner)


def net(
    grads: Sequence[float] = (0.1, 0.2, 0.3),
    updates: Sequence[float] = (1e-3, 1e-3, 1e-3),
    variances: Sequence[float] = (0.3, 0.2, 0.1),
    optimizer: str | None = "Adam",
) -> Run:
    """Three Linear layers with a weight each, measured in twenty steps."""
    names = [str(i) for i in range(len(grads))]
    measured = []
    for name, grad, update, variance in zip(names, grads, updates, variances, strict=True):
        weight = f"{name}.weight"
        measured += [
            series("param_grad_norm", [grad] * 20, weight),
            series("param_norm", [1.0] * 20, weight),
            series("param_update_norm", [update] * 20, weight),
            series("activation_sample_variance", [variance] * 20, name),
        ]
    return Run(
        "x.py",
        "nndiag",
        (series("loss", np.linspace(2.3, 2.0, 20).tolist()), *measured),
        layers=tuple(Layer(name, "Linear", i, "Net") for i, name in enumerate(names)),
        parameters=tuple(
            Parameter(f"{name}.weight", (8, 8), True, optimizer, "Net", name, 0.1, True)
            for name in names
        ),
        optimizers=(Optimizer("Adam", "Adam", 20),),
    )


def with_fact(run: Run, kind: str, where: str = "", **numbers: float | str | bool) -> Run:
    return replace(run, facts=(*run.facts, Fact(kind, 0, where, "", tuple(numbers.items()))))


CALM = {
    "parameters": wiring.parameters(net(), NOTHING),
    "has gradient": wiring.gradients(net(), NOTHING),
    "zero_grad": wiring.zero_grad(with_fact(net(), "zero-grad", checked=8, stale=0), NOTHING),
    "modes": wiring.modes(
        with_fact(net(), "mode", dropout=2, dropout_in_eval=0, norm=0, norm_in_eval_trained=0),
        NOTHING,
    ),
    "inputs": wiring.inputs(with_fact(net(), "input", "0", mean=0.1, std=0.9), NOTHING),
    "variance": layers.variance(net(), NOTHING),
    "gradient norm": layers.gradient_norms(net(), NOTHING),
    "updates": start.first_updates(net(), NOTHING),
    "loss": start.loss_moves(net(), NOTHING),
}


@pytest.mark.parametrize("name", CALM)
def test_what_is_as_it_should_be_is_ok(name: str) -> None:
    assert (CALM[name].name, CALM[name].state) == (name, State.OK), CALM[name]


def loss(*values: float) -> Run:
    return replace(EMPTY, series=(series("loss", values),))


ODD = {
    "a parameter that never moves": wiring.parameters(net(updates=(1e-3, 0, 1e-3)), NOTHING),
    "no optimizer at all": wiring.parameters(net(optimizer=None), NOTHING),
    "a weight without a gradient": wiring.gradients(net(grads=(0.1, -1, 0.3)), NOTHING),
    "gradients that stay": wiring.zero_grad(
        with_fact(net(), "zero-grad", checked=8, stale=8), NOTHING
    ),
    "dropout asleep": wiring.modes(
        with_fact(net(), "mode", dropout=2, dropout_in_eval=2, norm=0), NOTHING
    ),
    "pixels": wiring.inputs(with_fact(net(), "input", "0", mean=120.0, std=60.0), NOTHING),
    "a signal that fades": layers.variance(net(variances=(0.3, 1e-5, 1e-9)), NOTHING),
    "a signal that grows": layers.variance(net(variances=(1, 1e3, 1e6)), NOTHING),
    "a signal that overflows": layers.variance(net(variances=(1, 1e3, np.inf)), NOTHING),
    "a first layer that starves": layers.gradient_norms(net(grads=(1e-6, 0.2, 0.3)), NOTHING),
    "no gradient anywhere": layers.gradient_norms(net(grads=(0, 0, 0)), NOTHING),
    "tiny updates": start.first_updates(net(updates=(1e-8, 1e-8, 1e-8)), NOTHING),
    "huge updates": start.first_updates(net(updates=(0.9, 0.9, 0.9)), NOTHING),
    "a loss that stands still": start.loss_moves(loss(*[2.3] * 20), NOTHING),
    "a loss that rises": start.loss_moves(loss(*range(1, 21)), NOTHING),
    "a loss that is NaN once": start.loss_moves(loss(2.3, np.nan, 2.3), NOTHING),
}


@pytest.mark.parametrize("what", ODD)
def test_what_is_odd_is_worth_a_look_and_no_failure(what: str) -> None:
    assert ODD[what].state is State.LOOK, ODD[what]


CHECKS = (
    wiring.parameters, wiring.gradients, wiring.zero_grad, wiring.modes, wiring.inputs,
    layers.variance, layers.gradient_norms, layers.dead_units,
    start.loss_at_start, start.first_updates, start.loss_moves,
)  # fmt: skip


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_what_was_not_recorded_is_not_seen_and_says_why(
    check: Callable[[Run, Findings], Check],
) -> None:
    said: Check = check(EMPTY, NOTHING)

    assert said.state is State.UNSEEN and len(said.text) > 5


def test_a_finding_makes_its_line_wrong_also_as_a_symptom() -> None:
    symptom = Finding("unused-parameters", Severity.WARNING, 0.9, "")
    cause = Finding("dead-relu", Severity.CRITICAL, 0.9, "", symptoms=(symptom,))
    check = wiring.gradients(net(), Findings.of([cause]))

    assert (check.state, check.findings) == (State.WRONG, ("unused-parameters",))


def test_a_remark_makes_no_line_wrong() -> None:
    remark = Finding("unused-parameters", Severity.INFO, 0.9, "")

    assert wiring.gradients(net(), Findings.of([remark])).state is State.OK


def dead(values: Sequence[float], samples: Sequence[float]) -> Run:
    measured = (
        series("dead_unit_fraction", values, "1"),
        series("dead_unit_samples", samples, "1"),
    )
    return replace(EMPTY, series=measured)


def test_dead_units_are_judged_over_enough_samples() -> None:
    assert layers.dead_units(dead([0.9, 0.1], [8, 64]), NOTHING).state is State.OK
    assert layers.dead_units(dead([0.1, 0.9], [64, 64]), NOTHING).state is State.LOOK
    few = layers.dead_units(dead([0.9, 0.9], [8, 16]), NOTHING)
    assert (few.state, few.text) == (State.UNSEEN, "16 samples a unit; 64 needed")


def of_loss(first: float, **fact: float | str | bool) -> Check:
    told: dict[str, float | str | bool] = {
        "operation": "cross-entropy",
        "classes": 10,
        "is_mean": True,
        "whole_loss": True,
        **fact,
    }
    seen = replace(loss(first, 2.0), facts=(Fact("loss", 0, numbers=tuple(told.items())),))
    return start.loss_at_start(seen, NOTHING)


def test_the_first_loss_is_held_against_chance() -> None:
    assert of_loss(2.4).state is State.OK
    assert of_loss(2.4).text == "2.4, chance is 2.303 (ln 10)"
    assert of_loss(5.0).state is State.LOOK
    assert of_loss(0.5).state is State.LOOK
    assert of_loss(0.7, operation="binary-cross-entropy-with-logits", classes=0).state is State.OK


@pytest.mark.parametrize(
    "fact", [{"is_mean": False}, {"whole_loss": False}, {"operation": "mse"}, {"classes": 0}]
)
def test_without_a_chance_level_the_first_loss_is_not_judged(
    fact: dict[str, float | str | bool],
) -> None:
    assert of_loss(50.0, **fact).state is State.UNSEEN


def test_limits_of_the_project_come_before_those_of_a_first_look() -> None:
    [detector] = first_look.detectors(
        ["unused-parameters"], (), {"unused-parameters": {"steps": 3}}
    )

    assert (detector.steps, detector.recorded) == (3, first_look.FEW)  # type: ignore[attr-defined]


def test_a_run_without_a_loss_is_undecided_and_says_what_was_missing() -> None:
    run = replace(net(), series=tuple(s for s in net().series if s.metric != "loss"))
    diagnosis = first_look.look(run, first_look.detectors()).diagnosis

    assert diagnosis.verdict is Verdict.UNDECIDED
    assert any(note.startswith("undecided: loss:") for note in diagnosis.notes)


def test_three_steps_are_enough_for_a_verdict() -> None:
    short = tuple(
        replace(s, steps=s.steps[:3], values=s.values[:3], recorded=3) for s in net().series
    )
    diagnosis = first_look.look(replace(net(), series=short), first_look.detectors()).diagnosis

    assert diagnosis.verdict is Verdict.HEALTHY
