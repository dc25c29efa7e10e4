"""What the training process relies on: private files, whole records, plain OSErrors, no cost."""

from __future__ import annotations

import errno
import os
import stat
import subprocess
import sys
import time

import pytest

from nndiag.journal import writer as writer_module
from nndiag.journal.reader import read_events, read_stream
from nndiag.journal.writer import EventWriter, StreamWriter, make_directory, write_json

COLUMNS = [("loss", ""), ("lr", "")]


def stream(path) -> StreamWriter:
    return StreamWriter(str(path), owner="Adam", columns=COLUMNS)


NEW_FILES = {
    "a stream": lambda path: stream(path).close(),
    "events": lambda path: EventWriter(str(path)).close(),
    "a JSON file": lambda path: write_json(str(path), {"schema": "nndiag.run/1"}),
}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o777])
@pytest.mark.parametrize("create", NEW_FILES.values(), ids=NEW_FILES)
def test_a_file_is_private_whatever_the_umask(tmp_path, create, umask):
    before = os.umask(umask)
    try:
        create(tmp_path / "file")
    finally:
        os.umask(before)

    assert stat.S_IMODE(os.stat(tmp_path / "file").st_mode) == 0o600


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_a_folder_and_its_new_parents_are_private_whatever_the_umask(tmp_path, umask):
    before = os.umask(umask)
    try:
        make_directory(str(tmp_path / "runs" / "run" / "rank-0"))
    finally:
        os.umask(before)

    for name in ("runs", "runs/run", "runs/run/rank-0"):
        assert stat.S_IMODE(os.stat(tmp_path / name).st_mode) == 0o700


def test_a_folder_that_exists_stays_as_it_is(tmp_path):
    tmp_path.chmod(0o755)
    (tmp_path / "other").write_text("")

    make_directory(str(tmp_path))

    assert stat.S_IMODE(tmp_path.stat().st_mode) == 0o755
    with pytest.raises(FileExistsError):
        make_directory(str(tmp_path / "other"))


@pytest.mark.parametrize("create", [stream, lambda path: EventWriter(str(path))])
def test_a_file_that_exists_is_never_written_to(tmp_path, create):
    (tmp_path / "file").write_text("precious")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")

    for name in ("file", "link"):
        with pytest.raises(FileExistsError):
            create(tmp_path / name)

    assert (tmp_path / "file").read_text() == "precious"
    assert not (tmp_path / "elsewhere").exists()


def test_json_replaces_a_link_and_not_what_it_leads_to(tmp_path):
    (tmp_path / "precious").write_text("precious")
    (tmp_path / "run.json").symlink_to(tmp_path / "precious")

    write_json(str(tmp_path / "run.json"), {})

    assert (tmp_path / "precious").read_text() == "precious"
    assert not (tmp_path / "run.json").is_symlink()


def test_a_subprocess_of_the_script_does_not_inherit_the_journal(tmp_path):
    open_stream = stream(tmp_path / "s")

    assert not os.get_inheritable(open_stream._file._fd)


class FaultyWrite:
    """`os.write` that does as told call by call, then as it should."""

    def __init__(self, *faults):
        self.faults = list(faults)

    def __call__(self, fd, data):
        fault = self.faults.pop(0) if self.faults else None
        if isinstance(fault, BaseException):
            raise fault
        return os.write(fd, data if fault is None else data[:fault])


def rows_after(tmp_path, monkeypatch, *faults) -> list[int]:
    """The steps read back when the second of three rows meets `faults`."""
    rows = stream(tmp_path / "s")
    rows.append(0, 0.0, [1.0, 1.0])
    monkeypatch.setattr(writer_module, "_write", FaultyWrite(*faults))
    try:
        rows.append(1, 0.0, [1.0, 1.0])
    except OSError as error:
        assert error.errno == errno.ENOSPC
    monkeypatch.undo()
    rows.append(2, 0.0, [1.0, 1.0])
    found = read_stream(tmp_path / "s")
    assert (found.torn_bytes, found.damaged_records) == (0, 0)
    return found.steps.tolist()


@pytest.mark.parametrize("fault", [InterruptedError(), 0, 1, 100])
def test_an_interrupted_or_short_write_is_tried_once_more(tmp_path, monkeypatch, fault):
    assert rows_after(tmp_path, monkeypatch, fault) == [0, 1, 2]


FULL = OSError(errno.ENOSPC, "disk full")


@pytest.mark.parametrize("faults", [(FULL,), (5, FULL), (5, 5), (0, 0)])
def test_a_row_that_does_not_fit_is_taken_back_and_the_next_one_is_whole(
    tmp_path, monkeypatch, faults
):
    assert rows_after(tmp_path, monkeypatch, *faults) == [0, 2]


