"""Validation losses that are printed batch by batch, or are on another scale."""

import pytest

from nndiag.readers.formats import csv_table, plain_text


def test_of_a_validation_that_prints_each_batch_the_mean_counts(log):
    lines = []
    for epoch in range(1, 4):
        lines += [f"epoch {epoch} step {10 * epoch + i} loss {1 / epoch}" for i in range(3)]
        lines += [f"epoch {epoch} val loss {value / epoch}" for value in (0.2, 0.4, 0.9)]
    run = plain_text.read(log("train.log", "\n".join(lines)))

    assert run.one("val_loss").values.tolist() == pytest.approx([0.5, 0.25, 0.5 / 3])
    assert "3 validations have a value for each batch: their means count" in run.notes


def test_two_values_at_one_step_are_two_validations_and_the_last_counts(log):
    text = "step,loss,val_loss\n1,0.9,0.8\n2,0.5,0.6\n3,0.4,0.7\n3,,0.5\n"
    run = csv_table.read(log("log.csv", text))

    assert run.one("val_loss").values.tolist() == [0.8, 0.6, 0.5]


SCALES = {
    "a validation that is a sum": ([2.0, 1.0, 0.5, 0.3], [2400.0, 1500.0, 900.0, 700.0], True),
    "a training that is a sum": ([2400.0, 1500.0, 900.0, 700.0], [2.0, 1.0, 0.5, 0.3], True),
    "overfitting": ([2.0, 0.1, 0.001, 0.0001], [2.1, 1.5, 2.5, 3.0], False),
    "an untrained start": ([10.9, 4.0, 3.0, 2.5], [3.5, 3.1, 2.9, 2.8], False),
}


@pytest.mark.parametrize(("loss", "val", "apart"), SCALES.values(), ids=SCALES)
def test_a_sum_beside_a_mean_is_said(log, loss, val, apart):
    rows = [f"{i},{a},{b}" for i, (a, b) in enumerate(zip(loss, val, strict=True))]
    run = csv_table.read(log("log.csv", "\n".join(["step,loss,val_loss", *rows, ""])))

    assert any("heights are not compared" in note for note in run.notes) == apart
    assert run.one("val_loss").values.tolist() == val  # nothing is converted
