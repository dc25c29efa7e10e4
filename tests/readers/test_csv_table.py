"""CSV in all the ways that training libraries write it."""

import math
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nndiag.errors import UnreadableLog
from nndiag.readers.formats import csv_table, polars_table

LIGHTNING = """epoch,step,train_loss_epoch,train_loss_step,val_loss
0,49,,1.2,
0,99,,1.1,
0,99,,,1.3
0,99,1.15,,
1,149,,1.0,
"""
ULTRALYTICS = """               epoch,      train/box_loss,      train/obj_loss,        val/box_loss,        val/obj_loss,               x/lr0,               x/lr1
                   0,            0.5,            0.25,             1.5,               1,               0.1,             0.2
                   1,            0.25,           0.25,               1,               1,               0.1,             0.2
"""  # noqa: E501
ALGOPERF = """global_step,grad_norm,loss,train/loss,validation/ctc_loss
0,2.9,0.3,,
1,,,0.29,0.31
100,0.5,0.2,,
"""
DEEPMD = """#  step      rmse_trn    rmse_e_trn         lr
      0      1.08e+01      5.92e-02    1.0e-03
   2000      1.43e+00      1.51e-01    1.0e-03
"""
FASTAI = """epoch     train_loss  valid_loss  accuracy  time
0         0.5         0.4         0.8       00:12
1         0.4         0.39        0.81      00:13
"""


def loss_of(path, loss=None):
    run = csv_table.read(path, loss)
    [series] = run.series_of("loss")
    return series.name, series.steps.tolist(), series.values.tolist()


LAYOUTS = {
    "commas": "step,loss\n1,0.5\n2,0.25\n",
    "windows line ends": "step,loss\r\n1,0.5\r\n2,0.25\r\n",
    "tabs": "step\tloss\n1\t0.5\n2\t0.25\n",
    "semicolons": "step;loss\n1;0.5\n2;0.25\n",
    "semicolons and decimal commas": "step;loss\n1;0,5\n2;0,25\n",
    "padding": "  step,     loss\n  1 ,  0.5 \n 2,0.25\n",
    "quotes": '"step","loss"\n"1","0.5"\n2,0.25\n',
    "a hash and spaces": "# step   loss\n   1   0.5\n   2   0.25\n",
    "text before the header": "Training on 2 GPUs, good luck\n\nstep,loss\n1,0.5\n2,0.25\n",
    "trailing empty columns": "step,loss,,\n1,0.5,,\n2,0.25,,\n",
    "an index without a name": ",step,loss\n0,1,0.5\n1,2,0.25\n",
    "blank lines": "step,loss\n\n1,0.5\n\n2,0.25\n\n",
    "the header again": "step,loss\n1,0.5\nstep,loss\n2,0.25\n",
    "an unclosed quote": 'step,loss,tag\n1,0.5,"a\n2,0.25,b\n',
    "comments around the header": "# training loss\n# step loss\n# all in eV\n1 0.5\n2 0.25\n",
    "a comment of DeePMD": (
        "#  step      loss\n# If there is no data, rmse_*_{val,trn} will be nan\n 1 0.5\n 2 0.25\n"
    ),
    "a comment among the rows": "step,loss\n1,0.5\n# resumed, loss as before\n2,0.25\n",
    "a byte order mark": "\ufeffstep,loss\n1,0.5\n2,0.25\n",
    "zero bytes": "step,loss\n1,0.5\n2,0.25\n\0\0\0\0",
}


@pytest.mark.parametrize("points", [19, 20])
def test_a_loss_that_goes_on_comes_before_one_that_ends_early(points, log):
    """As in AlgoPerf's logs: `loss` in the first 100 steps, evaluations until the end."""
    early = "".join(f"{i},{1 / (1 + i)},\n" for i in range(100))
    late = "".join(f"{1000 * i},,{1 / i}\n" for i in range(1, points + 1))
    run = csv_table.read(log("log.csv", f"global_step,loss,train/loss\n{early}{late}"))
    is_enough = points >= 20

    assert run.one("loss").name == ("train/loss" if is_enough else "loss")
    assert any("ends long before" in note for note in run.notes) == is_enough


