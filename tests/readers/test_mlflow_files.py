"""MLflow's file store; the real files are made by fixtures/make_mlflow.py."""

import json
import math
import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nndiag.errors import UnreadableLog
from nndiag.readers.lines.text_lines import head_of
from nndiag.readers.stores import mlflow_files

FIXTURE = Path(__file__).parent / "fixtures" / "mlflow"
EXPERIMENT = FIXTURE / "mlruns" / "1"
EXPECTED = json.loads((FIXTURE / "expected.json").read_text())["files"]
RUN_META = "lifecycle_stage: active\nrun_id: f00\nrun_name: small\nstatus: 3\n"


def named(name):
    """The folder of a run of the fixture."""
    tags = EXPERIMENT.glob("*/tags/mlflow.runName")
    return next(tag.parent.parent for tag in tags if tag.read_text() == name)


def points(series):
    return list(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def lines(*values, first=0, time=1_700_000_000_000):
    return "".join(f"{time + i} {value} {first + i}\n" for i, value in enumerate(values))


def test_a_run_is_recognised_and_an_experiment_or_a_model_is_not():
    run = named("restarted")

    assert "meta.yaml" in mlflow_files.recognises(run, b"")
    assert "metrics" in mlflow_files.recognises(run / "metrics", b"")
    assert mlflow_files.recognises(EXPERIMENT, b"") is None
    assert mlflow_files.recognises(run / "tags", b"") is None


def test_the_metrics_of_a_logged_model_are_no_run(log):
    """Newer stores keep them a second time, with the id of the run in each line."""
    log("models/m-1/meta.yaml", "model_id: m-1\nexperiment_id: '1'\n")
    path = log("models/m-1/metrics/loss", "1700000000000 0.5 1 f00\n1700000000001 0.4 2 f00\n")

    assert mlflow_files.recognises(path.parent, b"") is None
    assert mlflow_files.recognises(path.parent.parent, b"") is None


@pytest.mark.parametrize("name", ["restarted", "without-steps", "at-once", "with-data-sets"])
def test_the_values_are_those_that_mlflow_itself_gives(name):
    """The last value of each step, and of a restarted run what the restart did not repeat."""
    run = mlflow_files.read(named(name))
    by_name = {series.name: series for series in run.series}

    compared = 0
    for metric, history in EXPECTED[name].items():
        if name == "with-data-sets" or metric not in by_name:
            continue
        if name == "without-steps":
            newest = {i: float(value) for i, (_, _, value) in enumerate(history)}
        else:
            newest = {step: float(value) for step, _, value in history}
        assert list(by_name[metric].steps) == sorted(newest)
        np.testing.assert_array_equal(
            by_name[metric].values, [newest[step] for step in sorted(newest)]
        )
        compared += 1
    assert compared == {"restarted": 3, "without-steps": 2, "at-once": 2, "with-data-sets": 0}[name]


def test_a_restart_is_seen_and_its_loss_that_is_not_finite_is_kept():
    run = mlflow_files.read(named("restarted"))
    loss, held_out = run.one("loss"), run.one("val_loss")

    assert (loss.name, held_out.name) == ("train/loss", "val/loss")
    assert math.isnan(loss.values[26])
    assert list(loss.values[27:29]) == [math.inf, -math.inf]
    assert loss.values[15] == 2.0 / 16 + 12  # of the second attempt
    assert any("resumed once" in note for note in run.notes)
    assert any("'restarted': it failed" in note for note in run.notes)


def test_values_of_two_data_sets_under_one_name_are_two_series():
    run = mlflow_files.read(named("with-data-sets"))

    history = EXPECTED["with-data-sets"]["loss"]
    for metric, own in (("loss", history[0::2]), ("val_loss", history[1::2])):
        assert list(run.one(metric).values) == [float(value) for _, _, value in own]
        assert list(run.one(metric).steps) == list(range(10))  # MLflow's own reader says 0


def test_a_deleted_run_and_one_without_metrics_are_errors(tmp_path):
    with pytest.raises(UnreadableLog, match="was deleted in MLflow") as error:
        mlflow_files.read(named("deleted"))
    assert "metrics" in error.value.do
    assert any("deleted" in n for n in mlflow_files.read(named("deleted") / "metrics").notes)

    copy = shutil.copytree(named("without-metrics"), tmp_path / "run")
    (copy / "metrics").mkdir(exist_ok=True)  # git keeps no empty folder
    assert mlflow_files.recognises(copy, b"")
    with pytest.raises(UnreadableLog, match="no metric was logged"):
        mlflow_files.read(copy)


def test_a_file_stands_for_its_run_with_that_metric_for_the_loss():
    path = named("at-once") / "metrics" / "val_loss"
    assert mlflow_files.recognises(path, head_of(path))

    run = mlflow_files.read(path)

    assert run.one("loss").name == "val_loss"
    nested = named("restarted") / "metrics" / "train" / "loss"
    assert {s.name for s in mlflow_files.read(nested).series} == {"train/loss", "val/loss", "lr"}


def test_a_file_that_is_no_loss_names_its_run():
    path = named("without-steps") / "metrics" / "pid"

    with pytest.raises(UnreadableLog, match="'pid' is no loss") as error:
        mlflow_files.read(path)
    assert str(path.parent.parent) in error.value.do
    assert mlflow_files.read(path, "loss").one("loss").name == "loss"


def test_a_metric_file_alone_is_read(log):
    path = log("train_loss", lines(3, 2, 1, first=5))

    assert mlflow_files.recognises(path, head_of(path)) == "lines 'timestamp value step'"
    assert points(mlflow_files.read(path).one("loss")) == [(5, 3.0), (6, 2.0), (7, 1.0)]


@pytest.mark.parametrize(
    "content",
    ["1700000000000 0.5\n0.4\n", "step loss\n1 0.5\n", "10 0.5 1\n11 0.4 2\n", "\0\1\2", "\n\n"],
    ids=["a line without a time", "a header", "no time", "binary", "blank lines"],
)
def test_another_file_in_a_folder_metrics_is_not_taken_for_a_metric(log, content):
    path = log("metrics/loss", content)

    assert mlflow_files.recognises(path, content.encode()) is None
    assert mlflow_files.recognises(path.parent, b"") is None


def test_lines_without_a_step_are_counted(log):
    """As MLflow wrote them before 1.0, with times in seconds."""
    path = log("metrics/loss", "".join(f"{1_540_000_000 + i} {9 - i}\n" for i in range(5)))

    assert points(mlflow_files.read(path.parent).one("loss")) == [(i, 9.0 - i) for i in range(5)]


def test_what_is_logged_together_shares_rows_and_parts_are_summed(log):
    """Times differ by some ms, since each metric has a call of its own."""
    log("metrics/loss_box", lines(5, 4, 3, time=1_700_000_000_000))
    path = log("metrics/loss_cls", lines(1, 1, 1, time=1_700_000_000_020))

    run = mlflow_files.read(path.parent)

    assert run.one("loss").name == "loss_box + loss_cls"
    assert points(run.one("loss")) == [(0, 6.0), (1, 5.0), (2, 4.0)]


def test_the_last_line_is_left_out_where_its_end_is_missing(log):
    """ "12" may be the beginning of 123."""
    path = log("metrics/loss", lines(3, 2, 1) + "1700000000003 0.5 12")

    run = mlflow_files.read(path.parent)

    assert points(run.one("loss")) == [(0, 3.0), (1, 2.0), (2, 1.0)]
    assert any("cut off" in note for note in run.notes)


def test_lines_that_ran_into_each_other_are_counted(log):
    path = log(
        "metrics/loss", lines(3, 2) + "1700000000003 0.51700000000004 0.4 5\n" + lines(1, first=6)
    )

    run = mlflow_files.read(path.parent)

    assert points(run.one("loss")) == [(0, 3.0), (1, 2.0), (6, 1.0)]
    assert any("1 lines left out" in note for note in run.notes)


def test_links_and_hidden_files_are_not_followed(log, tmp_path):
    path = log("metrics/loss", lines(3, 2, 1))
    log("elsewhere", lines(9, 9, 9))
    (tmp_path / "metrics" / "val_loss").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "metrics" / "again").symlink_to(tmp_path / "metrics")
    log("metrics/.loss.swp", lines(9, 9))

    run = mlflow_files.read(path.parent)

    assert [series.name for series in run.series] == ["loss"]
    assert sum("a link or no regular file" in note for note in run.notes) == 2


