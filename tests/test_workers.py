"""Pieces of work in several processes: order, deaths, hangs, endings. The work is Python's own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from nndiag import workers
from nndiag.workers import Lost, NoWorkers

ROOT = Path(__file__).parent.parent
DIE = "__import__('os').kill(__import__('os').getpid(), {})"


def results(pieces: list[str], limit_s: float | None = 30.0) -> list[object]:
    """What Python expressions give, worked out in two processes."""
    return [result for _, result in sorted(workers.each(eval, pieces, jobs=2, limit_s=limit_s))]


def test_every_piece_gets_its_own_result() -> None:
    assert results([f"{i} ** 2" for i in range(50)]) == [i**2 for i in range(50)]


@pytest.mark.parametrize(
    ("death", "told"),
    [
        (DIE.format(9), "was killed by SIGKILL, as the system does when memory runs out"),
        (DIE.format(11), "was killed by SIGSEGV"),
        ("__import__('os')._exit(3)", "ended with status 3"),
        ("1 / 0", "ended with status 1"),
    ],
)
def test_a_death_costs_only_its_own_piece(death: str, told: str) -> None:
    assert results(["1", death, "3", "4", "5"]) == [1, Lost(told), 3, 4, 5]


def test_a_piece_whose_process_died_is_tried_once_more_alone(tmp_path: Path) -> None:
    flag = tmp_path / "tried"
    dies_once = f"'again' if __import__('os').path.exists({str(flag)!r}) else "
    dies_once += f"(open({str(flag)!r}, 'w').close(), {DIE.format(9)})"

    assert results(["1", dies_once, "3"]) == [1, "again", 3]


def test_a_piece_that_takes_too_long_is_given_up_and_the_others_are_not() -> None:
    start = time.monotonic()
    given = results(["1", "__import__('time').sleep(60)", "3"], limit_s=1.0)

    assert given == [1, Lost("took longer than 1 s", too_slow=True), 3]
    assert time.monotonic() - start < 30


def test_without_any_process_the_caller_is_told_to_work_itself(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "executable", "/no/such/python")
    with pytest.raises(NoWorkers):
        results(["1"])
    monkeypatch.setattr(sys, "executable", "/bin/false")  # starts, and is gone at once
    with pytest.raises(NoWorkers):
        results(["1"])


def test_large_pieces_and_results_pass() -> None:
    assert results([f"len({'x' * 10**6!r}) * 'y'"] * 2) == ["y" * 10**6] * 2


def is_alive(process: int) -> bool:
    """A process that runs; one that only waits to be fetched by its parent does not."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_closing_the_iterator_ends_the_processes_in_the_middle_of_their_work() -> None:
    pid, slow = "__import__('os').getpid()", "__import__('time').sleep(60)"
    answers = workers.each(eval, [pid, slow, slow], jobs=2, limit_s=None)
    _, child = next(answers)
    assert is_alive(child)
    answers.close()

    assert not is_alive(child)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="needs /proc")
def test_no_process_outlives_a_parent_that_was_killed() -> None:
    program = (
        "from nndiag import workers\n"
        "pieces = ['__import__(\"os\").getpid()', '__import__(\"time\").sleep(60)'] * 2\n"
        "for _, child in workers.each(eval, pieces, jobs=2, limit_s=None): print(child, flush=True)"
    )
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, cwd=ROOT
    )
    assert parent.stdout is not None
    with parent.stdout as said:
        child = int(said.readline())
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    deadline = time.monotonic() + 10
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)

    assert not is_alive(child)


def test_the_caller_is_not_run_again_and_its_folder_is_not_imported_from(tmp_path: Path) -> None:
    """A script without a guard, in a folder with a `json.py` of its own."""
    (tmp_path / "json.py").write_text("raise SystemExit('the wrong json')")
    script = tmp_path / "scripts" / "script.py"
    script.parent.mkdir()
    script.write_text(
        "print('started')\nfrom nndiag import workers\n"
        "print(sorted(workers.each(abs, [-1, -2], jobs=2, limit_s=None)))"
    )
    done = subprocess.run(
        [sys.executable, script],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )

    assert done.stdout == "started\n[(0, 1), (1, 2)]\n", done.stderr
