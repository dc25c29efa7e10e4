"""A journal that was written once stays readable; one from the future is refused in plain words."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from nndiag.errors import UnreadableLog
from nndiag.journal.reader import UnknownVersion, open_run, read_stream
from nndiag.readers import run_directory

V1 = Path(__file__).parent / "fixtures" / "v1"


def test_a_journal_of_version_1_is_read_number_by_number() -> None:
    journal = open_run(V1)
    [rank] = journal.ranks
    [steps] = [read_stream(path) for path in rank.step_files]
    [layers] = [read_stream(path) for path in rank.layer_files]
    events, skipped = rank.events()

    assert journal.manifest["ended"]["status"] == 3 and journal.attached == 1
    assert rank.process()["models"][0]["parameters"][0]["shape"] == [3, 2]
    assert steps.steps.tolist() == [0, 1, 2, 3, 4, 5]
    column = {name: steps.values[:, i] for i, name in enumerate(steps.columns)}
    assert column["lr", ""].tolist() == [0.01] * 6
    assert column["lr", "group-1"].tolist() == [0.02] * 6
    assert column["loss", ""][0] == 0.4256160855293274
    assert np.isnan(column["loss", ""][5]) and (column["backward_calls", ""] == 1).all()
    assert layers.steps.tolist() == [0, 2, 4]
    assert ("param_grad_norm", "0.weight") in layers.columns
    assert (layers.torn_bytes, layers.damaged_records, skipped) == (0, 0, 0)
    assert [e["value"] for e in events if e["event"] == "metric"] == [0, 0.25, 0.5, 0.75, 1, 1.25]


def test_a_journal_of_version_1_is_a_run_to_judge() -> None:
    run = run_directory.read(V1)

    metrics = {series.metric for series in run.series}
    assert {"loss", "val_loss", "grad_norm", "lr", "activation_variance"} <= metrics
    assert len(run.layers) == 3 and len(run.nonfinite) == 1
    assert run.notes == (
        "the script exited with status 3",
        "watching took 0.4 % of the run's time",
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    shutil.copytree(V1, tmp_path / "run")
    return tmp_path / "run"


def rewrite(folder: Path, old: str, new: str) -> None:
    for path in folder.rglob("*.*"):
        path.write_bytes(path.read_bytes().replace(old.encode(), new.encode()))


def test_what_a_newer_minor_version_adds_is_passed_over(copy: Path) -> None:
    for kind in ("run", "process", "stream"):
        rewrite(copy, f"nndiag.{kind}/1", f"nndiag.{kind}/1.7")
    for path in (copy / "run.json", copy / "rank-0" / "process.json"):
        path.write_text(json.dumps({**json.loads(path.read_text()), "new": {"a": [1]}}))
    with (copy / "rank-0" / "events.jsonl").open("a") as file:
        file.write('{"event":"new","a":1}\n{"event":"note","text":"still read","new":2}\n')
    (copy / "rank-0" / "new-0.arrows").write_bytes(b"new")
    (copy / "new").mkdir()

    run = run_directory.read(copy)

    assert len(run.series) == len(run_directory.read(V1).series)
    assert "still read" in run.notes


def test_a_newer_version_is_refused_and_it_is_said_who_can_read_it(copy: Path) -> None:
    rewrite(copy, "nndiag.run/1", "nndiag.run/2")
    rewrite(copy, '"nndiag": "0.1.0"', '"nndiag": "3.0"')

    assert run_directory.recognises(copy)  # and so no other reader makes something up of its parts
    for read in (open_run, run_directory.read):
        with pytest.raises(UnknownVersion, match="format 2 is not known, only 1") as caught:
            read(copy)
        assert caught.value.do == "read it with the nndiag that wrote it: 3.0"


@pytest.mark.parametrize("kind", ["process", "stream"])
def test_a_part_of_a_newer_version_is_left_out_and_named(copy: Path, kind: str) -> None:
    rewrite(copy, f"nndiag.{kind}/1", f"nndiag.{kind}/2")

    notes = " ".join(run_directory.read(copy).notes)

    assert "format 2 is not known, only 1" in notes


ODD = ("", "1", "/", "nndiag.run", "nndiag.run/", "nndiag.run/x", "nndiag.run/0", "nndiag.run/-1")


@pytest.mark.parametrize("schema", [*ODD, None, 3, [], {}])
def test_any_schema_gives_a_run_or_an_answer(copy: Path, schema: object) -> None:
    manifest = json.loads((copy / "run.json").read_text())
    (copy / "run.json").write_text(json.dumps({**manifest, "schema": schema}))

    try:
        assert run_directory.read(copy).series
    except UnreadableLog as problem:
        assert "format" in problem.what
