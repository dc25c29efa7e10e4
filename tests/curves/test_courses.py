"""Which losses of a run are judged."""

from __future__ import annotations

import numpy as np

from nndiag.curves.courses import courses
from nndiag.records import Run, Series
from tests import synthetic


def run_with(*series: Series) -> Run:
    return Run("r", "nndiag", series)


def loss(owner: str = "", values: object = (3.0, 2.0, 1.0), metric: str = "loss") -> Series:
    column = np.asarray(values, dtype=float)
    return Series(metric, np.arange(column.size), column, owner=owner)


def test_a_loss_comes_with_its_learning_rate_and_gradient():
    [course] = courses(synthetic.run("warm-up bump"))

    assert course.schedule.warmup_end is not None
    assert course.gradient is not None
    assert not course.rival and course.owner == ""


def test_two_owners_with_their_own_losses_are_rivals():
    first, second = courses(synthetic.gan())

    assert first.rival and second.rival
    assert (first.owner, second.owner) == ("Adam-1", "Adam-2")


def test_two_optimizers_of_one_loss_are_no_rivals():
    [course] = courses(run_with(loss("Muon"), loss("AdamW")))

    assert not course.rival


def test_the_longer_of_two_losses_of_one_owner_is_taken():
    [course] = courses(run_with(loss(values=[1.0]), loss()))

    assert len(course.curve) == 3


def test_a_validation_loss_stands_in_where_the_training_loss_ends_early():
    val = Series("val_loss", np.arange(0, 10_000, 100), np.ones(100))
    [course] = courses(run_with(loss(values=np.ones(100)), val))

    assert course.validation and course.loss is val


def test_a_run_without_losses_has_no_course():
    assert courses(run_with()) == ()
    assert courses(run_with(loss(values=[]))) == ()