def test_a_validation_loss_of_zero_where_none_was_measured_is_a_gap(log):
    rows = "".join(f"{i},{9 / i},{4 / i if i % 5 == 0 else 0.0}\n" for i in range(1, 41))
    run = csv_table.read(log("log.csv", f"epoch,train_loss,val_loss\n{rows}"))

    assert run.one("val_loss").steps.tolist() == list(range(5, 41, 5))
    assert any("0 taken for 'not computed in this row'" in note for note in run.notes)


def test_a_summary_of_names_and_values_among_the_rows_is_no_header(log):
    rows = "".join(
        f"{e},{b},{1 / (10 * e + b)}\n" * (b < 4) or f"Epoch {e} Summary,val_loss={1 / e}\n"
        for e in (1, 2, 3)
        for b in (1, 2, 3, 4)
    )
    run = csv_table.read(log("log.csv", f"epoch,batch,loss\n{rows}"))

    assert run.one("loss").steps.tolist() == list(range(1, 10))
    assert run.one("loss").values[-1] == 1 / 33
    assert run.one("val_loss").values.tolist() == [1, 1 / 2, 1 / 3]


@pytest.mark.parametrize("text", LAYOUTS.values(), ids=LAYOUTS)
def test_a_table_is_read_with(text, log):
    path = log("metrics.csv", text)

    assert csv_table.recognises(path, path.read_bytes())
    assert loss_of(path) == ("loss", [1, 2], [0.5, 0.25])


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_a_table_is_read_in_the_encoding(encoding, log):
    path = log("metrics.csv", "step,loss\n1,0.5\n2,0.25\n".encode(encoding))

    assert loss_of(path) == ("loss", [1, 2], [0.5, 0.25])


def test_lightning_rows_of_train_and_validation_come_apart(log):
    run = csv_table.read(log("metrics.csv", LIGHTNING))

    loss, val_loss = run.one("loss"), run.one("val_loss")
    assert (loss.name, loss.steps.tolist()) == ("train_loss_step", [49, 99, 149])
    assert (val_loss.steps.tolist(), val_loss.values.tolist()) == ([99], [1.3])
    assert "loss: 'train_loss_step', rather than 'train_loss_epoch'" in run.notes


def test_parts_without_a_total_are_summed(log):
    run = csv_table.read(log("results.csv", ULTRALYTICS))

    assert run.one("loss").values.tolist() == [0.75, 0.5]
    assert run.one("val_loss").values.tolist() == [2.5, 2.0]
    assert [s.where for s in run.series_of("lr")] == ["", "group-1"]
    assert any("sum of its parts" in note for note in run.notes)


def test_evaluation_rows_between_training_rows_leave_the_loss_alone(log):
    run = csv_table.read(log("measurements.csv", ALGOPERF))

    assert run.one("loss").steps.tolist() == [0, 100]
    assert run.one("val_loss").name == "validation/ctc_loss"
    assert run.one("grad_norm").values.tolist() == [2.9, 0.5]


def test_an_error_measure_stands_in_for_a_loss(log):
    path = log("lcurve.out", DEEPMD)

    assert loss_of(path) == ("rmse_trn", [0, 2000], [10.8, 1.43])
    assert any("no loss in it" in note for note in csv_table.read(path).notes)


def test_columns_set_with_spaces_are_read(log):
    run = csv_table.read(log("out.txt", FASTAI))

    assert run.one("val_loss").values.tolist() == [0.4, 0.39]
    assert any("'time'" in note for note in run.notes)


def test_a_column_that_tells_the_split_parts_the_rows(log):
    text = "phase,epoch,loss\ntrain,1,1.0\nval,1,1.1\ntrain,2,0.9\nval,2,1.0\n"
    run = csv_table.read(log("log.csv", text))

    assert run.one("loss").values.tolist() == [1.0, 0.9]
    assert run.one("val_loss").values.tolist() == [1.1, 1.0]


def test_a_resumed_run_keeps_the_later_values(log):
    path = log("log.csv", "epoch,loss\n0,9\n1,8\n2,7\n3,6\n2,7.5\n3,6.5\n4,5\n")

    assert loss_of(path) == ("loss", [0, 1, 2, 3, 4], [9, 8, 7.5, 6.5, 5])
    assert any("resumed once" in note for note in csv_table.read(path).notes)


