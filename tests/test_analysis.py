"""A folder of many runs, some of them broken: every one is judged or said why not."""

from __future__ import annotations

import json
import math
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

import nndiag
from nndiag import analysis, workers
from nndiag.readers.discovery import Source
from nndiag.reports import json_report


def losses(seed: int, spike: bool = False) -> list[float]:
    """300 values that fall with some noise of their own."""
    return [
        2 * math.exp(-step / 80)
        + 0.4
        + 0.03 * math.sin(12.9898 * step + seed)
        + (9 * 0.6 ** (step - 200) if spike and 200 <= step < 206 else 0)
        for step in range(300)
    ]


def write_run(folder: Path, kind: int, values: list[float]) -> Path:
    folder.mkdir(parents=True)
    if kind == 0:
        path = folder / "metrics.csv"
        path.write_text("step,loss\n" + "".join(f"{i},{v:.6f}\n" for i, v in enumerate(values)))
    elif kind == 1:
        path = folder / "log.jsonl"
        rows = (json.dumps({"step": i, "train_loss": v}) for i, v in enumerate(values))
        path.write_text("\n".join(rows))
    elif kind == 2:
        path = folder / "trainer_state.json"
        history = [{"step": i, "loss": v, "learning_rate": 1e-4} for i, v in enumerate(values)]
        path.write_text(json.dumps({"log_history": history, "global_step": len(values)}))
    else:
        path = folder / "train.log"
        path.write_text("".join(f"step {i} | loss {v:.4f}\n" for i, v in enumerate(values)))
    return path


BROKEN = {
    "no_loss.csv": b"a,b\n1,2\n2,3\n",
    "empty.jsonl": b"",
    "cut.json": b'{"log_history": [{"loss": 1.0, "st',
    "noise.csv": bytes(range(256)) * 20,
}


@pytest.fixture(scope="module")
def sixty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """56 good runs of four formats, every ninth with a spike, and four broken files."""
    folder = tmp_path_factory.mktemp("sixty")
    for i in range(56):
        write_run(folder / f"run-{i:02d}", i % 4, losses(i, spike=i % 9 == 0))
    for i, (name, text) in enumerate(BROKEN.items()):
        (folder / f"run-{10 * i:02d}" / name).write_bytes(text)
    return folder


def as_json(result: nndiag.Analysis) -> str:
    return json_report.text(result.diagnoses, result.errors, result.skipped)


def test_many_processes_say_what_one_says(sixty: Path) -> None:
    alone = nndiag.analyze(sixty, jobs=1)
    together = nndiag.analyze(sixty, jobs=3)

    assert as_json(together) == as_json(alone)
    assert len(alone.diagnoses) == 56 and alone.errors == ()
    paths = [diagnosis.run.path for diagnosis in alone.diagnoses]
    assert paths == sorted(paths)  # the order in which the search finds them


def test_a_broken_file_costs_only_itself_and_its_reason_is_told(sixty: Path) -> None:
    skipped = nndiag.analyze(sixty, jobs=2).skipped

    assert {Path(one.where).name: bool(one.what) for one in skipped} == dict.fromkeys(BROKEN, True)
    [no_loss] = (one for one in skipped if one.where.endswith("no_loss.csv"))
    assert f"nndiag analyze {no_loss.where} --loss" in no_loss.do


def test_a_missing_path_among_good_ones_is_an_error_of_its_own(sixty: Path) -> None:
    good, missing = sixty / "run-01", sixty / "run-99"
    result = nndiag.analyze(missing, good, sixty / "nothing*")

    assert [diagnosis.run.path for diagnosis in result.diagnoses] == [str(good / "log.jsonl")]
    assert [error.where for error in result.errors] == [str(missing), str(sixty / "nothing*")]


def test_a_folder_in_which_nothing_can_be_read_is_one_error_with_advice(tmp_path: Path) -> None:
    for i in range(3):
        (tmp_path / f"{i}.csv").write_text("step,a\n1,2\n2,3\n3,4\n4,5\n")
    [error] = nndiag.analyze(tmp_path).errors

    assert error.where == str(tmp_path) and "3 files" in error.what
    assert f"nndiag analyze {tmp_path / '0.csv'} --loss a" in error.do


def test_a_run_that_is_asked_for_twice_is_judged_once(sixty: Path) -> None:
    run = sixty / "run-01"
    result = nndiag.analyze(run, run / "log.jsonl", str(run / "*.jsonl"), run)

    assert len(result.diagnoses) == 1 and result.errors == ()


@dataclass(frozen=True)
class Fatal(analysis.Judge):
    """A judge whose process is killed by one log, and hangs in another."""

    def __call__(self, source: Source) -> analysis.Outcome:
        if "run-07" in source.path:
            os.kill(os.getpid(), signal.SIGKILL)
        if "run-08" in source.path:
            time.sleep(60)
        return super().__call__(source)


