"""JSON lines, and JSON documents that hold a table."""

import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nndiag.errors import UnreadableLog
from nndiag.readers.formats import json_lines


def lines(*records):
    return "".join(json.dumps(record) + "\n" for record in records)


def read(path):
    run = json_lines.read(path)
    loss, val_loss = run.one("loss"), run.one("val_loss")
    return (
        dict(zip(loss.steps.tolist(), loss.values.tolist(), strict=True)),
        dict(zip(val_loss.steps.tolist(), val_loss.values.tolist(), strict=True))
        if val_loss
        else None,
    )


BOTH = {1: 0.5, 2: 0.4}, {2: 0.6}
SHAPES = {
    "rows with different keys": lines(
        {"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.4}, {"step": 2, "eval_loss": 0.6}
    ),
    "objects in objects": lines(
        {"step": 1, "train": {"loss": 0.5}},
        {"step": 2, "train": {"loss": 0.4}, "val": {"loss": 0.6}},
    ),
    "a mode": lines(
        {"mode": "train", "step": 1, "loss": 0.5},
        {"mode": "train", "step": 2, "loss": 0.4},
        {"mode": "val", "step": 2, "loss": 0.6},
    ),
    "one value a line": lines(
        {"step": 1, "metric": "loss", "value": 0.5},
        {"step": 2, "metric": "loss", "value": 0.4},
        {"step": 2, "metric": "val_loss", "value": 0.6},
    ),
    "numbers as texts": lines(
        {"step": "1", "loss": "0.5"}, {"step": "2", "loss": "0.4", "val_loss": "0.6"}
    ),
    "an array": json.dumps(
        [{"step": 1, "loss": 0.5}, {"step": 2, "loss": 0.4, "val_loss": 0.6}], indent=1
    ),
    "an array inside an object": json.dumps(
        {"config": {"lr": 1}, "history": [{"step": 1, "loss": 0.5},
                                          {"step": 2, "loss": 0.4, "val_loss": 0.6}]}
    ),
    "lists": json.dumps({"step": [1, 2], "loss": [0.5, 0.4], "val_loss": [None, 0.6]}),
    "objects of steps": json.dumps(
        {"loss": {"start_step": 1, "step_interval": 1, "values": {"1": 0.5, "2": 0.4}},
         "val loss": {"values": {"2": 0.6}}}
    ),
}  # fmt: skip


@pytest.mark.parametrize("text", SHAPES.values(), ids=SHAPES)
def test_a_run_is_read_from(text, log):
    path = log("log.json", text)

    assert json_lines.recognises(path, path.read_bytes())
    assert read(path) == BOTH


def test_keras_history_counts_its_epochs_from_0(log):
    path = log("history.json", json.dumps({"loss": [3, 2, 1], "val_loss": [4, 3, 2]}))

    assert read(path) == ({0: 3.0, 1: 2.0, 2: 1.0}, {0: 4.0, 1: 3.0, 2: 2.0})


def test_tokens_for_nan_and_infinity_are_numbers(log):
    text = '{"step": 1, "loss": NaN}\n{"step": 2, "loss": -Infinity}\n{"step": 3, "loss": "NaN"}\n'
    values = json_lines.read(log("log.jsonl", text)).one("loss").values

    assert math.isnan(values[0]) and math.isnan(values[2])
    assert values[1] == -math.inf


def test_iterations_of_each_epoch_are_counted_on(log):
    records = [
        {"mode": "train", "epoch": e, "iter": i, "loss": 1.0} for e in (1, 2) for i in (50, 100)
    ]
    records.insert(2, {"mode": "val", "epoch": 1, "iter": 130, "mAP": 0.5})
    path = log("a.log.json", lines({"env_info": "x", "seed": 1}, *records))

    assert list(read(path)[0]) == [50, 100, 150, 200]


def test_a_row_whose_step_is_the_epoch_is_no_restart(log):
    records = []
    for epoch in (1, 2, 3):
        records.append(
            {"loss": 1.0 / epoch, "epoch": epoch, "iter": 69 * epoch, "step": 69 * epoch}
        )
        records.append({"accuracy/top1": 40.0 + epoch, "step": epoch})
    run = json_lines.read(log("scalars.json", lines(*records)))

    assert run.one("loss").steps.tolist() == [69, 138, 207]


def test_what_is_left_out_is_said(log):
    text = lines({"step": 1, "loss": 0.5, "eta": "9 days"}, {"step": 2, "loss": 0.4, "ok": True})
    run = json_lines.read(log("log.jsonl", text + "not json\n" + '{"step": 3, "lo'))

    assert "left out, no numbers: 'eta'" in run.notes
    assert "1 lines left out that are no JSON objects" in run.notes
    assert "the last line is cut off: left out" in run.notes


def test_a_run_appended_by_a_second_start_is_the_one_judged(log):
    first = [{"step": i, "loss": 5.0} for i in range(5)]
    second = [{"step": i, "loss": 4.0} for i in range(3)]

    assert read(log("log.jsonl", lines(*first, *second)))[0] == {0: 4.0, 1: 4.0, 2: 4.0}


HOSTILE = {
    "nothing": "",
    "nested too deeply": "[" * 200_000,
    "nested too deeply in a line": '{"loss": ' + "[" * 200_000 + "]" * 200_000 + "}\n",
    "integers of thousands of digits": '{"step": ' + "9" * 5000 + ', "loss": 1}\n',
    "integers beyond any float": '{"step": 1, "loss": ' + "9" * 400 + "}\n",
    "a number alone": "3",
    "an object without numbers": '{"a": "b"}',
    "half a document": '[{"step": 1, "loss": 0.5},',
    "lone surrogates": '{"\\ud800": 1}\n',
    "a line of two megabytes": '{"a": "' + "x" * 2_000_000 + '"}\n',
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=HOSTILE)
def test_one_clear_error_for(text, log):
    with pytest.raises(UnreadableLog) as caught:
        json_lines.read(log("log.json", text))

    assert caught.value.what


NUMBERS = st.one_of(st.floats(), st.integers(-(2**70), 2**70))
OTHERS = st.sampled_from(
    [
        10**400,
        None,
        True,
        "0.5",
        " 7 ",
        "1_000",
        "nan",
        "12:00",
        "",
        [0.5],
        [1, 2],
        [],
        {"loss": 0.5},
        {},
    ]
)
RECORDS = st.dictionaries(
    st.sampled_from("step loss lr epoch note loss/box val/loss value name metric".split()),
    st.one_of(NUMBERS, NUMBERS, OTHERS),
    max_size=6,
)
TAGGED = st.builds(
    lambda record, key, tag: {**record, key: tag},
    RECORDS,
    st.sampled_from(["mode", "phase", "set"]),
    st.sampled_from(["train", "val", "test", 3, None, ["val"], "v" * 50]),
)


@settings(deadline=None)
@given(st.lists(st.one_of(RECORDS, TAGGED), min_size=1, max_size=20))
def test_records_read_by_their_shape_say_the_same(tmp_path_factory, records):
    path = tmp_path_factory.mktemp("json") / "log.jsonl"
    path.write_text(lines({"step": 0, "loss": 1.0}, *records, *records))
    by_shape = json_lines.table_of_file(path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_lines.RecordShapes, "find", lambda self, record: None)
        one_by_one = json_lines.table_of_file(path)

    assert by_shape.names == one_by_one.names
    assert by_shape.height == one_by_one.height
    assert set(by_shape.unreadable) == set(one_by_one.unreadable)
    if len(one_by_one.remarks) < 5:  # more of them are not all said
        assert sorted(by_shape.remarks) == sorted(one_by_one.remarks)
    for name, column in one_by_one.columns.items():
        assert by_shape.columns[name].rows.tolist() == column.rows.tolist()
        assert by_shape.columns[name].values.tobytes() == column.values.tobytes()


ODD_LINES = {
    "commas after them": '{"step": 1, "loss": 0.5},\n{"step": 2, "loss": 0.4},\n',
    "blanks around them": '  {"step": 1, "loss": 0.5}  \n\n\t{"step": 2, "loss": 0.4}\n',
    "the brackets of an array": '[\n{"step": 1, "loss": 0.5},\n{"step": 2, "loss": 0.4}\n]\n',
    "no last end": '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.4}',
    "one that is torn": '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.4}\n{"step": 3, "lo',
    "two on a line": '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.4}\n{"a": 1} {"b": 2}\n',
    "one over two lines": '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.4}\n{"step":\n3}\n',
}


@pytest.mark.parametrize("text", ODD_LINES.values(), ids=ODD_LINES)
def test_an_object_is_read_where_it_has_a_line_for_itself(text, log):
    assert read(log("log.jsonl", text))[0] == {1: 0.5, 2: 0.4}


def test_many_kinds_of_records_do_not_fill_the_memory(log):
    records = [{"step": i, "loss": 0.5, f"key {i}": 1.0} for i in range(1500)]
    run = json_lines.read(log("log.jsonl", lines(*records)))

    assert len(run.one("loss")) == 1500
