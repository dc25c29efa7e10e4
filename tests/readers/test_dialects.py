"""The logs of single frameworks: told by a sure sign, and read better than by the general readers.

The fixtures are made by fixtures/make_dialects.py, by the real library where it installs.
"""

import math
from pathlib import Path

import numpy as np
import pytest

from nndiag.errors import UnreadableLog
from nndiag.readers.formats import (
    csv_table,
    detectron2,
    fairseq,
    json_lines,
    keras_csv,
    keras_history,
    lightning_csv,
    llama_factory,
    llm_c,
    megatron,
    mmengine,
    modded_nanogpt,
    nanogpt,
    plain_text,
    ultralytics,
)
from nndiag.readers.lines.text_lines import head_of

FIXTURES = Path(__file__).parent / "fixtures"
DIALECTS = (
    llama_factory, mmengine, detectron2, keras_history, megatron, lightning_csv, keras_csv,
    ultralytics, nanogpt, llm_c, modded_nanogpt, fairseq,
)  # fmt: skip

# file: (its reader, loss, values of it, first and last step, validation loss, values of it)
LOGS = {
    "nanogpt/train.out": (nanogpt, "loss", 11, 0, 100, "val loss", 5),
    "llm_c/printed.log": (llm_c, "loss", 60, 1, 60, "val loss", 3),
    "llm_c/main.log": (llm_c, "trl", 60, 0, 59, "tel", 3),
    "modded_nanogpt/two_seeds.txt": (modded_nanogpt, "train_loss", 20, 1, 60, "val_loss", 4),
    "megatron/train.log": (megatron, "lm loss", 59, 2, 60, "validation lm loss", 3),
    "megatron/golden_values.json": (megatron, "lm loss", 12, 1, 56, None, 0),
    "fairseq/simple.log": (fairseq, "loss", 12, 5, 60, "valid_loss", 2),
    "fairseq/old.log": (fairseq, "loss", 12, 5, 60, "valid_loss", 2),
    "fairseq/json.log": (fairseq, "loss", 12, 5, 60, "valid_loss", 2),
    "detectron2/log.txt": (detectron2, "total_loss", 20, 19, 399, None, 0),
    "detectron2/metrics.json": (detectron2, "total_loss", 20, 19, 399, None, 0),
    "mmengine/mmcv.log": (mmengine, "loss", 14, 10, 145, None, 0),
    "mmengine/20210601_120000.log.json": (mmengine, "loss", 14, 10, 140, None, 0),
    "mmengine/mmengine_cpu.log": (mmengine, "loss", 12, 10, 120, None, 0),
    "mmengine/vis_data/scalars.json": (mmengine, "loss", 12, 10, 120, None, 0),
    "ultralytics/results.csv": (
        ultralytics, "train/box_loss + train/cls_loss + train/dfl_loss", 12, 1, 12,
        "val/box_loss + val/cls_loss + val/dfl_loss", 12,
    ),
    "ultralytics/printed.log": (
        ultralytics, "train/box_loss + train/cls_loss + train/dfl_loss", 12, 1, 12, None, 0,
    ),
    "llama_factory/trainer_log.jsonl": (llama_factory, "loss", 12, 5, 60, "eval_loss", 3),
    "lightning/version_0/metrics.csv": (
        lightning_csv, "train_loss_step", 12, 4, 59, "val_loss", 4,
    ),
    "keras/training.csv": (keras_csv, "loss", 6, 0, 5, "val_loss", 6),
    "keras/semicolons.csv": (keras_csv, "loss", 6, 0, 5, "val_loss", 6),
    "keras/no_validation.csv": (keras_csv, "loss", 6, 0, 5, None, 0),
    "keras/trained_on.csv": (keras_csv, "loss", 12, 0, 11, "val_loss", 12),
    "keras/one_epoch_a_call.csv": (keras_csv, "loss", 6, 0, 5, "val_loss", 6),
    "keras/history.json": (keras_history, "loss", 6, 0, 5, "val_loss", 6),
}  # fmt: skip


@pytest.mark.parametrize(("file", "expected"), LOGS.items(), ids=LOGS)
def test_a_log_is_told_by_its_own_reader_alone_and_read_whole(file, expected):
    reader, loss, values, first, last, held_out, validations = expected
    path = FIXTURES / file
    head = head_of(path)

    assert [one.name for one in DIALECTS if one.recognises(path, head)] == [reader.name]

    run = reader.read(path, None)
    [judged] = run.series_of("loss")
    found = (judged.name, len(judged), int(judged.steps[0]), int(judged.steps[-1]))
    assert run.format == reader.name
    assert found == (loss, values, first, last)
    val = run.one("val_loss")
    assert (val.name if val else None, len(val) if val else 0) == (held_out, validations)


