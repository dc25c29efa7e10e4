"""What is no log, or no longer one, where logs are looked for: pipes, devices, loops, odd names."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import nndiag
from nndiag.analysis import Analysis
from nndiag.detectors import catalogue as detectors
from nndiag.errors import UnreadableLog
from nndiag.readers.catalogue import READERS
from nndiag.readers.discovery import MAX_DEPTH, MAX_ENTRIES, Skipped, Source, search
from nndiag.readers.lines import text_lines
from tests.fuzz.judge import READ, Judge

LOG = "step,loss\n" + "".join(f"{step},{1 / (step + 1)}\n" for step in range(40))
LOG_NAMES = (
    "log.csv", "log.jsonl", "train.log", "trainer_state.json", "run-x.wandb", "mlflow.db",
    "events.out.tfevents.1.host", "log.csv.gz",
)  # fmt: skip
NAMED = [reader.name for reader in READERS]


def outcome(path: Path) -> str:
    """What came of the whole way of `analyze`; `Fault` is raised where the rule was broken."""
    return Judge(None, detectors.every()).judged(path)


def analysed(path: Path) -> Analysis:
    """In less than two seconds of this process's time, and with nothing unexpected."""
    started = time.process_time()
    found = nndiag.analyze(path)

    assert time.process_time() - started < 2
    return found


def refusal(found: Analysis) -> str:
    assert not found.diagnoses
    [error] = found.errors
    return error.what


@contextlib.contextmanager
def no_regular_files(folder: Path) -> Iterator[None]:
    """In `folder`, things that are called like logs, and are none that may be opened."""
    with contextlib.ExitStack() as stack:
        for number, name in enumerate(LOG_NAMES):
            os.mkfifo(folder / f"fifo-{name}")
            (folder / f"zero-{name}").symlink_to("/dev/zero")
            (folder / f"gone-{name}").symlink_to("nowhere")
            (folder / f"loop-{name}").symlink_to(f"loop-{name}")
            (folder / f"self-{number}").symlink_to(".", target_is_directory=True)
            made = stack.enter_context(socket.socket(socket.AF_UNIX))
            with contextlib.chdir(folder) if hasattr(contextlib, "chdir") else _inside(folder):
                made.bind(f"sock-{name}")
        yield


@contextlib.contextmanager
def _inside(folder: Path) -> Iterator[None]:  # contextlib.chdir of Python 3.11
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


def test_a_search_passes_by_what_is_no_regular_file(tmp_path: Path) -> None:
    (tmp_path / "good.csv").write_text(LOG)
    with no_regular_files(tmp_path):
        found = analysed(tmp_path)

    assert [Path(diagnosis.run.path).name for diagnosis in found.diagnoses] == ["good.csv"]
    assert not found.errors
    assert {Path(one.where).name for one in found.skipped} >= {"fifo-log.csv", "sock-log.jsonl"}


@pytest.mark.parametrize("reader", NAMED)
def test_no_reader_opens_what_is_no_regular_file(reader: str, tmp_path: Path) -> None:
    module = next(one for one in READERS if one.name == reader)
    with no_regular_files(tmp_path):
        for path in [*sorted(tmp_path.iterdir()), Path("/dev/zero"), Path("/dev/tty")]:
            if path.name.startswith("self-"):
                continue
            module.recognises(path, b"")
            with pytest.raises(UnreadableLog):
                module.read(path, None)


@pytest.mark.parametrize("reader", NAMED)
@pytest.mark.parametrize("name", ["missing.csv", "a" * 300, "nul\0byte", "not/there", "\udcff"])
def test_a_path_that_does_not_exist_is_one_error(reader: str, name: str, tmp_path: Path) -> None:
    module = next(one for one in READERS if one.name == reader)
    with pytest.raises(UnreadableLog):
        module.read(tmp_path / name, None)


