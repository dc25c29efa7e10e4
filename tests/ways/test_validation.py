"""Validation does not enter what is recorded of training, however a script goes about it."""

from __future__ import annotations

import pytest

from tests.ways.watching import Watch

WAYS = ["under no_grad", "in inference_mode", "in eval mode", "in train mode"]


@pytest.mark.parametrize("way", WAYS)
def test_the_statistics_of_layers_are_those_of_training(watch: Watch, way: str):
    told = watch("validation.py", way)

    assert told.run.values("loss") == pytest.approx(told.column("loss"))
    measured = told.run.values("activation_abs_max", "0")
    assert measured == pytest.approx(told.column("abs_max"), rel=1e-5)
    assert len(told.run.series("activation_mean", "2")) == 12
    values = [e["value"] for e in told.run.of_kind("metric") if e["name"] == "val_loss"]
    assert values == pytest.approx(told.column("val_loss"), rel=1e-4)