ORDINARY = {
    "a table by hand": ("log.csv", "epoch,loss,accuracy,val_loss\n0,0.5,0.1,0.6\n1,0.4,0.2,0.5\n"),
    "epochs from a script": ("a.csv", "epoch,train_loss,val_loss\n1,0.5,0.6\n2,0.4,0.5\n"),
    "a metrics.csv of another tool": ("metrics.csv", "epoch,loss,step\n0,0.5,1\n0,0.4,2\n"),
    "parts of a loss": ("results.csv", "epoch,train/box_loss,train/cls_loss\n0,1,2\n1,1,2\n"),
    "JSON lines with steps": ("log.jsonl", '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.4}\n'),
    "JSON lines with iterations": (
        "metrics.json", '{"iteration": 1, "loss": 0.5}\n{"iteration": 2, "loss": 0.4}\n',
    ),
    "JSON lines with epoch and iter": ("log.json", '{"epoch": 1, "iter": 5, "loss": 0.5}\n' * 3),
    "an object of lists": ("log.json", '{"loss": [0.5, 0.4], "accuracy": [0.1, 0.2]}'),
    "a configuration beside lists": (
        "log.json", '{"lr": 0.1, "loss": [0.5, 0.4], "val_loss": [0.1, 0.2]}',
    ),
    "a printed log": ("train.log", "step 1 loss 0.5\nstep 2 loss 0.4\nstep 3 loss 0.3\n"),
    "Epoch in brackets": ("train.log", "Epoch [1][10/75] loss: 0.5\nEpoch [1][20/75] loss: 0.4\n"),
    "iter and two spaces": ("train.log", "iter: 19  loss: 0.5\niter: 39  loss: 0.4\n"),
    "epoch and a bar": ("train.log", "| epoch 1 | loss 2.3 |\n| epoch 2 | loss 2.2 |\n"),
    "iterations with a total": ("train.log", "iteration 100/ 500 | loss: 0.5 | lr: 0.1\n" * 3),
    "train and val loss": ("train.log", "step 10: train loss 0.5, val loss 0.6, lr 0.1\n" * 3),
}  # fmt: skip


@pytest.mark.parametrize(("name", "content"), ORDINARY.values(), ids=ORDINARY)
def test_an_ordinary_log_is_left_to_the_general_readers(log, name, content):
    path = log(name, content)
    head = head_of(path)

    assert [one.name for one in DIALECTS if one.recognises(path, head)] == []
    assert any(one.recognises(path, head) for one in (csv_table, json_lines, plain_text))


@pytest.mark.parametrize("reader", DIALECTS, ids=lambda reader: reader.name)
@pytest.mark.parametrize(
    "content",
    ["", "\n", "nothing of the kind\n" * 3, "{", "[]", '{"a": 1}', "a,b\n", "\0" * 99, "\xff\xfe"],
    ids=repr,
)
def test_a_reader_that_is_forced_onto_anything_gives_one_error(reader, log, content):
    with pytest.raises(UnreadableLog) as caught:
        reader.read(log("log.txt", content), None)

    assert caught.value.what


@pytest.mark.parametrize("file", LOGS)
@pytest.mark.parametrize("share", [0.3, 0.7, 0.99])
def test_a_log_that_is_cut_off_is_read_as_far_as_it_goes(file, share, log):
    reader, content = LOGS[file][0], (FIXTURES / file).read_bytes()
    path = log(Path(file).name, content[: int(share * len(content))])

    try:
        run = reader.read(path, None)
    except UnreadableLog as error:  # half of a JSON document, or nothing but the preamble
        assert path.suffix == ".json" or share < 0.5, error
    else:
        assert 0 < len(next(run.series_of("loss"))) <= LOGS[file][2]


def read(reader, file):
    return reader.read(FIXTURES / file, None)


def one_note(run, part):
    [note] = [note for note in run.notes if part in note]
    return note


# Lightning and Keras


def test_a_value_that_keras_did_not_measure_is_a_gap(log):
    run = keras_csv.read(
        log("log.csv", "epoch,loss,val_loss\n0,0.5,NA\n1,0.4,0.6\n2,0.3,NA\n"), None
    )

    assert run.one("val_loss").steps.tolist() == [1]


def test_a_keras_metric_with_several_outputs_is_left_out_and_said(log):
    text = 'epoch,each,loss,val_loss\n0,"""[0.1, 0.2]""",0.5,0.6\n1,"""[0.1, 0.3]""",0.4,0.5\n'
    run = keras_csv.read(log("log.csv", text), None)

    assert len(run.one("loss")) == 2
    assert "each" in one_note(run, "no numbers")