def test_of_runs_one_after_the_other_the_last_is_judged(log):
    path = log("log.csv", "step,loss\n0,9\n1,8\n0,7\n1,6\n2,5\n")

    assert loss_of(path)[2] == [7, 6, 5]
    assert any("2 runs one after the other" in note for note in csv_table.read(path).notes)


def test_a_failed_start_at_the_end_is_not_taken_for_the_run(log):
    rows = "".join(f"{i},{1 / (i + 1)}\n" for i in range(100))

    assert len(loss_of(log("log.csv", f"step,loss\n{rows}0,5\n"))[1]) == 100


def test_a_step_logged_twice_counts_once_the_last_time(log):
    path = log("log.csv", "step,loss\n1,9\n1,8\n2,7\n")

    assert loss_of(path) == ("loss", [1, 2], [8, 7])
    assert any("several values" in note for note in csv_table.read(path).notes)


@pytest.mark.parametrize("column", ["", "epoch,"], ids=["no column", "a constant"])
def test_without_steps_the_rows_are_counted(column, log):
    cell = "0," if column else ""
    path = log("log.csv", f"{column}loss,acc\n{cell}0.5,0\n{cell}0.4,0\n{cell}0.3,0\n")

    assert loss_of(path)[1] == [0, 1, 2]


def test_iterations_that_start_again_each_epoch_are_counted_on(log):
    rows = "".join(f"{e},{i},1.0\n" for e in (1, 2, 3) for i in (50, 100))

    assert loss_of(log("log.csv", "epoch,iter,loss\n" + rows))[1] == [50, 100, 150, 200, 250, 300]


def test_a_nan_is_evidence_and_stays(log):
    values = loss_of(log("log.csv", "step,loss\n1,0.5\n2,nan\n3,-inf\n"))[2]

    assert math.isnan(values[1])
    assert values[2] == -math.inf


def test_nan_between_numbers_is_a_blank_cell(log):
    rows = "".join(f"{i},1.0,{1.0 if i % 4 == 0 else 'nan'}\n" for i in range(40))
    run = csv_table.read(log("log.csv", "step,loss,val_loss\n" + rows))

    assert run.one("val_loss").steps.tolist() == list(range(0, 40, 4))
    assert any("not logged" in note for note in run.notes)


@pytest.mark.parametrize("cell", ["1_000", "\u0661\u0662", "1e999", "0x10", "[1, 2]", "ten"])
def test_what_is_no_number_is_left_out(cell, log):
    path = log("log.csv", f"step,loss\n1,0.5\n2,{cell}\n3,0.3\n")

    assert loss_of(path)[1] == [1, 3]
    assert any("no numbers" in note for note in csv_table.read(path).notes)


def test_half_a_last_line_is_left_out(log):
    path = log("log.csv", "step,loss,lr\n1,0.5,0.1\n2,0.4,0.1\n3,0.")

    assert loss_of(path)[1] == [1, 2]
    assert any("cut off" in note for note in csv_table.read(path).notes)


def test_losses_of_two_networks_stay_apart(log):
    run = csv_table.read(log("gan.csv", "step,d_loss,g_loss,lr_d\n1,0.6,0.9,.1\n2,0.5,1.0,.1\n"))

    losses = {series.owner: series.values.tolist() for series in run.series_of("loss")}
    assert losses == {"D": [0.6, 0.5], "G": [0.9, 1.0]}
    assert [series.owner for series in run.series_of("lr")] == ["D"]


PREFERRED = {
    "a total over its parts": ("total_loss", "loss_cls,total_loss,loss_box"),
    "the whole over a part": ("loss", "loss_cls,loss,loss_box"),
    "training over validation": ("train_loss", "val_loss,train_loss,test_loss"),
    "per step over per epoch": ("train_loss_step", "train_loss_epoch,train_loss_step"),
    "the plain name": ("loss", "train/loss,loss"),
    "a loss over an error": ("my_loss", "rmse,my_loss"),
    "the only part": ("my_loss", "my_loss,foo"),
    "validation if there is no other": ("val_loss", "val_loss,foo"),
    "a total over the networks": ("loss", "loss,policy_loss,value_loss"),
}