def test_a_loop_of_links_ends(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "up").symlink_to("../..", target_is_directory=True)
    (tmp_path / "a" / "b" / "log.csv").write_text(LOG)
    found = analysed(tmp_path)

    assert len(found.diagnoses) == 1


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.csv").write_text(LOG)
    searched = tmp_path / "searched"
    searched.mkdir()
    (searched / "log.csv").symlink_to(tmp_path / "secret.csv")

    assert "link" in refusal(analysed(searched))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_what_may_not_be_read_is_said(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text(LOG)
    (tmp_path / "log.csv").chmod(0)

    assert "permission denied" in refusal(analysed(tmp_path / "log.csv"))


ODD_NAMES = {
    "a newline": b"a\nb.csv",
    "escape sequences": b"\x1b[31m\x1b]0;owned\x07.csv",
    "bidi controls": "\u202egpj.csv".encode(),
    "Rich markup": b"[red]conv[link=file:x][bold.csv",
    "no UTF-8": b"\xff\xfe\x80.csv",
    "a C1 control": "\x9b31m.csv".encode(),
    "HTML": b"<script>alert(1)<!--.csv",
    "quotes": b'\'; rm -rf "$HOME" #.csv',
    "the look of an option": b"--loss=x.csv",
    "the look of a glob": b"[*]?.csv",
    "a percent sign": b"%s%n.csv",
    "length": b"n" * 250 + b".csv",
}


@pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES)
def test_any_name_of_a_file_will_do(name: bytes, tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(name)
    path.write_text(LOG)

    assert outcome(path).startswith(READ)  # which looks at the reports too
    assert outcome(tmp_path).startswith(READ)


@pytest.mark.parametrize("name", ODD_NAMES.values(), ids=ODD_NAMES)
def test_any_name_of_a_folder_will_do(name: bytes, tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(name)
    folder.mkdir()
    (folder / "log.csv").write_text(LOG)

    assert outcome(tmp_path).startswith(READ)
    assert outcome(folder).startswith(READ)


def test_an_empty_terabyte_is_refused_without_reading_it(tmp_path: Path) -> None:
    for name in ("log.csv", "log.jsonl", "x.wandb", "mlflow.db", "events.out.tfevents.1.h"):
        path = tmp_path / name
        path.touch()
        os.truncate(path, 1 << 40)
        assert refusal(analysed(path))


def test_hollow_files_in_a_run_directory_are_refused(tmp_path: Path) -> None:
    (tmp_path / "rank-0").mkdir()
    for name in ("run.json", "rank-0/process.json", "rank-0/events.jsonl", "rank-0/steps-0.arrows"):
        (tmp_path / name).touch()
        os.truncate(tmp_path / name, 1 << 40)

    assert refusal(analysed(tmp_path))


@pytest.mark.parametrize(
    ("name", "begin"),
    [
        ("x.wandb", b":W&B\xe1\xbe\x00"),
        ("log.json", b'{"loss": ['),
        ("mlflow.db", b"SQLite format 3\0"),
        ("trainer_state.json", b'{"log_history": ['),
    ],
)
def test_a_terabyte_behind_a_good_beginning_is_refused(
    name: str, begin: bytes, tmp_path: Path
) -> None:
    path = tmp_path / name
    path.write_bytes(begin)
    os.truncate(path, 1 << 40)

    assert refusal(analysed(path))


def test_a_search_ends_after_so_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert MAX_ENTRIES <= 100_000
    monkeypatch.setattr("nndiag.readers.discovery.MAX_ENTRIES", 500)
    for number in range(510):
        (tmp_path / f"{number:06}").touch()
    (tmp_path / "000000.csv").write_text(LOG)
    (tmp_path / "z.csv").write_text(LOG)
    found = list(search(tmp_path))

    assert [Path(one.path).name for one in found if isinstance(one, Source)] == ["000000.csv"]
    [ended] = [one for one in found if isinstance(one, Skipped)]
    assert "search ended" in ended.reason


def test_a_folder_of_100_levels_is_searched_to_a_depth(tmp_path: Path) -> None:
    here = tmp_path
    for level in range(100):
        (here / "log.csv").write_text(LOG.replace("0.5", f"0.{level:03}5"))
        here = here / "d"
        here.mkdir()
    found = analysed(tmp_path)

    assert len(found.diagnoses) + sum("same" in one.what for one in found.skipped) <= MAX_DEPTH
    assert any("not searched" in one.what for one in found.skipped)


class Vanishing:
    """A file system where things change between two looks at them."""

    def __init__(self, path: Path, change: str) -> None:
        self.path, self.change, self.opened = path, change, 0

    def open(self, path: Path) -> object:
        self.opened += 1
        if self.opened == 2:
            if self.change == "gone":
                self.path.unlink()
            elif self.change == "empty":
                self.path.write_bytes(b"")
            elif self.change == "a folder":
                self.path.unlink()
                self.path.mkdir()
            elif self.change == "a pipe":
                self.path.unlink()
                os.mkfifo(self.path)
            else:
                self.path.write_bytes(b"\x00\xff" * 5000)
        return OPEN_REGULAR(path)


OPEN_REGULAR = text_lines.open_regular


@pytest.mark.parametrize("change", ["gone", "empty", "a folder", "a pipe", "other bytes"])
@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("log.csv", LOG),
        ("log.jsonl", "".join(json.dumps({"step": s, "loss": 0.5}) + "\n" for s in range(9))),
        ("log.json", json.dumps({"loss": [0.5] * 9})),
        ("train.log", "".join(f"step {s} loss 0.5\n" for s in range(9))),
        ("trainer_state.json", json.dumps({"log_history": [{"step": 1, "loss": 0.5}] * 9})),
    ],
    ids=["csv", "jsonl", "json", "text", "hf-trainer-state"],
)
def test_a_log_may_change_between_two_looks(
    name: str, content: str, change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / name
    path.write_text(content)
    fickle = Vanishing(path, change)
    monkeypatch.setattr(text_lines, "open_regular", fickle.open)
    outcome(path)

    assert fickle.opened >= 2


def test_a_log_may_be_written_while_it_is_read(tmp_path: Path) -> None:
    path, done = tmp_path / "log.csv", threading.Event()

    def write() -> None:
        step = 0
        while not done.is_set():
            if step % 500 == 0:
                path.write_text("step,loss\n")
            with path.open("a") as file:
                file.write(f"{step},0.5\n{step + 1},0.")
            step += 2

    writer = threading.Thread(target=write)
    path.write_text(LOG)
    writer.start()
    try:
        for _ in range(20):
            nndiag.analyze(path)  # a run or an error: neither hangs nor raises
    finally:
        done.set()
        writer.join()