def test_calls_of_fit_that_train_on_are_one_run():
    run = read(keras_csv, "keras/trained_on.csv")

    assert run.one("loss").steps.tolist() == list(range(12))
    assert "3 calls of fit" in one_note(run, "counted on")


def test_a_second_keras_training_from_new_weights_is_a_run_of_its_own(log):
    first = [f"{i},{2.3 / (i + 1):.4f},{2.4 / (i + 1):.4f}" for i in range(6)]
    second = [f"{i},{2.31 / (i + 1):.4f},{2.41 / (i + 1):.4f}" for i in range(6)]
    text = "\n".join(["epoch,loss,val_loss", *first, *second, ""])
    run = keras_csv.read(log("log.csv", text), None)

    assert run.one("loss").steps.tolist() == list(range(6))
    assert run.one("loss").values[0] == 2.31
    assert "2 runs one after the other" in one_note(run, "runs")


def test_the_mean_of_an_epoch_in_lightning_is_no_second_loss():
    run = read(lightning_csv, "lightning/version_0/metrics.csv")

    assert run.one("loss").values[0] != run.one("val_loss").values[0]
    assert "train_loss_epoch" in [series.name for series in run.series_of("other")]
    assert run.one("val_loss").steps.tolist() == [15, 31, 47, 63]


# Vision


def test_the_terms_of_a_yolo_loss_are_summed_and_so_are_those_of_its_validation():
    run = read(ultralytics, "ultralytics/results.csv")
    general = csv_table.table_of(FIXTURES / "ultralytics/results.csv").columns

    terms = [general[f"train/{one}_loss"].values for one in ("box", "cls", "dfl")]
    assert run.one("loss").values == pytest.approx(np.sum(terms, axis=0))


def test_a_yolo_validation_that_was_switched_off_is_not_a_loss_of_zero(log):
    text = "epoch,train/box_loss,train/cls_loss,val/box_loss,val/cls_loss,lr/pg0\n"
    rows = "".join(f"{i},{1 / i},{2 / i},0,0,0.1\n" for i in range(1, 6))
    run = ultralytics.read(log("results.csv", text + rows), None)

    assert run.one("val_loss") is None
    assert one_note(run, "switched off")


def test_of_the_bar_that_yolo_prints_the_last_of_each_epoch_counts():
    printed = read(ultralytics, "ultralytics/printed.log").one("loss")
    written = read(ultralytics, "ultralytics/results.csv").one("loss")

    assert printed.steps.tolist() == written.steps.tolist()
    assert printed.values == pytest.approx(written.values, rel=1e-3)


def test_nan_in_detectron2s_table_of_results_is_no_nan_of_the_training():
    run = read(detectron2, "detectron2/log.txt")

    assert all(np.isfinite(series.values).all() for series in run.series)
    assert one_note(run, "medians of 20")


def test_the_error_that_ends_a_detectron2_training_is_a_loss_of_nan(log):
    text = (FIXTURES / "detectron2/log.txt").read_text(encoding="utf-8")
    error = "FloatingPointError: Loss became infinite or NaN at iteration=412!\nloss_dict = {}\n"
    loss = detectron2.read(log("log.txt", text + error), None).one("loss")

    assert loss.steps[-1] == 412
    assert math.isnan(loss.values[-1])


def test_a_printed_epoch_of_mmcv_has_its_true_length():
    run = read(mmengine, "mmengine/mmcv.log")

    assert run.one("loss").steps.tolist() == [*range(10, 71, 10), *range(85, 146, 10)]
    assert run.one("step_time_s").values[0] == 0.567


def test_a_late_epoch_of_mmcv_alone_is_counted_from_the_start(log):
    rows = "".join(
        f'{{"mode": "train", "epoch": 24, "iter": {i}, "loss": {1 / i}}}\n'
        for i in range(50, 7301, 50)
    )
    run = mmengine.read(log("a.log.json", rows), None)

    assert run.one("loss").steps[[0, -1]].tolist() == [167950, 175200]
    assert "23 epochs" in one_note(run, "counted on")


def test_iterations_of_mmcv_that_run_on_over_epochs_stay_as_they_are(log):
    rows = "".join(
        f'{{"mode": "train", "epoch": 3, "iter": {i}, "loss": {1 / i}}}\n'
        for i in range(20050, 20401, 50)
    )
    run = mmengine.read(log("a.log.json", rows), None)

    assert run.one("loss").steps[[0, -1]].tolist() == [20050, 20400]