@pytest.mark.parametrize(("name", "header"), PREFERRED.values(), ids=PREFERRED)
def test_of_several_losses_it_takes(name, header, log):
    cells = ",".join("1" for _ in header.split(","))

    assert loss_of(log("log.csv", f"step,{header}\n1,{cells}\n2,{cells}\n"))[0] == name


def test_the_loss_can_be_named(log):
    path = log("log.csv", "step,loss,Train_CE\n1,0.5,3\n2,0.4,2\n")

    assert loss_of(path, loss="train_ce") == ("Train_CE", [1, 2], [3, 2])


def test_a_name_that_does_not_exist_lists_the_columns_the_closest_first(log):
    path = log("log.csv", "step,lr,train_ppl,foo\n1,1,0.5,3\n2,1,0.4,2\n")

    with pytest.raises(UnreadableLog) as caught:
        csv_table.read(path, loss="ppl")

    assert "'ppl'" in caught.value.what
    assert f"nndiag analyze {path} --loss train_ppl" in caught.value.do
    assert "(columns: train_ppl, foo, lr, step)" in caught.value.do


UNREADABLE = {
    "no column that is a loss": "step,foo\n1,2\n2,3\n",
    "a header alone": "step,loss\n",
    "numbers alone": "1,0.5\n2,0.4\n",
    "nothing": "",
    "prose": "Dear reader, this is\na letter, not a table\n",
    "a loss in words": "step,loss\n1,high\n2,low\n",
}


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
def test_it_says_why_it_cannot_read(text, log):
    with pytest.raises(UnreadableLog) as caught:
        csv_table.read(log("log.csv", text))

    assert caught.value.what


@given(
    st.lists(
        st.tuples(st.integers(0, 2**40), st.floats(allow_nan=False, width=64)),
        min_size=2,
        unique_by=lambda row: row[0],
    ),
    st.sampled_from(",;\t"),
    st.sampled_from(["\n", "\r\n"]),
)
def test_a_table_written_is_the_table_read(tmp_path_factory, rows, delimiter, end):
    rows.sort()
    path = tmp_path_factory.mktemp("csv") / "log.csv"
    lines = [f"step{delimiter}loss", *(f"{step}{delimiter}{value!r}" for step, value in rows)]
    path.write_text(end.join(lines) + end, newline="")

    assert loss_of(path) == ("loss", [step for step, _ in rows], [value for _, value in rows])


def test_a_hundred_thousand_rows_are_read_in_a_second(log):
    rows = "".join(f"{i},{1 / (i + 1)},0.001,{i % 7}.5\n" for i in range(100_000))
    path = log("log.csv", "step,loss,lr,grad_norm\n" + rows)
    start = time.process_time()
    run = csv_table.read(path)

    assert time.process_time() - start < 2  # 0.3 s on an idle machine
    assert len(run.one("loss")) == 100_000


NUMBERS = "".join(f"{i},{1 / (i + 1)!r},{1e-3 * (i % 7)!r}\n" for i in range(2000))
BLANKS_IN_IT = "".join(f"{i},{'' if i % 3 else i / 7},{'' if i % 5 else i}\n" for i in range(2000))
# Each stands between two stretches of plain numbers: what one reader sees, the other must see.
DOUBTFUL = {
    "plain numbers": "",
    "blank cells": BLANKS_IN_IT,
    "a row of blanks": ",,\n1,2,3\n",
    "blank lines": "\n\n  \n",
    "spaces around numbers": " 7 , 0.5 ,\t1\n",
    "signs and points": "+7,.5,5.\n8,-.5,+1e-05\n",
    "NaN": "7,nan,NaN\n8,-nan,NAN\n",
    "infinity": "7,inf,-Infinity\n8,+INF,1\n",
    "an overflow": "7,1e999,1\n8,-1e400,2\n",
    "an overflow beside an infinity": "7,1e999,inf\n",
    "an underflow": "7,1e-400,4.9e-324\n",
    "very many digits": "7,0.1234567890123456789012345678901234567890,1\n",
    "integers above 2**53": "9007199254740993,1,18446744073709551617\n",
    "underscores": "7,1_000,1\n",
    "Arabic digits": "7,\u0661\u0662,1\n",
    "words": "7,ten,n/a\n8,None,-\n",
    "quotes": '"7","0.5",1\n8,"0,5",1\n',
    "an open quote": '7,"0.5,1\n8,0.5,1\n',
    "short rows": "7\n8,0.5\n",
    "long rows": "7,0.5,1,9\n8,0.5,1,,\n",
    "the header again": "step,loss,lr\n7,0.5,1\n",
    "another header": "step,lr,loss\n7,1,0.5\n",
    "a comment": "# resumed\n7,0.5,1\n",
    "carriage returns": "7,0.5,1\r8,0.5,1\r\n9,0.5,1\n",
    "zero bytes": "7,0.5,1\0\0\n",
    "hexadecimal": "0x10,0x1p3,1\n",
    "half a line at the end": None,
}


