"""Accumulation, several optimizers, closures, groups, and steps inside of backward."""

from __future__ import annotations

import pytest

from tests.ways.watching import Watch


def test_micro_batches_make_one_step_with_their_mean_loss(watch: Watch):
    way = watch("accumulation.py")

    assert len(way.run.series("loss")) == 6
    for metric in ("loss", "grad_norm", "backward_calls"):
        assert way.run.values(metric) == pytest.approx(way.column(metric), rel=1e-5), metric
    assert way.run.places("activation_mean") == ["0", "1", "2"]


def test_several_models_and_optimizers_stay_apart(watch: Watch):
    way = watch("several_models.py")

    assert way.run.owners == ["AdamW(Critic)", "Adam(Actor)"]
    for name, owner in (("critic", "AdamW(Critic)"), ("actor", "Adam(Actor)")):
        norm = way.column(f"{name}_grad_norm")
        assert way.run.values("loss", owner=owner) == pytest.approx(way.column(name)), name
        assert way.run.values("grad_norm", owner=owner) == pytest.approx(norm, rel=1e-5), name
    layers = {owner: way.run.series("activation_mean", place, owner) for place, owner in (
        ("net.0", "Adam(Actor)"), ("first", "AdamW(Critic)"))}  # fmt: skip
    assert [len(series) for series in layers.values()] == [6, 12]


def test_lbfgs_shows_the_loss_at_the_point_where_each_step_begins(watch: Watch):
    way = watch("closures.py", "lbfgs")

    assert max(way.history["evaluations"]) > 1
    assert way.run.owners == ["LBFGS(Sequential)"]
    assert way.run.values("loss") == pytest.approx(way.column("loss"))
    assert set(way.run.values("backward_calls")) == {1}


def test_a_closure_of_any_optimizer_shows_its_loss(watch: Watch):
    way = watch("closures.py", "adam")

    assert way.run.values("loss") == pytest.approx(way.column("loss"))
    assert len(way.run.series("param_grad_norm", "0.weight")) == 8


def test_each_parameter_group_has_its_learning_rate(watch: Watch):
    way = watch("parameter_groups.py")
    rates = list(zip(*way.history["lr"], strict=True))

    assert way.run.values("loss") == pytest.approx(way.column("loss"))
    assert way.run.values("lr") == pytest.approx(rates[0])
    for i in (1, 2):
        assert way.run.values("lr", f"group-{i}") == pytest.approx(rates[i])
    frozen = way.run.values("param_grad_norm", "0.weight")
    assert set(frozen[:6]) == {-1} and min(frozen[6:]) > 0  # thawed at step 6


def test_optimizers_that_step_inside_of_backward_are_one_optimizer(watch: Watch):
    way = watch("in_backward.py")

    assert way.run.owners == ["AdamW(Sequential)"]
    assert list(way.run.series("loss")) == list(range(6))
    assert way.run.values("loss") == pytest.approx(way.column("loss"))
    assert way.run.values("grad_norm") == pytest.approx(way.column("grad_norm"), rel=1e-5)
    assert set(way.run.values("lr")) == {1e-3}
    assert len(way.run.places("param_grad_norm")) == 22
    assert all(0 < ratio < 0.1 for ratio in way.run.values("update_ratio")[1:])
    assert len(way.run.places("dead_unit_fraction")) == 10


def test_torchs_own_optimizers_in_backward_are_seen_with_the_rate_of_each_group(watch: Watch):
    way = watch("apply_in_backward.py")

    assert way.run.owners == ["SGD(Sequential)"]
    assert way.run.values("loss") == pytest.approx(way.column("loss"))
    assert set(way.run.values("lr")) == {0.01}
    assert set(way.run.values("lr", "group-1")) == {0.05}
