"""Training with `torch.amp.GradScaler`, on the CPU as far as torch allows."""

from __future__ import annotations

import pytest

from tests.ways.watching import Watch


@pytest.mark.parametrize("way", ["plain", "clipped", "fused"])
def test_loss_scale_and_norm_are_those_before_scaling(watch: Watch, way: str):
    told = watch("grad_scaler.py", way)

    assert told.run.values("loss") == pytest.approx(told.column("loss"), rel=1e-5)
    assert told.run.values("loss_scale") == pytest.approx(told.column("scale"))
    assert told.run.values("grad_norm") == pytest.approx(told.column("grad_norm"), rel=1e-3)


def test_a_step_that_the_scaler_skips_is_no_step_and_leaves_no_loss_behind(watch: Watch):
    told = watch("grad_scaler.py", "overflowing")

    assert sum(told.history["skipped"]) == 2
    assert len(told.run.series("loss")) == 10
    assert set(told.run.values("backward_calls")) == {1}
    assert told.run.values("loss") == pytest.approx(told.column("loss"), rel=1e-5)
    assert told.run.values("loss_scale") == pytest.approx(told.column("scale"))
    assert told.run.of_kind("nonfinite") == []  # a scaler is there to overflow
