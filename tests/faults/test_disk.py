"""Whatever the disk does, the training is the same, and what was written before is readable."""

from __future__ import annotations

import json
import os
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nndiag.watcher import run_directory
from tests.adapters.observed import Train
from tests.faults.conftest import PRELUDE, Alike

# Every call of the system that the journal makes fails once, or from then on, in a fork of its own.
# What `append` took without an error is what the journal must hold. Here every 5th to 11th call;
# all of them under NNDIAG_FAULTS=all, which benchmarks/soak/run.py --faults sets.
EVERY_CALL = """
import errno, glob, hashlib, json, os, signal, sys, tempfile, traceback
import torch, torch.nn as nn
from nndiag.journal import writer
from nndiag.journal.reader import read_events, read_stream
from nndiag.watcher import session
CALLS = ("_open", "_write", "_close", "_mkdir", "_replace", "_fchmod", "_fstat", "_ftruncate")
kind, number, stride = sys.argv[1], getattr(errno, sys.argv[2]), int(sys.argv[3])
def train():
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
    opt = torch.optim.Adam(net.parameters(), lr=0.1)
    for step in range(6):
        opt.zero_grad(); net(torch.randn(16, 4)).square().mean().backward()
        opt.step(); print("val_loss:", step)
    state = [p.detach().numpy().tobytes() for p in net.parameters()] + [torch.get_rng_state().numpy().tobytes()]
    return hashlib.sha256(b"".join(state)).hexdigest()
made, failing, taken = 0, None, {}
def sabotage(name):
    real = getattr(writer, name)
    def call(*args):
        global made
        made += 1
        if failing is not None and (made == failing or kind == "always" and made > failing):
            if sys.argv[2] == "EINTR" and name != "_write": return real(*args)
            if sys.argv[2] == "E2BIG": return real(args[0], args[1][:-1]) if name == "_write" else real(*args)
            raise OSError(number, os.strerror(number))
        return real(*args)
    setattr(writer, name, call)
def watched(run):
    for name in CALLS: sabotage(name)
    whole = writer.StreamWriter.append
    def append(self, step, t, values):
        whole(self, step, t, values)
        taken.setdefault(self.path, []).append(step)
    writer.StreamWriter.append = append
    begin = writer.StreamWriter.__init__
    def init(self, path, **told): self.path = path; begin(self, path, **told)
    writer.StreamWriter.__init__ = init
    one = session.Session(torch, run, {"every": 1})
    try: one.start({})
    except Exception: pass  # as the bootstrap does
    result = train()
    one._finish()
    return result, made, taken
def forked(at):
    global failing
    failing = at
    run = tempfile.mkdtemp(dir=os.getcwd()); back, to = os.pipe(); pid = os.fork()
    if pid == 0:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        try: os.write(to, json.dumps(watched(run)).encode())
        except BaseException: os.write(to, json.dumps([traceback.format_exc()[-900:], 0, {}]).encode())
        os._exit(0)
    os.close(to); os.waitpid(pid, 0)
    result, count, taken = json.loads(os.fdopen(back).read())
    for path, steps in taken.items():
        found = read_stream(path)
        if found.steps.tolist() != steps or found.damaged_records: result = f"{steps} of {path}: {found}"
    for path in glob.glob(run + "/rank-*/events.jsonl"):
        if read_events(path)[1] > 1: result = "events lost"
    return result, count
plain = train()
result, count = forked(None)
assert result == plain, result
wrong = [(at, found) for at in range(1, count + 1, stride) if (found := forked(at)[0]) != plain]
print(json.dumps([count, wrong]))
"""
ERRORS = {
    "F1 disk full": ("ENOSPC", 9),
    "F3 input/output error": ("EIO", 7),
    "F3 quota exceeded": ("EDQUOT", 11),
    "F3 interrupted": ("EINTR", 5),
    "F3 written but for one byte": ("E2BIG", 5),
    "F4 stale file handle": ("ESTALE", 11),
    "F10 too many open files": ("EMFILE", 11),
}


@pytest.mark.parametrize("kind", ["once", "always"])
@pytest.mark.parametrize("error, stride", ERRORS.values(), ids=ERRORS)
def test_every_system_call_of_ours_may_fail(
    train: Train, kind: str, error: str, stride: int
) -> None:
    stride = 1 if os.environ.get("NNDIAG_FAULTS") == "all" else stride
    run = train(EVERY_CALL, kind, error, str(stride), watched=False)

    count, wrong = json.loads(run.stdout.splitlines()[-1])
    assert count > 30
    assert wrong == []


