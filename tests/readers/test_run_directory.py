"""A run directory becomes a `Run`: series of what was measured, and notes on the rest."""

from __future__ import annotations

import math
import time
from pathlib import Path

import numpy as np
import pytest

from nndiag.errors import UnreadableLog
from nndiag.journal.format import COLUMNS
from nndiag.journal.writer import EventWriter, StreamWriter, write_json
from nndiag.readers import run_directory
from nndiag.records import Fact, Layer, NonfiniteOrigin, Optimizer, Parameter

NAN, INF = math.nan, math.inf
ENDED = {"status": 0, "signal": None, "seconds": 1.0, "at": "2025-01-01T00:00:01+00:00"}
ADAM = {"owner": "Adam", "kind": "Adam", "model": "Net", "settings": {"lr": 0.1, "beta1": 0.9}}
PROCESS = {"schema": "nndiag.process/1", "rank": 0, "world_size": 1, "optimizers": [ADAM]}


class HandWritten:
    """A run directory, as the supervisor and the recorder would write it."""

    def __init__(self, path: Path, ended: object = ENDED) -> None:
        self.path = path
        manifest = {"schema": "nndiag.run/1", "nndiag": "0.1.0", "script": "train.py"}
        write_json(str(path / "run.json"), manifest | ({"ended": ended} if ended else {}))

    def rank(self, name: str = "rank-0", process=PROCESS, events=()) -> HandWritten:
        (self.path / name).mkdir()
        write_json(str(self.path / name / "process.json"), process)
        writer = EventWriter(str(self.path / name / "events.jsonl"))
        for event in events:
            writer.append(event)
        writer.close()
        return self

    def stream(self, file: str, columns, rows, owner="Adam", dtype="f8") -> HandWritten:
        writer = StreamWriter(str(self.path / file), owner=owner, columns=columns, dtype=dtype)
        for step, values in rows:
            writer.append(step, step / 10, values)
        writer.close()
        return self

    def steps(self, *rows: dict, file="rank-0/steps-0.arrows", owner="Adam") -> HandWritten:
        """One row for each dict; what it does not tell was not measured."""
        columns = [(metric, "") for metric in COLUMNS] + [("lr", "group-1")]
        values = [[row.get(w or m, NAN) for m, w in columns] for row in rows]
        return self.stream(file, columns, enumerate(values), owner)

    def read(self, loss: str | None = None):
        return run_directory.read(self.path, loss)


def counted(**values: float) -> dict[str, float]:
    return {"loss": 0.5, "backward_calls": 1, "lr": 0.1, **values}


def plain_run(path: Path, *, events=(), ended: object = ENDED) -> HandWritten:
    return HandWritten(path, ended).rank(events=events).steps(counted(), counted(), counted())


