"""Models with shared and with frozen parts."""

from __future__ import annotations

import pytest

from tests.ways.watching import Watch


def test_a_tied_weight_counts_once(watch: Watch):
    way = watch("tied_weights.py")

    assert way.run.values("loss") == pytest.approx(way.column("loss"))
    assert way.run.values("grad_norm") == pytest.approx(way.column("grad_norm"), rel=1e-5)
    tied = way.run.values("param_grad_norm", "embedding.weight")
    assert tied == pytest.approx(way.column("tied_grad_norm"), rel=1e-5)
    assert "head.weight" not in way.run.places("param_grad_norm")
    assert {"embedding", "encoder.linear1", "head"} <= set(way.run.places("activation_mean"))


def test_frozen_layers_are_seen_to_run_and_to_have_no_optimizer(watch: Watch):
    way = watch("frozen_parts.py")

    assert way.run.values("loss") == pytest.approx(way.column("loss"))
    assert way.run.values("grad_norm") == pytest.approx(way.column("grad_norm"), rel=1e-5)
    assert set(way.run.places("param_grad_norm")) == {
        "first.down.weight", "first.up.weight", "second.down.weight", "second.up.weight",
        "head.weight", "head.bias",
    }  # fmt: skip
    assert {"first.base", "first.down", "first.up"} <= set(way.run.places("activation_mean"))
    [model] = way.run.process["models"]
    frozen = [p["name"] for p in model["parameters"] if not p["requires_grad"]]
    assert frozen == ["first.base.weight", "first.base.bias", "second.base.weight",
                      "second.base.bias"]  # fmt: skip
    assert {p["optimizer"] for p in model["parameters"] if p["name"] in frozen} == {None}