LOST: dict[str, tuple[str, int]] = {
    "F7 deleted before the first step": ("if run_dir: shutil.rmtree(run_dir)\nfit(6)", 0),
    "F7 deleted under way": ("fit(6, lambda s: s == 3 and run_dir and shutil.rmtree(run_dir))", 0),
    "F7 moved under way": ("""
fit(3)
if run_dir: os.rename(run_dir, run_dir + "-moved")
fit(3)""", 0),
    "F7 a file in its place": (
        "if run_dir: shutil.rmtree(run_dir); open(run_dir, 'w').close()\nfit(6)", 0),
    "F8 truncated by somebody": ("""
fit(3)
for path in glob.glob(run_dir + "/rank-0/*"): os.truncate(path, 0)
fit(3)""", 0),
    "F8 cut within a row by somebody": ("""
fit(3)
for path in glob.glob(run_dir + "/rank-0/*.arrows"): os.truncate(path, os.path.getsize(path) - 9)
fit(3)""", 5),
    "F8 replaced by somebody": ("""
fit(3)
for path in glob.glob(run_dir + "/rank-0/*"): os.remove(path); open(path, "w").close()
fit(3)""", 0),
    "F9 the size of files is limited": ("""
import resource
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))
fit(30)
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)""", 2),
    "F10 no descriptor is left for us": ("""
import resource
with torch.autograd.profiler.record_function("warm"): opt.step()  # torch opens files itself
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); held = []
try:
    while True: held.append(os.dup(0))
except OSError: pass
fit(12); [os.close(fd) for fd in held]""", 0),
}  # fmt: skip


@pytest.mark.parametrize("script, least", LOST.values(), ids=LOST)
def test_the_training_goes_on_when_the_journal_is(alike: Alike, script: str, least: int) -> None:
    run = alike("import glob, shutil\n" + script)

    if least:
        assert len(run.series("loss")) >= least


@pytest.fixture
def mount(tmp_path: Path) -> Iterator[str]:
    """A line of script that puts a small file system of its own under its run directory."""
    probe = tmp_path / "probe"
    probe.mkdir()
    command = "mount -t tmpfs -o size=64k tmpfs"
    try:
        subprocess.run([*command.split(), probe], check=True, capture_output=True)
    except (OSError, subprocess.SubprocessError):
        pytest.skip("no file system can be mounted here")
    yield f"assert not run_dir or os.system({command + ' '!r} + run_dir) == 0\n"
    for folder in (probe, *tmp_path.glob("run-*")):
        subprocess.run(["umount", "-l", folder], check=False, capture_output=True)


def test_a_disk_that_is_really_full_is_said_in_the_journal(alike: Alike, mount: str) -> None:
    """F1: the rows before are there, and the reason is."""
    run = alike(mount + "fit(400)")

    steps = list(run.series("loss"))
    assert steps == list(range(len(steps))) and 10 < len(steps) < 400
    assert "No space left" in run.of_kind("observation-ended")[0]["reason"]


FILL = """
from nndiag.watcher.recorder import RESERVE
if os.path.exists(reserve := os.environ["NNDIAG_RUN"] + "/rank-0/" + RESERVE): os.unlink(reserve)
try:
    with open(os.environ["NNDIAG_RUN"] + "/filler", "wb", 0) as filler:
        while filler.write(b"x"): pass
except OSError: pass
"""


def test_a_report_of_what_was_recorded_comes_from_a_full_disk_too(
    nndiag: Callable[..., subprocess.CompletedProcess[str]], mount: str, tmp_path: Path
) -> None:
    """F1, seen by the supervisor; `probe` is such a disk."""
    (tmp_path / "train.py").write_text(PRELUDE + f"fit(600)\n{FILL}\nsys.exit(7)")
    done = nndiag("watch", "--every", "1", "--run-dir", "probe/run", "train.py")

    assert done.returncode == 7
    assert "the end of the run could not be recorded: No space left on device" in done.stderr
    assert "observation ended" in done.stderr and "loss" in done.stderr


def test_a_disk_that_turns_read_only_is_no_trouble(alike: Alike, mount: str) -> None:
    """F6, under way."""
    run = alike(mount + "if run_dir: os.system('mount -o remount,ro ' + run_dir)\nfit(12)")

    assert not run.rank.exists()


def test_dev_full_in_place_of_every_file_is_no_trouble(alike: Alike) -> None:
    """F2: nothing can be written at all, also not at exit."""
    run = alike("""
import nndiag.journal.writer as writer
real = writer._open
writer._open = lambda path, *more: real("/dev/full", os.O_WRONLY)
writer._fchmod = None  # it would be the mode of the device
fit(8)
""")

    assert list(run.rank.iterdir()) == []


