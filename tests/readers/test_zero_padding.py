"""Zeros that stand for a series that was not computed in a row."""

import pytest

from nndiag.readers.tables.table import TableBuilder
from nndiag.readers.tables.zero_padding import without_zeros


def table(**columns):
    builder = TableBuilder()
    for values in zip(*columns.values(), strict=True):
        builder.add([(name, v) for name, v in zip(columns, values, strict=True) if v is not None])
    return builder.table()


def test_where_training_and_validation_take_turns_zeros_are_gaps():
    cleaned, notes = without_zeros(
        table(
            train_loss=[3.0, 0, 2.0, 0, 1.5, 0, 1.2, 0, 1.1],
            val_loss=[0, 3.1, 0, 2.1, 0, 1.6, 0, 1.3, 0],
            val_acc=[0, 0.0, 0, 0.5, 0, 0.6, 0, 0.7, 0],
            lr=[0, 0, 0, 0, 0, 0, 0, 0, 0],
        )
    )

    assert cleaned.columns["train_loss"].rows.tolist() == [0, 2, 4, 6, 8]
    assert cleaned.columns["val_loss"].values.tolist() == [3.1, 2.1, 1.6, 1.3]
    assert cleaned.columns["val_acc"].values.tolist() == [0.0, 0.5, 0.6, 0.7]
    assert len(cleaned.columns["lr"]) == 9
    assert "'train_loss', 'val_loss', 'val_acc'" in notes[0]


def test_a_validation_loss_every_few_rows_with_zeros_between_has_gaps():
    val = [0 if i % 5 else 1.0 + i for i in range(30)]
    cleaned, _ = without_zeros(table(loss=[1.0 / (1 + i) for i in range(30)], val_loss=val))

    assert cleaned.columns["val_loss"].rows.tolist() == [0, 5, 10, 15, 20, 25]
    assert len(cleaned.columns["loss"]) == 30


QUIET = {
    "a training loss that is 0 now and then": {
        "loss": [0.5, 0, 0.2, 0, 0.3, 0, 0.1, 0, 0.2],
        "val_loss": [1.0, 0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2],
    },
    "both 0 in one row": {
        "loss": [0.5, 0, 0.2, 0.1, 0, 0.3, 0, 0.1, 0, 0, 0.2],
        "val_loss": [0, 0.9, 0, 0, 0.7, 0, 0.6, 0, 0.5, 0, 0],
    },
    "a validation loss that is 0 at no regular distance": {
        "loss": [1.0] * 12,
        "val_loss": [1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0, 1],
    },
    "a validation loss that ends at 0": {
        "loss": [1.0] * 12,
        "val_loss": [5, 4, 3, 2, 1, 0, 0, 0, 0, 0, 0, 0],
    },
    "too few to be a habit": {"loss": [1.0, 0, 2.0, 0], "val_loss": [0, 1.0, 0, 2.0]},
}


@pytest.mark.parametrize("columns", QUIET.values(), ids=QUIET)
def test_stays_as_it_is(columns):
    before = table(**columns)
    cleaned, notes = without_zeros(before)

    assert cleaned is before
    assert notes == []
