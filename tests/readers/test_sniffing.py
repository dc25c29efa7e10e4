"""Finding runs: files, folders, globs, standard input; and what is not looked at."""

import io
import json
import os
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nndiag.errors import BadUsage, UnreadableLog
from nndiag.readers.sniffing import find_runs

CSV = "step,loss\n1,0.5\n2,0.4\n3,0.3\n"
STATE = json.dumps({"log_history": [{"step": i, "loss": 1.0} for i in range(5)]})
FORMATS = {
    "csv": CSV,
    "jsonl": '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 0.4}\n',
    "hf-trainer-state": STATE,
    "text": "step 1 loss 0.5\nstep 2 loss 0.4\n",
}


@pytest.mark.parametrize(("name", "text"), FORMATS.items(), ids=FORMATS)
@pytest.mark.parametrize("file", ["log.txt", "log", "x.weird"])
def test_a_file_is_recognised_by_what_is_in_it(name, text, file, log):
    [run] = find_runs(log(file, text)).runs

    assert run.format == name
    assert run.notes[0].startswith(f"read as {name}: ")


def test_a_reader_can_be_forced(log):
    path = log("log.txt", "loss,step\n0.5,1\n")

    assert find_runs(path, reader="csv").runs[0].format == "csv"


def test_an_unknown_reader_lists_those_known(log):
    with pytest.raises(BadUsage) as caught:
        find_runs(log("log.csv", CSV), reader="excel")

    assert caught.value.do.startswith("known: nndiag, wandb, tensorboard, ")


def test_a_folder_is_searched_and_each_run_named(log, tmp_path):
    log("a/metrics.csv", CSV)
    log("b/deep/er/train.log", FORMATS["text"] + "step 3 loss 0.3\n")
    log("b/notes.txt", "nothing here")
    log("b/model.pt", b"\x80\x02")
    found = find_runs(tmp_path)

    names = [os.path.relpath(run.path, tmp_path) for run in found.runs]
    assert names == ["a/metrics.csv", "b/deep/er/train.log"]
    assert [os.path.relpath(one.path, tmp_path) for one in found.skipped] == ["b/notes.txt"]


def test_what_is_hidden_linked_or_too_deep_is_left_alone(log, tmp_path):
    log("a/metrics.csv", CSV)
    log(".hidden/metrics.csv", CSV)
    log("a/.metrics.csv", CSV)
    log("1/2/3/4/5/6/7/8/9/metrics.csv", CSV)
    (tmp_path / "a" / "loop").symlink_to(tmp_path)
    (tmp_path / "a" / "linked.csv").symlink_to(tmp_path / "a" / "metrics.csv")
    found = find_runs(tmp_path)

    assert [os.path.relpath(run.path, tmp_path) for run in found.runs] == ["a/metrics.csv"]
    assert any("link" in one.reason for one in found.skipped)


def test_a_file_that_only_quotes_a_loss_is_no_run_of_a_folder(log, tmp_path):
    log("metrics.csv", CSV)
    quoted = log("result.txt", "final: loss 0.5\n")

    assert [one.path for one in find_runs(tmp_path).skipped] == [str(quoted)]


def test_of_the_checkpoints_of_one_training_the_newest_is_read(log, tmp_path):
    short = json.dumps({"log_history": [{"step": i, "loss": 1.0} for i in range(3)]})
    log("out/checkpoint-3/trainer_state.json", short)
    log("out/checkpoint-5/trainer_state.json", STATE)
    found = find_runs(tmp_path)

    assert [run.path for run in found.runs] == [
        str(tmp_path / "out/checkpoint-5/trainer_state.json")
    ]
    assert len(found.skipped) == 1


def test_a_glob_is_expanded(log, tmp_path):
    log("a/metrics.csv", CSV)
    log("b/metrics.csv", CSV)
    log("c/metrics.csv", "")
    found = find_runs(f"{tmp_path}/*/metrics.csv")

    assert len(found.runs) == 2
    assert [one.reason for one in found.skipped] == ["is empty"]


def test_standard_input_is_read(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(CSV.encode())))
    [run] = find_runs("-").runs

    assert (run.path, run.format, len(run.one("loss"))) == ("-", "csv", 3)


def test_an_error_of_standard_input_names_it_so(monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"step,foo\n1,2\n2,3\n")))
    with pytest.raises(UnreadableLog) as caught:
        find_runs("-")

    assert caught.value.where == "-"
    assert "nndiag analyze - --loss foo" in caught.value.do


def test_a_fifo_is_refused_at_once(tmp_path):
    fifo = tmp_path / "train.log"
    os.mkfifo(fifo)

    with pytest.raises(UnreadableLog, match="not a regular file"):
        find_runs(fifo)
    with pytest.raises(UnreadableLog, match="no run found"):
        find_runs(tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_said_to_be(log):
    path = log("metrics.csv", CSV)
    path.chmod(0)

    with pytest.raises(UnreadableLog, match="permission"):
        find_runs(path)


@pytest.mark.parametrize("name", ["missing.csv", "miss*.csv", "a\0b", "x" * 5000])
def test_a_path_that_does_not_exist_is_one_clear_error(name, tmp_path):
    with pytest.raises(UnreadableLog):
        find_runs(f"{tmp_path}/{name}")


def test_a_folder_without_logs_says_what_was_looked_for(tmp_path):
    with pytest.raises(UnreadableLog) as caught:
        find_runs(tmp_path)

    assert "trainer_state.json" in caught.value.do


PIECES = st.sampled_from(
    [
        b"loss", b"step", b"epoch", b"val_loss", b",", b"\t", b";", b" ", b"\n", b"\r", b":", b"=",
        b'"', b"{", b"}", b"[", b"]", b"\0", b"nan", b"-inf", b"1", b"0.5", b"1e999", b"9" * 400,
        b"\xff\xfe", b"\xef\xbb\xbf", b"# ", b'"log_history"', b"mode", b"value", b"/",
        b'{"step": 1, "loss": 0.5}\n', b"step,loss\n", b"1,0.5\n", b"step 1 loss 0.5\n",
    ]
)  # fmt: skip


@given(
    st.one_of(st.binary(max_size=2000), st.lists(PIECES, max_size=60).map(b"".join)),
    st.sampled_from(["log.csv", "log.json", "log.txt", "trainer_state.json", "log"]),
    st.sampled_from([None, "csv", "jsonl", "text", "hf-trainer-state"]),
)
@settings(
    max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_any_bytes_are_a_run_or_one_clear_error(tmp_path, content, name, reader):
    path = tmp_path / name
    path.write_bytes(content)
    try:
        found = find_runs(path, reader=reader)
    except UnreadableLog as error:
        assert error.what
    else:
        assert all(len(series) for run in found.runs for series in run.series)
