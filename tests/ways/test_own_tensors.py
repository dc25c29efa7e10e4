"""What a script's own classes and references see of us: nothing."""

from __future__ import annotations

import pytest

from tests.ways.watching import Watch


@pytest.mark.parametrize("every", [1, "auto"])
def test_tensors_are_asked_nothing_more_and_live_no_longer(watch: Watch, every: int | str):
    told = watch("own_tensors.py", every=every)  # compares the counts with those of a plain run

    assert told.history["asked"][-1] > 0
    losses = told.run.values("loss", owner="SGD(Sequential)")
    assert losses == pytest.approx(told.column("loss"))
    assert all(not any(alive) for _, alive in told.history["alive"])
    assert len(told.run.values("loss", owner="SGD(Sequential-1)")) == 6
