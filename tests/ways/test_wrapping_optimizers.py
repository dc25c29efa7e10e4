"""Optimizers around an optimizer: only the one within steps."""

from __future__ import annotations

import pytest

from tests.ways.watching import Watch


@pytest.mark.parametrize("every", [1, "auto"])
def test_an_optimizer_that_looks_ahead_and_comes_back_makes_no_steps_of_its_own(
    watch: Watch, every: int | str
):
    told = watch("sharpness_aware.py", every=every)

    assert told.run.owners == ["SGD(Sequential)"]
    assert told.run.values("loss") == pytest.approx(told.column("loss"))
    assert told.notes == ""