STUCK = """
import time
if run_dir:
    import nndiag.journal.writer as writer
    real, calls = writer._write, []
    def stuck(fd, data):
        calls.append(1)
        if len(calls) in STUCK_CALLS: time.sleep(1.2)
        ERROR
        return real(fd, data)
    fit(4); writer._write = stuck
began = time.monotonic(); fit(20); took = time.monotonic() - began
if run_dir: writer._write = real
"""
HANGS = {
    "F5 for one write": ("(1,)", ""),
    "F5 for every write": ("range(99)", ""),
    "F5 and then fails": ("range(99)", "raise OSError(5, 'Input/output error')"),
}


@pytest.mark.parametrize("calls, error", HANGS.values(), ids=HANGS)
def test_a_disk_that_hangs_costs_its_one_write_and_is_then_left_alone(
    alike: Alike, calls: str, error: str
) -> None:
    script = STUCK.replace("STUCK_CALLS", calls).replace("ERROR", error)
    run = alike(script + "\nassert took < 2 * 1.2 + 1.2, took")  # it, what is said of it, and slack

    assert list(run.series("loss")) == [0, 1, 2, 3]
    said = " ".join(event["text"] for event in run.of_kind("note"))
    assert ("Input/output error" if error else "the disk took 1.2 s for one write") in said
    assert run.of_kind("observation-ended") == []


def test_after_its_rest_the_disk_is_used_again_and_the_gap_is_told(alike: Alike) -> None:
    """F5: with a shorter rest than ours."""
    run = alike(
        STUCK.replace("STUCK_CALLS", "(1,)").replace("ERROR", "")
        + """
if run_dir:
    import nndiag.watcher.patience as patience
    patience._clock = lambda: 1e12
fit(3)
"""
    )

    steps = list(run.series("loss"))
    assert steps == [0, 1, 2, 3, 24, 25, 26]
    assert "records were left out" in run.of_kind("note")[-1]["text"]


def test_a_pipe_that_is_full_costs_no_step(alike: Alike) -> None:
    """F5: standard output that nobody reads fast; ours is not on that way."""
    alike("""
import threading, time
back, to = os.pipe(); saved = os.dup(1); sys.stdout.flush(); os.dup2(to, 1)
def drain():
    while os.read(back, 65536): time.sleep(0.01)
reader = threading.Thread(target=drain, daemon=True); reader.start()
fit(5, lambda s: print("val_loss: 1 " + "x" * 70000, flush=True))
sys.stdout.flush(); os.dup2(saved, 1)
""")


REFUSED = {
    "F6 under a file": "file/run",
    "F6 a name that is too long": "x" * 300,
    "F6 where nothing can be made": "/proc/nndiag/run",
    "F6 a file": "file",
}


@pytest.mark.parametrize("place", REFUSED.values(), ids=REFUSED)
def test_a_place_that_cannot_hold_the_run_is_refused_before_the_start(
    nndiag, tmp_path: Path, place: str
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "train.py").write_text("open('ran', 'w')")
    done = nndiag("watch", "--run-dir", place, "train.py")

    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert not (tmp_path / "ran").exists()


def test_a_run_directory_that_is_gone_at_the_end_changes_no_exit_status(
    nndiag, tmp_path: Path
) -> None:
    """F7, seen by the supervisor."""
    (tmp_path / "train.py").write_text(
        "import os, shutil, sys; shutil.rmtree(os.environ['NNDIAG_RUN']); sys.exit(7)"
    )
    done = nndiag("watch", "train.py")

    assert done.returncode == 7 and "Traceback" not in done.stderr
    assert "no report (FileNotFoundError" in done.stderr


def test_a_disk_that_never_answers_again_does_not_keep_the_exit_status(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F5, seen by the supervisor."""
    made = run_directory.make(tmp_path / "run", stem="x", script="x.py", settings={})
    never = threading.Event()
    monkeypatch.setattr(run_directory, "write_json", lambda *_: never.wait(20))
    monkeypatch.setattr(run_directory, "ANSWER_S", 0.05)

    with pytest.raises(TimeoutError, match="does not answer"):
        made.close(status=0, signal=None, seconds=1.0)
    never.set()


def test_where_no_thread_can_be_started_the_ending_is_written_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """F68, and F67: the one thread of ours is the supervisor's."""

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    made = run_directory.make(tmp_path / "run", stem="x", script="x.py", settings={})
    monkeypatch.setattr(threading.Thread, "start", start)
    made.close(status=3, signal=None, seconds=1.0)

    assert json.loads((tmp_path / "run" / "run.json").read_text())["ended"]["status"] == 3