def test_a_validation_of_mmcv_that_prints_a_loss_is_no_training_loss(log):
    text = (FIXTURES / "mmengine/mmcv.log").read_text(encoding="utf-8")
    line = "2021-06-01 12:00:00,300 - mmdet - INFO - Epoch(val) [2][625]\tloss: 0.1250\n"
    run = mmengine.read(log("a.log", text + line), None)

    assert run.one("val_loss").values.tolist() == [0.125]
    assert len(run.one("loss")) == 14


# Language


@pytest.mark.parametrize("file", ["simple.log", "old.log", "json.log"])
def test_a_summary_of_fairseq_is_not_mixed_with_its_intervals(file):
    run = read(fairseq, f"fairseq/{file}")

    assert run.one("loss").steps.tolist() == list(range(5, 61, 5))
    assert run.one("val_loss").steps.tolist() == [30, 60]
    others = {series.name: series for series in run.series_of("other")}
    assert others["loss_epoch"].steps.tolist() == [30, 60]
    assert run.one("lr").values[0] == 0.05


def test_the_perplexity_tells_the_base_of_fairseqs_losses(log):
    assert "base 2" in one_note(read(fairseq, "fairseq/simple.log"), "base")

    lines = [
        f"| epoch 001: {i} / 30 loss={2 / i:.4f}, ppl={math.exp(2 / i):.2f}, num_updates={i}"
        for i in range(1, 11)
    ]
    in_nats = fairseq.read(log("a.log", "\n".join(lines)), None)
    assert "base e" in one_note(in_nats, "base")


def test_updates_that_overflowed_in_fairseq_are_counted():
    assert one_note(read(fairseq, "fairseq/simple.log"), "overflowed").startswith("1 updates")


def test_a_loss_that_megatron_does_not_print_is_nan():
    run = read(megatron, "megatron/train.log")
    loss = run.one("loss")

    assert loss.steps[np.isnan(loss.values)].tolist() == [2, 30]
    assert "first at iteration 30" in one_note(run, "not printed")
    assert "2 iterations skipped" in one_note(run, "skipped by")
    assert "up to iteration 2" in one_note(run, "not finite, the first")


def test_a_loss_of_zero_of_skipped_iterations_is_none():
    run = read(megatron, "megatron/train.log")

    assert not (run.one("loss").values == 0).any()
    assert one_note(run, "losses of 0 left out")
    assert run.one("step_time_s").values[0] == pytest.approx(0.6234)


def test_the_norm_of_the_parameters_is_not_taken_for_that_of_the_gradients():
    assert read(megatron, "megatron/train.log").one("grad_norm").name == "grad norm"


def test_what_fills_megatrons_golden_values_is_no_nan():
    assert np.isfinite(read(megatron, "megatron/golden_values.json").one("loss").values).all()


def test_evaluations_of_nanogpt_stand_at_their_own_step():
    run = read(nanogpt, "nanogpt/train.out")

    assert run.one("val_loss").steps.tolist() == [0, 25, 50, 75, 100]
    assert run.one("step_time_s").values[0] == pytest.approx(0.135)
    assert one_note(run, "means of many")


def test_a_score_without_history_is_no_nan_in_llm_c():
    run = read(llm_c, "llm_c/printed.log")

    assert all(np.isfinite(series.values).all() for series in run.series)
    assert one_note(run, "skipped as outliers")


def test_the_accuracy_in_llm_cs_main_log_is_no_loss():
    run = read(llm_c, "llm_c/main.log")

    assert run.one("val_accuracy").values.tolist() == [0.2451] * 3
    assert run.one("val_loss").name == "tel"


def test_the_program_before_a_speedrun_and_its_first_seed_are_left_out():
    run = read(modded_nanogpt, "modded_nanogpt/two_seeds.txt")

    assert run.one("loss").values[0] != 0.5
    assert "the last one is judged; 20 values" in one_note(run, "2 runs")


def test_a_speedrun_is_told_behind_a_program_longer_than_the_head(log):
    program = "import sys\nwith open(sys.argv[0]) as f:\n    code = f.read()\n" + "x = 1\n" * 20_000
    path = log("a.txt", program + "step:0/9 val_loss:10.8\nstep:9/9 val_loss:3.2\n")
    other = log("b.txt", program + "step 0 loss 0.5\n")

    assert modded_nanogpt.recognises(path, head_of(path))
    assert not modded_nanogpt.recognises(other, head_of(other))
    assert modded_nanogpt.read(path, None).one("loss").values.tolist() == [10.8, 3.2]


def test_llama_factory_says_that_it_hides_nan():
    run = read(llama_factory, "llama_factory/trainer_log.jsonl")

    assert run.blind == ("loss non-finite",)
    assert one_note(run, "logging_nan_inf_filter")
    assert not [note for note in run.notes if "elapsed_time" in note]
