"""From measurements to files: a directory of one's own, files when they are needed."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from nndiag.adapters.base import NAN, StepRow, Structure
from nndiag.journal.reader import read_events, read_process, read_stream
from nndiag.watcher.recorder import Recorder


@pytest.fixture(autouse=True)
def no_launcher(monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("RANK", "WORLD_SIZE"):
        monkeypatch.delenv(variable, raising=False)


def recorder(path: Path) -> Recorder:
    return Recorder(str(path), "torch", "2.0")


def test_a_process_that_never_steps_leaves_no_directory(tmp_path: Path):
    one = recorder(tmp_path)
    one.metric("val_loss", 0.5, "stdout")
    one.close()

    assert list(tmp_path.iterdir()) == [] and not one.recording


def test_what_came_before_the_first_step_is_kept(tmp_path: Path):
    one = recorder(tmp_path)
    for i in range(1000):
        one.metric("val_loss", float(i), "stdout")
    one.step(0, "SGD", 0, StepRow(loss=1.0))
    one.note("after")

    events, skipped = read_events(tmp_path / "rank-0" / "events.jsonl")
    assert [e["value"] for e in events[:-1]] == list(range(100))  # so many wait, no more
    assert events[-1]["text"] == "after" and skipped == 0


def test_a_row_comes_back_as_it_was_written(tmp_path: Path):
    one = recorder(tmp_path)
    row = StepRow(loss=0.5, backward_calls=2, lrs=(0.1, 0.2), grad_norm=math.inf, clip_threshold=1)
    one.step(0, "Adam(Net)", 7, row)

    stream = read_stream(tmp_path / "rank-0" / "steps-0.arrows")
    [values] = stream.values.tolist()
    found = dict(zip(stream.columns, values, strict=True))
    assert (stream.owner, stream.steps.tolist()) == ("Adam(Net)", [7])
    assert (found["loss", ""], found["backward_calls", ""]) == (0.5, 2)
    assert (found["lr", ""], found["lr", "group-1"]) == (0.1, 0.2)
    assert found["grad_norm", ""] == math.inf and math.isnan(found["loss_scale", ""])


def test_groups_that_come_or_go_leave_the_columns_as_they_were(tmp_path: Path):
    one = recorder(tmp_path)
    for step, rates in enumerate([(0.1, 0.2), (0.1,), (0.1, 0.2, 0.3), ()]):
        one.step(0, "SGD", step, StepRow(lrs=rates))

    stream = read_stream(tmp_path / "rank-0" / "steps-0.arrows")
    assert stream.steps.tolist() == [0, 1, 2, 3]
    second = stream.values[:, stream.columns.index(("lr", "group-1"))]
    assert second[[0, 2]].tolist() == [0.2, 0.2] and all(map(math.isnan, second[[1, 3]]))


def test_a_new_layer_opens_a_new_file_and_an_absent_one_is_not_measured(tmp_path: Path):
    one = recorder(tmp_path)
    mean = ("activation_mean", "0")
    norm = ("param_grad_norm", "0.weight")
    late = ("activation_mean", "1")
    one.layers(0, "SGD", 0, {mean: 1.0, norm: 2.0})
    one.layers(0, "SGD", 10, {mean: 1.5, norm: 2.5, late: 3.0})
    one.layers(0, "SGD", 20, {late: 4.0})

    first, second = (read_stream(tmp_path / "rank-0" / f"layers-{i}.arrows") for i in (0, 1))
    assert (first.steps.tolist(), second.steps.tolist()) == ([0], [10, 20])
    last = dict(zip(second.columns, second.values[1].tolist(), strict=True))
    assert math.isnan(last[mean]) and last[norm] == -1 and last[late] == 4.0


def test_each_process_has_its_own_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for _ in range(2):
        recorder(tmp_path).step(0, "SGD", 0, StepRow())
    monkeypatch.setenv("RANK", "3")
    for _ in range(2):
        recorder(tmp_path).step(0, "SGD", 0, StepRow())

    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["rank-0", "rank-1", "rank-3", "rank-3.1"]


def test_directories_and_files_are_private(tmp_path: Path):
    one = recorder(tmp_path)
    one.step(0, "SGD", 0, StepRow())
    one.structure(Structure(device="cpu"))

    folder = tmp_path / "rank-0"
    assert folder.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {0o600}


def test_the_structure_replaces_the_former_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    one = recorder(tmp_path)
    for device in ("cpu", "cuda:0"):
        one.structure(
            Structure(optimizers=[{"owner": "SGD", "settings": {"lr": NAN}}], device=device)
        )

    process = read_process(tmp_path / "rank-1" / "process.json")
    assert (process["device"], process["rank"], process["world_size"]) == ("cuda:0", 1, 2)
    assert process["optimizers"][0]["settings"]["lr"] == "NaN"
    assert sorted(p.name for p in (tmp_path / "rank-1").iterdir()) == [
        "events.jsonl",
        "process.json",
        "reserve",
    ]


def test_a_first_step_that_failed_is_tried_again(tmp_path: Path):
    (tmp_path / "gone").mkdir()
    one = recorder(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(OSError):
        one.step(0, "SGD", 0, StepRow())
    (tmp_path / "gone").mkdir()
    one.step(0, "SGD", 1, StepRow())

    assert read_stream(tmp_path / "gone" / "rank-0" / "steps-0.arrows").steps.tolist() == [1]


def test_the_end_is_said_also_where_nothing_was_recorded(tmp_path: Path):
    recorder(tmp_path).end("why")

    [told] = tmp_path.glob("failed-*")
    assert told.read_text() == "why"