def test_meta_yaml_is_read_as_lines_and_never_as_yaml(log):
    bomb = "a: &a [x, x]\nb: &b [*a, *a]\nrun_name: !!python/object/apply:os.system ['false']\n"
    log("run/meta.yaml", bomb + RUN_META.replace("small", "'it''s'"))
    path = log("run/metrics/loss", lines(3, 2, 1))

    run = mlflow_files.read(path.parent.parent)

    assert any(note.startswith("MLflow run ") for note in run.notes)


def test_a_metric_called_step_does_not_replace_the_steps(log):
    log("metrics/step", lines(70, 80, 90))
    path = log("metrics/loss", lines(3, 2, 1))

    run = mlflow_files.read(path.parent)

    assert list(run.one("loss").steps) == [0, 1, 2]
    assert any("a metric is called 'step'" in note for note in run.notes)


CONTENT = (
    lines(0.5, "nan", "inf", "-inf", "1e-05")
    + "1700000000009 0.25 9 train abc\n1700000000010 0.125\n"
).encode()


def test_every_beginning_of_a_file_is_read_or_refused(log):
    values = {repr(float(line.split()[1])) for line in CONTENT.decode().splitlines()}
    for cut in range(len(CONTENT) + 1):
        path = log("metrics/loss", CONTENT[:cut])
        try:
            run = mlflow_files.read(path.parent)
        except UnreadableLog:
            assert CONTENT[:cut].count(b"\n") == 0
        else:
            assert {repr(value) for value in run.one("loss").values.tolist()} <= values


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    content=st.binary(max_size=300)
    | st.lists(st.sampled_from(CONTENT.split()) | st.binary(max_size=9)).map(b" ".join),
    meta=st.binary(max_size=100) | st.text(max_size=50).map(lambda t: f"run_id: {t}".encode()),
)
def test_any_bytes_are_read_or_refused(tmp_path, content, meta):
    folder = tmp_path / "run"
    (folder / "metrics").mkdir(parents=True, exist_ok=True)
    (folder / "metrics" / "loss").write_bytes(content)
    (folder / "meta.yaml").write_bytes(meta)

    mlflow_files.recognises(folder / "metrics" / "loss", content)
    mlflow_files.recognises(folder, b"")
    for path in (folder, folder / "metrics", folder / "metrics" / "loss"):
        try:
            run = mlflow_files.read(path)
        except UnreadableLog as error:
            assert error.what
        else:
            assert len(run.one("loss"))


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    places=st.lists(st.integers(0, len(CONTENT) * 8 - 1), min_size=1, max_size=4),
)
def test_flipped_bits_are_read_or_refused(tmp_path, places):
    content = bytearray(CONTENT)
    for place in places:
        content[place // 8] ^= 1 << place % 8
    folder = tmp_path / "metrics"
    folder.mkdir(exist_ok=True)
    (folder / "loss").write_bytes(content)

    try:
        run = mlflow_files.read(folder)
    except UnreadableLog as error:
        assert error.what
    else:
        assert run.format == "mlflow"
