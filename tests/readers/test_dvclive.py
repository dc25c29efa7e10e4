"""DVCLive's folder; the real ones are made by fixtures/make_dvclive.py."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nndiag.errors import UnreadableLog
from nndiag.readers.stores import dvclive

FIXTURE = Path(__file__).parent / "fixtures" / "dvclive"
EXPECTED = json.loads((FIXTURE / "expected.json").read_text())


def rows(name, *values, first=0):
    lines = [f"{first + i}\t{value}\n" for i, value in enumerate(values)]
    return "".join([f"step\t{name}\n", *lines])


def test_a_folder_is_recognised_by_its_tables():
    for inner in (".", "plots", "plots/metrics"):
        assert "DVCLive" in dvclive.recognises(FIXTURE / "resumed" / inner, b"")
    assert dvclive.recognises(FIXTURE, b"") is None  # it holds several runs
    table = FIXTURE / "timed" / "plots" / "metrics" / "loss.tsv"
    assert dvclive.recognises(table, table.read_bytes()) is None  # the reader of tables has it


@pytest.mark.parametrize(
    "header", ["step\tother\n", "epoch\tloss\n", "loss\n", "step\ta\tloss\n", ""]
)
def test_another_program_s_table_is_not_taken_for_one_of_dvclive(log, header):
    path = log("plots/metrics/loss.tsv", header + "1\t0.5\n")

    assert dvclive.recognises(path.parents[2], b"") is None
    with pytest.raises(UnreadableLog, match="no tables of DVCLive"):
        dvclive.read(path.parents[2])


@pytest.mark.parametrize("name", EXPECTED)
def test_the_values_are_those_that_dvclive_itself_gives(name):
    run = dvclive.read(FIXTURE / name)

    for series in run.series:
        [history] = [
            table
            for file, table in EXPECTED[name]["history"].items()
            if file == f"plots/metrics/{series.name}.tsv"
        ]
        own = series.name.rpartition("/")[2]
        newest = {int(row["step"]): float(row[own]) for row in history}
        assert list(series.steps) == sorted(newest)
        np.testing.assert_array_equal(series.values, [newest[step] for step in sorted(newest)])
    assert run.one("loss") is not None


def test_nan_and_infinities_are_kept():
    loss = dvclive.read(FIXTURE / "resumed").one("loss")

    assert math.isnan(loss.values[26])
    assert list(loss.values[27:29]) == [math.inf, -math.inf]


def test_a_restart_is_seen_and_a_metric_of_the_second_attempt_alone_is_kept():
    run = dvclive.read(FIXTURE / "restarted")

    assert run.one("loss").values[15] == 2.0 / 16 + 12
    assert list(run.one("val_loss").steps) == [14, 19, 24, 29]
    assert any("resumed once" in note for note in run.notes)


def test_text_is_named_and_steps_that_only_the_summary_has_are_told():
    run = dvclive.read(FIXTURE / "timed")

    assert any("no numbers: 'note'" in note for note in run.notes)
    assert any("has seen step 400, the tables end at step 90" in note for note in run.notes)


def test_a_last_line_without_an_end_is_left_out(log):
    path = log("dvclive/plots/metrics/loss.tsv", rows("loss", 3, 2) + "2\t0.")

    run = dvclive.read(path.parents[2])

    assert list(run.one("loss").values) == [3.0, 2.0]
    assert any("cut off" in note for note in run.notes)


@pytest.mark.parametrize("folder", ["dvclive/scalars", "dvclive"])
def test_the_tables_of_older_versions_are_found(log, folder):
    log(f"{folder}/acc.tsv", rows("acc", 0.1, 0.2).replace("\n", "\r\n"))
    path = log(f"{folder}/loss.tsv", "timestamp\tstep\tloss\n5\t0\t3\n6\t1\t2\n")
    home = path.parents[folder.count("/")]

    assert dvclive.recognises(home, b"")
    assert {series.name for series in dvclive.read(home).series} == {"loss", "acc"}


def test_links_are_not_followed(log, tmp_path):
    path = log("plots/metrics/loss.tsv", rows("loss", 3, 2, 1))
    (path.parent / "val_loss.tsv").symlink_to(log("elsewhere.tsv", rows("val_loss", 9, 9)))

    run = dvclive.read(tmp_path)

    assert [series.name for series in run.series] == ["loss"]
    assert any("'val_loss.tsv' left out: a link" in note for note in run.notes)


CONTENT = (FIXTURE / "timed/plots/metrics/loss.tsv").read_bytes()


def test_every_beginning_of_a_table_is_read_or_refused(log):
    for cut in range(len(CONTENT) + 1):
        path = log("plots/metrics/loss.tsv", CONTENT[:cut])
        whole = CONTENT[:cut].count(b"\n") - 1
        try:
            run = dvclive.read(path.parents[2])
        except UnreadableLog:
            assert whole < 1
        else:
            assert len(run.one("loss")) == whole


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(
    content=st.binary(max_size=200)
    | st.lists(st.sampled_from([*CONTENT.split(b"\t"), b"1e400"]) | st.binary(max_size=9)).map(
        lambda parts: b"step\tloss\n" + b"\t".join(parts)
    ),
    summary=st.binary(max_size=40)
    | st.sampled_from([b'{"step": 1e999}', b'{"step": []}', b"[" * 9999, b"7"]),
)
def test_any_bytes_are_read_or_refused(tmp_path, content, summary):
    folder = tmp_path / "plots" / "metrics"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "loss.tsv").write_bytes(content)
    (tmp_path / "metrics.json").write_bytes(summary)

    dvclive.recognises(tmp_path, b"")
    try:
        run = dvclive.read(tmp_path)
    except UnreadableLog as error:
        assert error.what
    else:
        assert len(run.one("loss"))
