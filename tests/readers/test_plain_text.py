"""What programs print."""

import pytest

from nndiag.errors import UnreadableLog
from nndiag.readers import plain_text


def steps_of(path, metric="loss"):
    return plain_text.read(path).one(metric).steps.tolist()


PRINTED = {
    "nanoGPT": (
        "step 0: train loss 4.2, val loss 4.3\niter 0: loss 4.2, time 99ms\n"
        "iter 10: loss 3.9, time 9ms\nstep 20: train loss 3.2, val loss 3.4\n"
        "iter 20: loss 3.1, time 9ms\n",
        [0, 10, 20],
    ),
    "a speedrun": ("s:0 tel:10.9\ns:0 trl:10.9 lr:0.1\ns:1 trl:10.8 lr:0.1\ns:2 tel:3\n", [0, 1]),
    "epochs and batches in brackets": (
        "".join(f"[{e}, {i:5d}] loss: 2.1\n" for e in (1, 2) for i in (2000, 4000)),
        [2000, 4000, 6000, 8000],
    ),
    "MNIST": (
        "".join(f"Train Epoch: {e} [{i}/60000 (1%)]\tLoss: 0.5\n" for e in (1, 2) for i in (0, 640))
        + "\nTest set: Average loss: 0.05, Accuracy: 9834/10000 (98%)\n",
        [0, 640, 1280, 1920],
    ),
    "a progress bar": (
        "".join(
            f"\rEpoch {e}: 4%|#| {i}/9 [00:01<00:01, loss=0.5]" for e in (0, 1) for i in (1, 9)
        ),
        [1, 9, 10, 18],
    ),
    "Keras": (
        "".join(f"Epoch {e}/2\n\r5/9 [=>] - loss: 0.9\r9/9 [==] - loss: 0.5\n" for e in (1, 2)),
        [5, 9, 14, 18],
    ),
    "dictionaries of the Trainer": (
        "{'loss': 0.5, 'epoch': 0.1}\n{'loss': 0.4, 'epoch': 0.2}\n"
        "{'eval_loss': 1, 'epoch': 0.2}\n",
        [0, 1],
    ),
    "one line an epoch": ("epoch 1 train 0.52 valid 0.31\nepoch 2 train 0.5 valid 0.3\n", [1, 2]),
    "a clock before it": (
        "2024-01-01 10:00:01,123 INFO step 5 loss 1.5\n"
        "2024-01-01 10:00:02,123 INFO step 6 loss 1\n",
        [5, 6],
    ),
}


@pytest.mark.parametrize(("text", "steps"), PRINTED.values(), ids=PRINTED)
def test_the_steps_are_right_in_the_output_of(text, steps, log):
    path = log("train.log", text)

    assert plain_text.recognises(path, path.read_bytes())
    assert steps_of(path) == steps


def test_the_source_of_the_program_in_its_log_is_no_measurement(log):
    source = "loss = 0.5 * x\nprint(f'step:{step} loss:{loss}')\nval_loss = 0.0\n"
    steps = "".join(f"step:{i}/9 loss:{i}.5\n" for i in range(1, 10))
    run = plain_text.read(log("train.log", source + steps))

    assert run.one("loss").values.tolist() == [i + 0.5 for i in range(1, 10)]
    assert any("without a step left out" in note for note in run.notes)


def test_the_rest_of_a_line_is_kept_under_its_own_name(log):
    path = log("train.log", "step 1 loss 2 ppl 7.4\nstep 2 loss 1 ppl 2.7\n")

    assert [s.name for s in plain_text.read(path).series_of("other")] == ["ppl"]


def test_two_networks_without_the_word_loss_are_two_losses(log):
    text = "".join(f"(epoch: 1, iters: {i}, time: 0.2) D_A: 0.2 G_A: 0.5 \n" for i in (100, 200))

    assert [s.name for s in plain_text.read(log("loss_log.txt", text)).series_of("loss")] == [
        "D_A",
        "G_A",
    ]


def test_a_log_that_begins_with_zero_bytes_is_read(log):
    assert steps_of(log("train.log", b"\0" * 9000 + b"step 1 loss 3\nstep 2 loss 2\n" * 900)) == [
        1,
        2,
    ]


@pytest.mark.parametrize("text", ["", "hello\n" * 100, "step 1 of 3\n", "batch_size: 32\n"])
def test_a_text_without_a_loss_is_one_clear_error(text, log):
    with pytest.raises(UnreadableLog):
        plain_text.read(log("train.log", text))
