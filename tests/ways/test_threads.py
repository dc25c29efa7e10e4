"""Training in threads: one after the other they are all observed, at the same time one of them."""

from __future__ import annotations

import numpy as np
import pytest

from tests.ways.watching import Watch


def test_threads_that_train_one_after_the_other_are_all_observed(watch: Watch):
    told = watch("threads.py", "in_turn")

    assert told.run.owners == ["SGD(Sequential)", "SGD(Sequential-1)"]
    for owner, losses in zip(told.run.owners, told.history["losses"], strict=True):
        assert told.run.values("loss", owner=owner) == pytest.approx(losses)
    assert told.notes == ""


@pytest.mark.parametrize("every", [1, "auto"])
def test_of_threads_that_train_at_the_same_time_one_is_observed(watch: Watch, every: int | str):
    told = watch("threads.py", "at_once", every=every)

    losses = max((told.run.values("loss", owner=owner) for owner in told.run.owners), key=len)
    assert len(losses) >= 20  # of 24: at first each of them may be chosen once
    # None is another's, or a mean of both. The first may be: it was chosen in the middle of a step.
    assert any(np.isin(losses[1:], own).all() for own in told.history["losses"])
    assert "several threads train at the same time" in told.notes


def test_training_that_moves_to_a_thread_is_followed_there(watch: Watch):
    told = watch("threads.py", "moved")

    before, after = told.history["losses"]
    assert told.run.values("loss", owner="SGD(Sequential)") == pytest.approx(before)
    assert told.run.values("loss", owner="SGD(Sequential-1)") == pytest.approx(after)
    assert told.notes == ""