def test_a_ctrl_c_in_the_middle_of_a_row_takes_it_back(tmp_path, monkeypatch):
    rows = stream(tmp_path / "s")
    monkeypatch.setattr(writer_module, "_write", FaultyWrite(50, KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        rows.append(0, 0.0, [1.0, 1.0])
    monkeypatch.undo()
    rows.append(1, 0.0, [1.0, 1.0])

    assert read_stream(tmp_path / "s").steps.tolist() == [1]


def test_an_event_that_does_not_fit_leaves_no_half_line(tmp_path, monkeypatch):
    events = EventWriter(str(tmp_path / "e"))
    monkeypatch.setattr(writer_module, "_write", FaultyWrite(5, FULL))
    with pytest.raises(OSError, match="disk full"):
        events.append({"event": "note", "text": "lost"})
    monkeypatch.undo()
    events.append({"event": "note", "text": "kept"})

    [event], skipped = read_events(tmp_path / "e")
    assert (event["text"], skipped) == ("kept", 0)


def test_a_json_file_that_does_not_fit_leaves_the_old_one(tmp_path, monkeypatch):
    write_json(str(tmp_path / "run.json"), {"pid": 1})
    monkeypatch.setattr(writer_module, "_write", FaultyWrite(FULL))

    with pytest.raises(OSError, match="disk full"):
        write_json(str(tmp_path / "run.json"), {"pid": 2})

    [left] = tmp_path.iterdir()
    assert '"pid": 1' in left.read_text()


def test_writing_after_close_is_an_os_error_and_closing_twice_is_none(tmp_path):
    rows = stream(tmp_path / "s")
    rows.close()
    rows.close()

    with pytest.raises(OSError, match="closed"):
        rows.append(0, 0.0, [1.0, 1.0])


PATCHES = """
import os, json, time
from nndiag.journal.writer import EventWriter, StreamWriter, write_json
def broken(*args, **kwargs):
    raise RuntimeError("the script patched this")
for name in ("open", "write", "close", "replace", "unlink", "getpid", "fchmod", "ftruncate"):
    setattr(os, name, broken)
json.dumps = time.monotonic_ns = broken
rows = StreamWriter("s", owner="Adam", columns=[("loss", "")])
rows.append(0, 0.0, [1.0])
rows.close()
EventWriter("e").append({"event": "note"})
write_json("run.json", {})
"""


def test_a_script_that_patches_os_does_not_reach_the_journal(tmp_path):
    run_here(tmp_path, PATCHES)

    assert read_stream(tmp_path / "s").steps.tolist() == [0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["e", "run.json", "s"]


def test_the_writer_loads_only_the_standard_library(tmp_path):
    program = "import sys, nndiag.journal.writer; print(*{m.split('.')[0] for m in sys.modules})"

    loaded = set(run_here(tmp_path, program).split())

    foreign = loaded - set(sys.stdlib_module_names) - {"nndiag", "__main__"}
    assert not foreign & {"numpy", "torch", "rich", "typer", "pyarrow"}


def run_here(folder, program) -> str:
    done = subprocess.run(
        [sys.executable, "-c", program],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def environment() -> dict[str, str]:
    root = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return {**os.environ, "PYTHONPATH": root}


ENDLESS = """
import os
from nndiag.journal.writer import EventWriter, StreamWriter
rows = StreamWriter("s", owner="Adam", columns=[("loss", ""), ("lr", "")])
events = EventWriter("e")
step = 0
while True:
    rows.append(step, step / 8, [step * 0.5, 0.1])
    events.append({"event": "metric", "step": step})
    os.write(1, step.to_bytes(8, "little"))  # acknowledged
    step += 1
"""


@pytest.mark.parametrize("seconds", [0.0, 0.002, 0.01, 0.03, 0.1])
def test_a_kill_loses_no_acknowledged_record(tmp_path, seconds):
    program = [sys.executable, "-c", ENDLESS]
    with subprocess.Popen(
        program, cwd=tmp_path, env=environment(), stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        told = child.stdout.read(8)  # it runs
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:  # the pipe must not fill up
            told += os.read(child.stdout.fileno(), 65536)
        child.kill()
        told += child.stdout.read()
    acknowledged = len(told) // 8

    found = read_stream(tmp_path / "s")
    events, _ = read_events(tmp_path / "e")

    assert acknowledged >= 1
    assert found.steps.tolist() == list(range(len(found.steps)))
    assert found.values[:, 0].tolist() == [step * 0.5 for step in range(len(found.steps))]
    assert acknowledged <= len(found.steps) <= acknowledged + 1
    assert acknowledged <= len(events) <= acknowledged + 1
    assert found.damaged_records == 0


def test_a_hundred_thousand_steps_are_written_and_read_quickly(tmp_path):
    columns = [(f"metric-{i}", "") for i in range(12)]
    rows = StreamWriter(str(tmp_path / "s"), owner="Adam", columns=columns)
    values = [0.5] * 12
    started = time.perf_counter()
    for step in range(100_000):
        rows.append(step, 0.0, values)
    written = time.perf_counter()
    found = read_stream(tmp_path / "s")
    read = time.perf_counter()

    assert len(found.steps) == 100_000
    assert (written - started) / 100_000 < 200e-6  # seconds a step; 5e-6 measured
    assert read - written < 2.0  # seconds; 0.12 measured
