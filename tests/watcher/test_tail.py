"""Following a journal that grows."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from nndiag.journal.writer import EventWriter, StreamWriter, make_directory
from nndiag.watcher.tail import RunTail, StreamTail, Trace

COLUMNS = [("loss", ""), ("backward_calls", ""), ("lr", ""), ("grad_norm", "")]
COLUMNS += [("clip_threshold", ""), ("nndiag_time_s", "")]


@pytest.fixture
def rank(tmp_path: Path) -> Path:
    make_directory(str(tmp_path / "rank-0"))
    return tmp_path / "rank-0"


def row(loss: float, norm: float = 1.0, own_s: float = 0.0) -> list[float]:
    return [loss, 1, 0.1, norm, 2.0, own_s]


def test_rows_are_seen_once_each_as_they_come(rank: Path) -> None:
    writer = StreamWriter(str(rank / "steps-0.arrows"), owner="Adam", columns=COLUMNS)
    tail = StreamTail(rank / "steps-0.arrows")
    assert list(tail.new_rows()) == []

    writer.append(0, 0.5, row(3.0))
    writer.append(1, 1.0, row(2.0))
    assert [(step, t, values[0]) for step, t, values in tail.new_rows()] == [
        (0, 0.5, 3.0),
        (1, 1.0, 2.0),
    ]
    writer.append(2, 1.5, row(1.0))
    assert [step for step, _, _ in tail.new_rows()] == [2]
    assert list(tail.new_rows()) == []
    assert (tail.owner, tail.columns) == ("Adam", tuple(COLUMNS))


def test_a_row_that_is_half_written_waits(rank: Path) -> None:
    path = rank / "steps-0.arrows"
    writer = StreamWriter(str(path), owner="Adam", columns=COLUMNS)
    writer.append(0, 0.5, row(3.0))
    whole = path.read_bytes()
    tail = StreamTail(path)
    for end in range(len(whole)):
        path.write_bytes(whole[:end])
        assert list(tail.new_rows()) == []
    path.write_bytes(whole)

    assert [step for step, _, _ in tail.new_rows()] == [0]


def test_who_is_late_sees_the_newest_rows_only(rank: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nndiag.watcher.tail.READ_BYTES", 2000)
    writer = StreamWriter(str(rank / "steps-0.arrows"), owner="Adam", columns=COLUMNS)
    for step in range(100):
        writer.append(step, step / 10, row(1.0))
    steps = [step for step, _, _ in StreamTail(rank / "steps-0.arrows").new_rows()]

    assert 0 < len(steps) < 20
    assert steps[-1] == 99


def test_a_run_is_summed_up(rank: Path) -> None:
    writer = StreamWriter(str(rank / "steps-0.arrows"), owner="Adam", columns=COLUMNS)
    other = StreamWriter(str(rank / "steps-1.arrows"), owner="SGD", columns=COLUMNS)
    layers = [("dead_unit_fraction", "net.1"), ("param_grad_norm", "net.0.weight")]
    measured = StreamWriter(str(rank / "layers-0.arrows"), owner="Adam", columns=layers, dtype="f4")
    tail = RunTail(rank.parent)
    for step in range(20):
        writer.append(step, step / 10, row(2.0 - step / 20, norm=3.0 if step % 2 else 1.0))
    writer.append(20, 2.0, row(math.nan, norm=-1, own_s=0.1))
    other.append(7, 1.0, row(5.0))
    measured.append(0, 0.1, [0.25, 1.0])
    measured.append(10, 1.0, [0.5, 2.0])
    (rank / "process.json").write_text(json.dumps({"device": "cpu"}))
    events = EventWriter(str(rank / "events.jsonl"))
    events.append({"event": "metric", "step": 3, "name": "val_loss", "value": 0.5})
    events.append({"event": "metric", "step": 4, "name": "accuracy", "value": math.nan})
    tail.refresh()

    adam = tail.optimizers["Adam"]
    assert adam.step == 20
    assert math.isnan(adam.loss.last)
    assert adam.grad_norm.last == 3.0  # -1 is no gradient
    assert (adam.clippable, adam.clipped) == (21, 10)
    assert adam.steps_per_s == pytest.approx(10)
    assert tail.optimizers["SGD"].step == 7
    assert tail.layers == {layers[0]: 0.5, layers[1]: 2.0}
    assert tail.process["device"] == "cpu"
    assert tail.metrics["val_loss"] == 0.5
    assert math.isnan(tail.metrics["accuracy"])

    events.append({"event": "metric", "step": 5, "name": "val_loss", "value": 0.25})
    tail.refresh()
    assert tail.metrics["val_loss"] == 0.25


def test_an_empty_run_is_no_error(tmp_path: Path) -> None:
    tail = RunTail(tmp_path)
    tail.refresh()

    assert tail.optimizers == {}
    assert math.isnan(tail.overhead_percent)


@pytest.mark.parametrize("count", [1, 7, 160, 161, 1000, 12345])
def test_a_trace_keeps_the_course_in_little_room(count: int) -> None:
    trace = Trace(bins=80)
    for value in range(count):
        trace.add(float(value))
    means = trace.means(40)

    assert 1 <= len(means) <= 40
    assert means == sorted(means)
    assert trace.last == count - 1
    assert len(trace._bins) <= 160
    assert means[0] <= count / 20 + 1
    assert means[-1] >= count * 0.9 - 2


def test_a_trace_shows_where_nothing_was_finite() -> None:
    trace = Trace(bins=4)
    for value in (1.0, math.nan, math.inf, 3.0):
        trace.add(value)

    means = trace.means(4)
    assert (means[0], means[3]) == (1.0, 3.0)
    assert all(math.isnan(value) for value in means[1:3])
