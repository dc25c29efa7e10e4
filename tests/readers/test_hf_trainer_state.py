"""The Hugging Face Trainer's state."""

import json

import pytest

from nndiag.errors import UnreadableLog
from nndiag.readers.formats import hf_trainer_state

HISTORY = [
    {"epoch": 0.1, "grad_norm": 2.0, "learning_rate": 1e-4, "loss": 2.5, "step": 10},
    {"epoch": 0.2, "grad_norm": 1.5, "learning_rate": 9e-5, "loss": 2.0, "step": 20},
    {"epoch": 0.2, "eval_loss": 2.2, "eval_runtime": 3.1, "step": 20},
    {"epoch": 0.2, "step": 20, "total_flos": 1e9, "train_loss": 2.25, "train_runtime": 60.0},
]


def state(history):
    return json.dumps({"best_metric": None, "global_step": 20, "log_history": history}, indent=2)


def test_its_history_is_a_run(log):
    path = log("trainer_state.json", state(HISTORY))
    run = hf_trainer_state.read(path)

    assert hf_trainer_state.recognises(path, path.read_bytes())
    assert (run.one("loss").name, run.one("loss").values.tolist()) == ("loss", [2.5, 2.0])
    assert run.one("val_loss").values.tolist() == [2.2]
    assert run.one("lr").steps.tolist() == run.one("grad_norm").steps.tolist() == [10, 20]


def test_it_says_that_it_is_blind_to_nan(log):
    run = hf_trainer_state.read(log("trainer_state.json", state(HISTORY)))

    assert run.blind == ("loss non-finite",)
    assert any("logging_nan_inf_filter" in note for note in run.notes)


def test_the_summary_row_is_left_out_and_said_to_be(log):
    run = hf_trainer_state.read(log("trainer_state.json", state(HISTORY)))

    assert "train_loss" not in [series.name for series in run.series]
    assert "1 summary rows left out" in run.notes


def test_the_first_of_several_evaluation_sets_is_the_validation(log):
    history = [
        {"eval_train_loss": 0.1, "step": 10},
        {"eval_math_loss": 2.2, "step": 10},
        {"eval_code_loss": 1.2, "step": 10},
    ]
    run = hf_trainer_state.read(log("trainer_state.json", state([*HISTORY[:2], *history])))

    assert run.one("val_loss").name == "eval_math_loss"
    assert run.one("val_loss").values.tolist() == [2.2]
    assert "of 2 evaluation sets the first one is taken for the validation" in run.notes


def test_the_loss_on_all_evaluation_sets_comes_before_that_on_one(log):
    history = [{"eval_math_loss": 2.2, "step": 10}, {"eval_loss": 1.2, "step": 10}]
    run = hf_trainer_state.read(log("trainer_state.json", state([*HISTORY[:2], *history])))

    assert run.one("val_loss").name == "eval_loss"
    assert not any("evaluation sets" in note for note in run.notes)


UNREADABLE = {
    "an empty history": state([]),
    "no history": '{"global_step": 3}',
    "another kind of history": '{"log_history": 3}',
    "half a file": state(HISTORY)[:100],
    "a history of texts": '{"log_history": ["a"]}',
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
def test_one_clear_error_for(text, log):
    with pytest.raises(UnreadableLog):
        hf_trainer_state.read(log("trainer_state.json", text))
