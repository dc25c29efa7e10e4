"""What programs print."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nndiag.errors import UnreadableLog
from nndiag.readers.formats import plain_text
from nndiag.readers.lines import line_shapes
from nndiag.vocabulary import numbers_in
from tests.readers.test_real_runs import FOLDER as REAL_RUNS


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
    "a progress bar of a loss of the batch": (
        "".join(
            f"\rEpoch {e}/2: 48%|##| {i}/9 [00:04<00:04, 59.01img/s, loss (batch)=1.98]"
            for e in (1, 2)
            for i in (4, 8)
        ),
        [4, 8, 12, 16],
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


def test_a_loss_that_only_the_source_of_the_program_names_is_none(log):
    source = "total_loss = 0\nlm_head = 3\n"
    steps = "".join(f"step:{i}/9 val_loss:{i}.5 train_time:9ms\n" for i in range(1, 10))
    path = log("train.log", source + steps)
    run = plain_text.read(path)

    assert run.one("loss").name == "val_loss"
    assert run.one("loss").steps.tolist() == list(range(1, 10))
    assert plain_text.read(path, "total_loss").one("loss").values.tolist() == [0]


def test_a_few_validations_without_a_step_stay(log):
    steps = "".join(f"step {i} loss {i}.5\n" for i in range(1, 10))
    run = plain_text.read(log("train.log", f"{steps}val_loss 3.5\n{steps}val_loss 3.4\n"))

    assert run.one("val_loss").values.tolist() == [3.4]


def test_runs_one_after_the_other_that_count_epochs_are_told_apart(log):
    one = "".join(f"Epoch: {i}, Training Loss: {1 / i}\n" for i in range(1, 21))
    run = plain_text.read(log("log.txt", one * 12))

    assert run.one("loss").steps.tolist() == list(range(1, 21))
    assert any(note.startswith("12 runs one after the other") for note in run.notes)


def test_of_processes_that_write_by_turns_into_one_log_one_is_judged(log):
    """Two of them, the second a row behind, and both started again at an earlier step."""
    steps = [step for i in range(0, 100) for step in (i + 1, i)]
    again = [step for i in range(60, 120) for step in (i, i)]
    lines = "".join(f"step {s} loss {s}.{i % 2}\n" for i, s in enumerate(steps + again))
    run = plain_text.read(log("log.txt", lines))

    assert run.one("loss").steps.tolist() == list(range(1, 120))
    assert set(run.one("loss").values[:59] % 1) == {0}
    assert any(note.startswith("several processes wrote") for note in run.notes)
    assert any("resumed once at an earlier step" in note for note in run.notes)


def test_steps_in_any_order_are_sorted(log):
    steps = np.random.default_rng(0).permutation(400)
    run = plain_text.read(log("log.txt", "".join(f"step {s} loss {s}\n" for s in steps)))

    assert run.one("loss").values.tolist() == list(range(400))
    assert "the steps of the log are out of order: sorted" in run.notes


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


WHOLE = st.one_of(st.integers(0, 9), st.integers(0, 3000), st.integers(0, 10**12)).map(str)
REAL = st.one_of(
    st.floats(-1e6, 1e6).map("{:.4f}".format),
    st.floats(-10, 10).map(repr),
    st.floats(1e-9, 1e9).map("{:.2e}".format),
    st.sampled_from(["nan", "inf", "-inf", "1", "0", "3,000", "1,234.5", "5%"]),
)
TEMPLATES = [
    "step {w} loss {r} lr {r} grad_norm {r}",
    "2024-01-01 10:{c}:{c},{w} INFO step {w} | loss {r} | {r} ms",
    "Epoch {w}/{w}: train loss {r}, val loss {r}, accuracy: {w}/{w}",
    "[{w}, {w}] loss: {r}",
    "[{w}/{w}][{w}/{w}] Loss_D: {r} Loss_G: {r}",
    "Train Epoch: {w} [{w}/{w} ({w}%)]\tLoss: {r}",
    "{{'loss': {r}, 'step': {w}, 'top{w}': {r}}}",
    "layer{w}.{w} loss {r} {r} {r}",
    "iter {w}: loss {r}, time {r}ms, mfu {r}%",
    " {w}: {r}, {r} avg loss, {r} rate, {r} seconds, {w} images",
    "| value_loss | {r} |",
    "Loss {w}: {r}  Loss {w}: {r}",
    "train {w} valid {r} test {w}",
    "{w},{w} loss,{r} {w}-{w}-{w} {w}:{w}",
    "\x1b[{w}mloss\x1b[0m {r} cost after iteration {w}: {r}",
    "Saving checkpoint {w} to out/ckpt_{w}.pt",
    "no number, no loss",
]


@st.composite
def printed(draw):
    """A log of lines of few kinds, each some times in a row."""
    lines = []
    for template in draw(st.lists(st.sampled_from(TEMPLATES), min_size=1, max_size=4)):
        for _ in range(draw(st.integers(1, 25))):
            parts = template.replace("{c}", f"{draw(st.integers(0, 59)):02d}")
            while "{w}" in parts:
                parts = parts.replace("{w}", draw(WHOLE), 1)
            while "{r}" in parts:
                parts = parts.replace("{r}", draw(REAL), 1)
            lines.append(parts.replace("{{", "{").replace("}}", "}"))
    return "\n".join([*lines, ""])


def table_of(path, seen):
    """What the reader reads when it learns from the `seen`-th of lines that are alike."""
    built = []
    real = plain_text._without_strays
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(line_shapes, "SEEN", seen)
        patch.setattr(
            plain_text, "_without_strays", lambda t, *others: built.append(t) or real(t, *others)
        )
        try:
            notes = plain_text.read(path).notes
        except UnreadableLog as error:
            notes = error.what
    return notes, [
        (name, column.rows.tolist(), column.values.tobytes())
        for table in built
        for name, column in table.columns.items()
    ]


NEVER = 10**9


@settings(max_examples=60, deadline=None)
@given(printed())
def test_a_line_read_by_what_was_learnt_says_the_same(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("text") / "train.log"
    path.write_text(text)

    assert table_of(path, 2) == table_of(path, NEVER)


def test_lines_that_are_alike_are_learnt_and_not_parsed(log, monkeypatch):
    asked = []
    monkeypatch.setattr(
        plain_text, "numbers_in", lambda line: asked.append(line) or numbers_in(line)
    )
    text = "".join(
        f"10:{i % 60:02d} step {i} loss {100 / (i + 1):.3f} lr {1e-3 / (i + 1)}\n"
        for i in range(20_000)
    )
    run = plain_text.read(log("train.log", text))

    assert run.one("loss").values.tolist() == [round(100 / (i + 1), 3) for i in range(20_000)]
    assert run.one("lr").values.tolist() == [1e-3 / (i + 1) for i in range(20_000)]
    assert len(asked) < 3000


@pytest.mark.skipif(not REAL_RUNS.is_dir(), reason="no public runs here")
def test_real_logs_read_by_what_was_learnt_say_the_same():
    texts = [p for p in sorted(REAL_RUNS.glob("*/*")) if p.suffix in (".txt", ".log", ".out")]
    for path in texts:
        assert table_of(path, 2) == table_of(path, NEVER), path
    assert texts


def test_a_log_with_more_than_fits_is_thinned_and_keeps_its_nan(log, monkeypatch):
    monkeypatch.setattr(plain_text, "MOST_OF_LINES", 60_000)
    text = "".join(
        f"step {i} loss {'nan' if i == 50_001 else 2.5}\n"
        + (f"step {i} val loss 3.0\n" if i % 5000 == 0 else "")
        for i in range(100_000)
    )
    run = plain_text.read(log("train.log", text))

    loss = run.one("loss")
    assert 10_000 < len(loss) < 40_000
    assert np.isnan(loss.values).sum() == 1
    assert loss.steps[np.isnan(loss.values)].tolist() == [50_001]
    assert np.diff(loss.steps).max() < 20  # as dense at the start as at the end
    assert run.one("val_loss").steps.tolist() == list(range(0, 100_000, 5000))
    assert any("more than we keep" in note for note in run.notes)