@pytest.mark.parametrize("end", ["\n", ""], ids=["ended", "torn"])
@pytest.mark.parametrize("text", DOUBTFUL.values(), ids=DOUBTFUL)
def test_polars_and_c_and_the_plain_way_read_the_same(text, end, log, monkeypatch):
    pytest.importorskip("polars")
    content = f"step,loss,lr\n{NUMBERS}{text or ''}{NUMBERS}"
    content += "9,0." if text is None else "9999,0.5,1"
    path = log("metrics.csv", content + end)
    monkeypatch.setattr(csv_table, "BLOCK_BYTES", 1 << 16)

    monkeypatch.setattr(csv_table, "LARGE", 0)
    by_polars = csv_table.table_of(path)
    monkeypatch.setattr(csv_table, "LARGE", 1 << 40)
    in_c = csv_table.table_of(path)
    monkeypatch.setattr(csv_table, "PATIENCE", 0)
    plainly = csv_table.table_of(path)

    for fast in (by_polars, in_c):
        assert fast.names == plainly.names
        assert (fast.unreadable, fast.remarks) == (plainly.unreadable, plainly.remarks)
        assert fast.height == plainly.height
        for name, column in plainly.columns.items():
            assert fast.columns[name].rows.tobytes() == column.rows.tobytes()
            assert fast.columns[name].values.tobytes() == column.values.tobytes()


def test_a_column_of_texts_does_not_keep_polars_from_the_others(log, monkeypatch):
    pytest.importorskip("polars")
    rows = "".join(f"{i},12:00:{i % 60:02d},{i / 3}\n" for i in range(3000))
    path = log("metrics.csv", "step,time,loss\n" + rows)
    monkeypatch.setattr(csv_table, "LARGE", 0)
    asked = []
    real = polars_table.columns_of
    monkeypatch.setattr(
        polars_table, "columns_of", lambda *given: asked.append(real(*given)) or asked[-1]
    )
    run = csv_table.read(path)

    assert run.one("loss").values.tolist() == [i / 3 for i in range(3000)]
    assert any("'time'" in note for note in run.notes)
    assert None not in asked


def test_polars_is_loaded_for_large_files_only(log):
    pytest.importorskip("polars")
    path = log("metrics.csv", "step,loss,lr\n" + NUMBERS)
    program = (
        "import sys; from pathlib import Path; from nndiag.readers.formats import csv_table\n"
        f"csv_table.read(Path({str(path)!r})); print('polars' in sys.modules)\n"
        f"csv_table.LARGE = 1000; csv_table.read(Path({str(path)!r}))\n"
        "print('polars' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.stdout.split() == ["False", "True"], done.stderr


def test_a_large_table_without_polars_is_read_the_other_way(log, monkeypatch):
    monkeypatch.setattr(csv_table, "LARGE", 0)
    monkeypatch.setattr(polars_table, "library", lambda: None)
    path = log("metrics.csv", "step,loss,lr\n" + NUMBERS)

    assert len(csv_table.read(path).one("loss")) == 2000


@given(st.lists(st.floats(width=64), min_size=4, max_size=40))
def test_polars_reads_the_bits_that_were_written(values):
    pytest.importorskip("polars")
    block = "".join(f"{value!r}\n" for value in values).encode()
    [(rows, found)] = polars_table.columns_of(block, ",", [True])

    assert rows is None
    assert np.array_equal(found, np.array(values), equal_nan=True)


def test_full_columns_share_their_rows(log):
    table = csv_table.table_of(log("metrics.csv", "step,loss,lr\n" + NUMBERS))

    assert table.columns["step"].rows is table.columns["loss"].rows is table.columns["lr"].rows