def test_a_log_that_kills_or_hangs_its_process_costs_only_its_own_run(
    sixty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(analysis, "Judge", Fatal)
    result = nndiag.analyze(*(sixty / f"run-{i:02d}" for i in range(5, 12)), timeout_s=2, jobs=2)

    assert len(result.diagnoses) == 5
    killed, hung = result.errors
    assert "run-07" in killed.where and "killed by SIGKILL" in killed.what
    assert "run-08" in hung.where and "longer than 2 s" in hung.what and "--timeout" in hung.do


def test_a_single_run_with_a_limit_is_given_up_too(sixty: Path) -> None:
    [error] = nndiag.analyze(sixty / "run-01", timeout_s=1e-6).errors

    assert "given up" in error.what


def test_where_no_process_can_be_started_the_work_is_done_all_the_same(
    sixty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("Resource temporarily unavailable")

    monkeypatch.setattr(workers.subprocess, "Popen", refuse)

    assert len(nndiag.analyze(sixty / "run-0*", jobs=2).diagnoses) == 10


def test_few_small_runs_start_no_process(sixty: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers.subprocess, "Popen", None)

    assert len(nndiag.analyze(sixty / "run-0*").diagnoses) == 10


def test_a_fault_of_ours_is_the_error_of_one_run(
    sixty: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(run: nndiag.Run, detectors: object) -> nndiag.Diagnosis:
        if "run-02" in run.path:
            raise (MemoryError() if run.format == "csv" else KeyError("x"))
        return analysis.Diagnosis(run, nndiag.Verdict.HEALTHY)

    monkeypatch.setattr(analysis, "diagnose", faulty)
    result = nndiag.analyze(sixty / "run-0*", jobs=1)
    [error] = result.errors

    assert len(result.diagnoses) == 9
    assert "a fault of nndiag itself: KeyError" in error.what and "run-02" in error.where

    monkeypatch.setenv("NNDIAG_TRACEBACK", "1")
    with pytest.raises(KeyError):
        nndiag.analyze(sixty / "run-0*", jobs=1)


class Impatient:
    """Presses Ctrl-C after some runs."""

    def __init__(self, after: int) -> None:
        self.left = after

    def found(self, sources: int) -> None:
        pass

    def judged(self, word: str) -> None:
        self.left -= 1
        if not self.left:
            raise KeyboardInterrupt


@pytest.mark.parametrize("jobs", [1, 2])
def test_an_interrupted_analysis_keeps_what_is_known(sixty: Path, jobs: int) -> None:
    with pytest.raises(analysis.Interrupted) as caught:
        nndiag.analyze(sixty, jobs=jobs, progress=Impatient(after=10))
    known = caught.value.known

    assert known.unfinished == 50
    assert len(known.diagnoses) + len(known.skipped) == 10
    assert isinstance(caught.value, KeyboardInterrupt)  # for whoever calls us from Python


def test_one_run_is_kept_whole_and_many_are_outlines(tmp_path: Path) -> None:
    long = [2 * math.exp(-step / 4000) + 0.4 for step in range(20_000)]
    one = write_run(tmp_path / "a", 0, long)
    write_run(tmp_path / "b", 0, [v + 0.1 for v in long])

    def points(result: nndiag.Analysis) -> int:
        return len(next(result.diagnoses[0].run.series_of("loss")))

    assert points(nndiag.analyze(one)) == 20_000
    assert points(nndiag.analyze(tmp_path)) < 2_000
    assert points(nndiag.analyze(tmp_path, whole_runs=True)) == 20_000
    alone, among = nndiag.analyze(one), nndiag.analyze(tmp_path)
    told, told_among = (json.loads(as_json(result))["runs"][0] for result in (alone, among))
    assert told == told_among


def test_one_run_of_a_store_is_named_as_reports_name_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = tmp_path / "runs.db"
    store.touch()
    sources = [Source(str(store), "store", run, is_named=True) for run in ("a1", "b2")]
    read = []

    def note(source: Source, loss: str | None) -> nndiag.Run:
        read.append(source.run)
        raise analysis.UnreadableLog(where=str(source), what="is a stand-in")

    monkeypatch.setattr(analysis.discovery, "search", lambda path, reader: iter(sources))
    monkeypatch.setattr(analysis.discovery, "read", note)

    nndiag.analyze(f"{store}#b2")
    assert read == ["b2"]
    [error] = nndiag.analyze(f"{store}#c3").errors
    assert "no run 'c3'" in error.what and "a1, b2" in error.do


def test_a_file_may_have_a_number_sign_in_its_name(tmp_path: Path) -> None:
    path = write_run(tmp_path / "run#1", 0, losses(1))

    assert [d.run.path for d in nndiag.analyze(path, tmp_path / "run#1").diagnoses] == [str(path)]