def points(run, metric: str, where: str = "", owner: str = "") -> list[tuple[int, float]]:
    [series] = [s for s in run.series_of(metric, owner=owner) if s.where == where]
    return list(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def metric(step, name, value, **more):
    return {"event": "metric", "step": step, "owner": "", "name": name, "value": value, **more}


# -- series of the steps


def test_a_step_that_was_measured_is_a_point_of_its_series(tmp_path):
    run = (
        HandWritten(tmp_path)
        .rank()
        .steps(
            counted(grad_norm=3.0, step_time_s=0.2, update_ratio=1e-3, **{"group-1": 0.7}),
            counted(grad_norm=4.0, clip_threshold=1.0, loss_scale=1024.0),
            counted(grad_norm=5.0, update_gradient_cosine=-0.5),
        )
        .read()
    )

    assert (run.format, run.path) == ("nndiag", str(tmp_path))
    assert points(run, "loss") == [(0, 0.5), (1, 0.5), (2, 0.5)]
    assert points(run, "lr", "group-1") == [(0, 0.7)]
    assert points(run, "grad_norm") == [(0, 3.0), (1, 4.0), (2, 5.0)]
    assert points(run, "clip_threshold") == [(1, 1.0)]
    assert points(run, "loss_scale") == [(1, 1024.0)]
    assert points(run, "step_time_s") == [(0, 0.2)]
    assert points(run, "update_ratio") == [(0, 1e-3)]
    assert points(run, "update_gradient_cosine") == [(2, -0.5)]
    assert {s.metric for s in run.series}.isdisjoint({"backward_calls", "nndiag_time_s"})


def test_a_nan_loss_is_kept_and_a_missing_one_is_not(tmp_path):
    rows = counted(), counted(loss=NAN), counted(loss=INF), counted(loss=NAN, backward_calls=0)
    run = HandWritten(tmp_path).rank().steps(*rows).read()

    assert str(points(run, "loss")) == "[(0, 0.5), (1, nan), (2, inf)]"


def test_a_nan_gradient_norm_is_kept_beside_others_and_a_missing_one_is_not(tmp_path):
    rows = [counted(grad_norm=n) for n in (1.0, NAN, INF, -1.0)]
    run = HandWritten(tmp_path).rank().steps(*rows, counted(backward_calls=0)).read()

    assert str(points(run, "grad_norm")) == "[(0, 1.0), (1, nan), (2, inf)]"


def test_gradient_norms_that_were_never_measured_make_no_series(tmp_path):
    assert plain_run(tmp_path).read().one("grad_norm") is None


def test_a_run_with_one_optimizer_names_no_owner(tmp_path):
    run = plain_run(tmp_path).read()

    assert {series.owner for series in run.series} == {""}
    assert run.optimizers == (Optimizer("Adam", "Adam", 3, (("lr", 0.1), ("beta1", 0.9))),)


def test_the_series_of_two_optimizers_stay_apart(tmp_path):
    both = {**PROCESS, "optimizers": [{**ADAM, "owner": "Adam-1"}, {**ADAM, "owner": "Adam-2"}]}
    run = (
        HandWritten(tmp_path)
        .rank(process=both, events=[metric(0, "val_loss", 0.5)])
        .steps(counted(), owner="Adam-1")
        .steps(counted(loss=9.0), counted(), file="rank-0/steps-1.arrows", owner="Adam-2")
        .stream("rank-0/layers-0.arrows", [("param_norm", "net.0")], [(0, [1.0])], "Adam-1", "f4")
        .stream("rank-0/layers-1.arrows", [("param_norm", "net.0")], [(0, [2.0])], "Adam-2", "f4")
        .read()
    )

    assert points(run, "loss", owner="Adam-1") == [(0, 0.5)]
    assert points(run, "loss", owner="Adam-2") == [(0, 9.0), (1, 0.5)]
    assert points(run, "param_norm", "net.0", "Adam-2") == [(0, 2.0)]
    assert points(run, "val_loss") == [(0, 0.5)]
    assert [(o.owner, o.steps) for o in run.optimizers] == [("Adam-1", 1), ("Adam-2", 2)]


def test_steps_that_a_damaged_file_repeats_or_disorders_are_sorted_and_the_last_counts(tmp_path):
    columns = [("loss", ""), ("backward_calls", "")]
    rows = [(5, [5.0, 1]), (2, [2.0, 1]), (5, [5.5, 1]), (3, [3.0, 1])]
    run = HandWritten(tmp_path).rank().stream("rank-0/steps-0.arrows", columns, rows).read()

    assert points(run, "loss") == [(2, 2.0), (3, 3.0), (5, 5.5)]


# -- series of layers and parameters


def layers(path: Path, columns, *rows, more=()) -> HandWritten:
    journal = plain_run(path).stream("rank-0/layers-0.arrows", columns, rows, dtype="f4")
    for file, file_columns, file_rows in more:
        journal.stream(file, file_columns, file_rows, dtype="f4")
    return journal


def test_a_layer_whose_columns_moved_to_another_file_stays_one_series(tmp_path):
    a, b = ("param_norm", "a"), ("param_norm", "b")
    later = ("rank-0/layers-1.arrows", [b, a], [(20, [7.0, 3.0]), (30, [8.0, 4.0])])
    run = layers(tmp_path, [a], (0, [1.0]), (10, [2.0]), more=[later]).read()

    assert points(run, "param_norm", "a") == [(0, 1.0), (10, 2.0), (20, 3.0), (30, 4.0)]
    assert points(run, "param_norm", "b") == [(20, 7.0), (30, 8.0)]


def test_a_gradient_that_is_absent_is_told_apart_from_a_parameter_not_looked_at(tmp_path):
    columns = [("param_norm", "w"), ("param_grad_norm", "w"), ("param_update_norm", "w")]
    rows = (0, [1.0, -1.0, 0.0]), (1, [-1.0, -1.0, -1.0]), (2, [NAN, NAN, NAN])
    run = layers(tmp_path, columns, *rows).read()

    assert str(points(run, "param_grad_norm", "w")) == "[(0, -1.0), (2, nan)]"
    assert str(points(run, "param_norm", "w")) == "[(0, 1.0), (2, nan)]"
    assert str(points(run, "param_update_norm", "w")) == "[(0, 0.0), (2, nan)]"


def test_activation_statistics_count_only_where_the_module_ran(tmp_path):
    names = ("count", "mean", "sample_variance", "nonfinite")
    columns = [(f"activation_{name}", "net.1") for name in names] + [("dead_unit_fraction", "r")]
    run = layers(
        tmp_path,
        columns,
        (0, [64, 0.5, 1.0, 0, 0.25]),
        (1, [0, 0.5, 1.0, 0, NAN]),
        (2, [NAN, NAN, NAN, NAN, 0.75]),
        (3, [64, NAN, NAN, 3, NAN]),  # its values are NaN
        (4, [64, 0.5, NAN, 0, NAN]),  # one sample has no variance
    ).read()

    assert str(points(run, "activation_mean", "net.1")) == "[(0, 0.5), (3, nan), (4, 0.5)]"
    assert str(points(run, "activation_sample_variance", "net.1")) == "[(0, 1.0), (3, nan)]"
    assert points(run, "activation_nonfinite", "net.1") == [(0, 0.0), (3, 3.0), (4, 0.0)]
    assert points(run, "dead_unit_fraction", "r") == [(0, 0.25), (2, 0.75)]


def test_a_column_of_a_newer_version_is_a_series_without_meaning(tmp_path):
    run = layers(tmp_path, [("entropy_of_heads", "h.0")], (0, [1.5])).read()

    [series] = run.series_of("other")
    assert (series.name, series.where, series.values.tolist()) == ("entropy_of_heads", "h.0", [1.5])


# -- what the script reports


def test_a_reported_metric_is_a_series_under_its_own_name(tmp_path):
    events = [metric(0, "val_loss", 0.5), metric(2, "val_loss", "NaN"), metric(2, "f1", 0.25)]
    run = plain_run(tmp_path, events=events).read()

    assert str(points(run, "val_loss")) == "[(0, 0.5), (2, nan)]"
    [other] = run.series_of("other")
    assert other.label == "f1"


def test_of_a_metric_reported_twice_at_a_step_the_last_counts(tmp_path):
    events = [metric(4, "val_loss", 0.5), metric(4, "val_loss", 0.25), metric(1, "val_loss", 9)]
    run = plain_run(tmp_path, events=events).read()

    assert points(run, "val_loss") == [(1, 9.0), (4, 0.25)]


def test_a_reported_loss_is_not_the_loss_where_one_was_measured(tmp_path):
    run = plain_run(tmp_path, events=[metric(0, "loss", 7.0)]).read()

    assert points(run, "loss") == [(0, 0.5), (1, 0.5), (2, 0.5)]
    [printed] = run.series_of("other")
    assert (printed.label, printed.values.tolist()) == ("loss", [7.0])


def test_a_reported_loss_is_the_loss_where_none_was_measured(tmp_path):
    unseen = {"lr": 0.1, "backward_calls": 0}
    events = [metric(0, "loss", 7.0), metric(1, "loss", 6.0)]
    run = HandWritten(tmp_path).rank(events=events).steps(unseen, unseen).read()

    assert points(run, "loss") == [(0, 7.0), (1, 6.0)]


BAD_METRICS = {
    "text": metric(0, "val_loss", "much"),
    "a boolean": metric(0, "val_loss", True),
    "nothing": metric(0, "val_loss", None),
    "a step that is no number": metric("one", "val_loss", 1.0),
    "a step beyond 64 bits": metric(2**70, "val_loss", 1.0),
    "a number beyond float": metric(0, "val_loss", 10**400),
    "no name": metric(0, None, 1.0),
}


@pytest.mark.parametrize("event", BAD_METRICS.values(), ids=BAD_METRICS)
def test_no_metric_is(tmp_path, event):
    run = plain_run(tmp_path, events=[event]).read()

    assert run.one("val_loss") is None


def test_the_user_names_another_loss(tmp_path):
    run = plain_run(tmp_path, events=[metric(0, "f1", 7.0)]).read(loss="f1")

    assert points(run, "loss") == [(0, 7.0)]
    assert [series.label for series in run.series_of("other")] == ["loss"]


def test_a_loss_that_is_not_there_is_answered_with_what_there_is(tmp_path):
    with pytest.raises(UnreadableLog, match="no series is called nll") as caught:
        plain_run(tmp_path).read(loss="nll")

    assert "loss, lr" in caught.value.do


# -- structure


def test_models_become_layers_and_parameters(tmp_path):
    net = {
        "name": "Net",
        "layers": [{"name": "net.0", "kind": "Linear", "order": 0, "parameters": ["net.0.weight"]}],
        "parameters": [
            {
                "name": "net.0.weight",
                "shape": [4, 3],
                "requires_grad": True,
                "optimizer": "Adam",
                "layer": "net.0",
                "lr": 0.1,
            },
            {"name": "free", "shape": [], "requires_grad": False, "optimizer": None},
        ],
    }
    run = HandWritten(tmp_path).rank(process={**PROCESS, "models": [net]}).steps(counted()).read()

    assert run.layers == (Layer("net.0", "Linear", 0, "Net", ("net.0.weight",)),)
    assert run.parameters == (
        Parameter("net.0.weight", (4, 3), True, "Adam", "Net", "net.0", 0.1),
        Parameter("free", (), False, None, "Net"),
    )


@pytest.mark.parametrize("junk", [3, "x", None, [3], [[]], [{"layers": 5, "parameters": [None]}]])
def test_a_process_file_of_odd_content_costs_no_series(tmp_path, junk):
    process = {"schema": "nndiag.process/1", "models": junk, "optimizers": junk, "world_size": junk}
    run = HandWritten(tmp_path).rank(process=process).steps(counted()).read()

    assert run.layers == run.parameters == ()
    assert run.optimizers == (Optimizer("Adam", "Adam", 1),)


def test_the_first_bad_tensor_is_told(tmp_path):
    event = {"event": "nonfinite", "step": 3, "kind": "activation", "where": "net.1"}
    event |= {"value": -INF, "loss_finite": False, "detail": "LogBackward0"}
    run = plain_run(tmp_path, events=[event]).read()

    assert run.nonfinite == (
        NonfiniteOrigin(3, "activation", "net.1", -INF, False, "LogBackward0"),
    )


# -- notes


EXCEPTION = {"event": "exit", "how": "exception", "what": "ValueError"}
NOTES = {
    "a signal": ({"ended": {"status": None, "signal": 9}}, "the script was ended by SIGKILL"),
    "a signal by name": ({"ended": {"signal": "SIGTERM"}}, "the script was ended by SIGTERM"),
    "a signal without name": ({"ended": {"signal": 400}}, "the script was ended by signal 400"),
    "an exit status": ({"ended": {"status": 3}}, "the script exited with status 3"),
    "an exception": (
        {"ended": {"status": 1}, "events": [EXCEPTION]},
        "the script ended with ValueError",
    ),
    "no end": (
        {"ended": None},
        "the run was still going on when it was read, or it was killed with its watcher",
    ),
    "the overhead": (
        {"events": [{"event": "overhead", "percent": 1.26}]},
        "watching took 1.3 % of the run's time",
    ),
    "an early end of observation": (
        {"events": [{"event": "observation-ended", "step": 12, "reason": "three faults"}]},
        "observation ended at step 12: three faults",
    ),
    "a note of the recorder": ({"events": [{"event": "note", "text": "compiled"}]}, "compiled"),
    "unknown events": (
        {"events": [{"event": "aura"}]},
        "1 events of kinds unknown to this nndiag were skipped",
    ),
}


@pytest.mark.parametrize(("made_of", "note"), NOTES.values(), ids=NOTES)
def test_the_notes_tell_of(tmp_path, made_of, note):
    run = plain_run(tmp_path, **made_of).read()

    assert run.notes == (note,)


def test_a_run_that_went_well_needs_no_note(tmp_path):
    finished = {"event": "exit", "how": "finished", "what": ""}

    assert plain_run(tmp_path, events=[finished]).read().notes == ()


def test_many_notes_are_cut_and_repeated_ones_told_once(tmp_path):
    events = [{"event": "note", "text": f"note {i // 2} " + "x" * 1000} for i in range(200)]
    notes = plain_run(tmp_path, events=events).read().notes

    assert len(notes) == 51
    assert notes[-1] == "and 50 more notes"
    assert max(map(len, notes)) == 300


def test_damage_is_told_with_its_size(tmp_path):
    plain_run(tmp_path)
    steps = tmp_path / "rank-0" / "steps-0.arrows"
    content = bytearray(steps.read_bytes())
    size = (len(content) - content.index(b"\xff\xff\xff\xff", 8)) // 3
    content[-size - 20] ^= 4  # in the second row
    steps.write_bytes(content + content[-size:-5])
    (tmp_path / "rank-0" / "events.jsonl").write_bytes(b'{"event": "note"\n\n')
    (tmp_path / "rank-0" / "layers-0.arrows").write_bytes(b"")

    run = run_directory.read(tmp_path)

    assert points(run, "loss") == [(0, 0.5), (2, 0.5)]
    left_out, damaged, torn, lines = run.notes
    assert left_out.startswith("left out") and "layers-0.arrows" in left_out
    assert damaged == "1 damaged rows of steps-0.arrows were left out"
    assert torn == f"the last row of steps-0.arrows was torn, {size - 5} bytes, and left out"
    assert lines == "2 lines of events.jsonl could not be read"


# -- several ranks


def ranks(path: Path, **steps: int) -> HandWritten:
    """Keyword `r0_1=5`: attempt 1 of rank 0 made 5 steps."""
    journal = HandWritten(path)
    for key, count in steps.items():
        name = "rank-" + key[1:].replace("_", ".")
        journal.rank(name, {**PROCESS, "rank": int(key[1]), "world_size": 2})
        if count:
            rows = [counted(loss=float(key[1]))] * count
            journal.steps(*rows, file=f"{name}/steps-0.arrows")
    return journal


def test_ranks_are_merged_and_the_notes_tell_of_one_that_stopped_early(tmp_path):
    run = ranks(tmp_path, r0=20, r1=8).read()

    assert points(run, "loss")[7:9] == [(7, 0.5), (8, 0.0)]
    assert points(run, "loss")[-1] == (19, 0.0)
    assert run.notes == (
        "2 ranks were recorded and are merged: losses are means",
        "rank 1 stopped at step 7, another at step 19",
    )


def test_ranks_one_step_apart_ended_together(tmp_path):
    assert "stopped" not in str(ranks(tmp_path, r0=20, r1=19).read().notes)


def test_a_rank_that_made_no_step_is_told_and_the_next_one_shown(tmp_path):
    run = ranks(tmp_path, r0=0, r1=8).read()

    assert points(run, "loss")[-1] == (7, 1.0)
    assert "rank 0 made no optimizer step" in run.notes


def test_a_missing_rank_is_told(tmp_path):
    assert ranks(tmp_path, r0=5).read().notes == ("1 of 2 ranks were recorded",)


def test_of_a_restarted_rank_the_longest_attempt_is_shown(tmp_path):
    run = ranks(tmp_path, r0=5, r0_1=9, r0_2=2, r1=9).read()

    assert len(points(run, "loss")) == 9
    assert "2 ranks were recorded; the series are those of rank 0, attempt 2" in run.notes


def test_the_ranks_of_one_restart_are_merged_with_each_other(tmp_path):
    run = ranks(tmp_path, r0=5, r0_1=9, r1=4, r1_1=9).read()

    assert points(run, "loss") == [(step, 0.5) for step in range(9)]
    assert "2 ranks were recorded and are merged: losses are means" in run.notes


def test_processes_that_are_no_ranks_are_not_compared(tmp_path):
    journal = HandWritten(tmp_path)
    for name, count in (("rank-0", 9), ("rank-1", 2)):
        journal.rank(name, {**PROCESS, "rank": None, "world_size": None})
        journal.steps(*[counted()] * count, file=f"{name}/steps-0.arrows")

    assert journal.read().notes == ("2 processes trained; the series are those of rank 0",)


# -- nothing to judge


def test_metrics_without_any_step_are_still_a_run(tmp_path):
    run = HandWritten(tmp_path).rank(events=[metric(0, "val_loss", 0.5)]).read()

    assert points(run, "val_loss") == [(0, 0.5)]
    assert run.optimizers == ()
    assert run.notes[0].startswith("no optimizer step was seen")


NOTHING = {
    "a script without torch": ([], "imported torch", "torch"),
    "a script that never steps": (["attached-1"], "no optimizer step was seen", "optimizer.step"),
    "a fault of ours": (["attached-1", "failed-1"], "did not start: OSError: disk", "report"),
}


@pytest.mark.parametrize(("markers", "what", "do"), NOTHING.values(), ids=NOTHING)
def test_unreadable_is(tmp_path, markers, what, do):
    journal = HandWritten(tmp_path, ended={"status": 1, "signal": None})
    for marker in markers:
        (tmp_path / marker).write_text("OSError: disk full\nTraceback")

    with pytest.raises(UnreadableLog) as caught:
        journal.read()

    assert what in caught.value.what
    assert "exited with status 1" in caught.value.what
    assert do in caught.value.do
    assert "\n" not in caught.value.what


def test_a_rank_without_steps_and_metrics_is_unreadable_and_says_why(tmp_path):
    reason = {"event": "observation-ended", "step": 0, "reason": "disk full"}
    journal = HandWritten(tmp_path).rank(events=[reason])

    with pytest.raises(UnreadableLog, match=r"no optimizer step was seen; .*: disk full"):
        journal.read()


# -- recognising


def test_a_run_directory_is_recognised_with_a_reason(tmp_path):
    plain_run(tmp_path)

    assert run_directory.recognises(tmp_path, b"") == "its run.json is nndiag's"
    (tmp_path / "run.json").unlink()
    assert run_directory.recognises(tmp_path, b"") == "it holds ranks recorded by nndiag"


@pytest.mark.parametrize("content", [None, b"{}", b'{"schema": "other/1"}', b"\xff"])
def test_another_folder_is_not_recognised(tmp_path, content):
    if content is not None:
        (tmp_path / "run.json").write_bytes(content)
    (tmp_path / "rank-0").mkdir()

    assert run_directory.recognises(tmp_path, b"") is None
    assert run_directory.recognises(tmp_path / "run.json", b"") is None


# -- a long run


def test_a_hundred_thousand_steps_are_read_quickly(tmp_path):
    rows = [[0.5, 1.0, 0.1, 1.0]] * 100_000
    columns = [(metric, "") for metric in ("loss", "backward_calls", "lr", "grad_norm")]
    wide = [(m, f"h.{i}") for i in range(100) for m in ("param_norm", "param_grad_norm")]
    journal = HandWritten(tmp_path).rank(events=[metric(s, "acc", 0.5) for s in range(10_000)])
    journal.stream("rank-0/steps-0.arrows", columns, enumerate(rows))
    layer_rows = [(step, [1.0] * 200) for step in range(0, 100_000, 10)]
    journal.stream("rank-0/layers-0.arrows", wide, layer_rows, dtype="f4")

    started = time.perf_counter()
    run = journal.read()

    assert time.perf_counter() - started < 3.0  # seconds; below 0.7 measured on two busy cores
    assert len(run.one("loss")) == 100_000
    assert len(run.series) == 3 + 200 + 1


def test_what_was_written_bit_for_bit_is_in_the_run(tmp_path):
    values = np.random.default_rng(0).standard_normal(50)
    run = HandWritten(tmp_path).rank().steps(*[counted(loss=float(v)) for v in values]).read()

    assert run.one("loss").values.tobytes() == values.tobytes()


def test_facts_of_code_and_data_are_records_with_their_numbers_by_name(tmp_path: Path):
    events = [
        {"event": "fact", "kind": "input", "step": 3, "where": "0", "owner": "Adam", "mean": NAN,
         "std": 2.5, "samples": 32, "dtype": "float32", "whole": True},
        {"event": "fact", "kind": "loss", "step": "first"},
        {"event": "fact", "step": 4},
        {"event": "fact", "kind": "odd", "step": 5, "where": 7, "huge": 10**400, "list": [1]},
    ]  # fmt: skip
    run = HandWritten(tmp_path).rank(events=events).steps(counted(), counted()).read()

    first, odd = run.facts
    assert (first.kind, first.step, first.where, first.owner) == ("input", 3, "0", "")
    assert math.isnan(first.amount("mean")) and first.amount("std") == 2.5
    assert (first.count("samples"), first.number("dtype")) == (32, "float32")
    assert first.number("whole") is True
    assert odd == Fact("odd", 5)
    assert list(run.facts_of("loss")) == []
    assert not any("unknown" in note for note in run.notes)
