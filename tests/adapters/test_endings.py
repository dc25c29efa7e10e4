"""How a watched script can end, or lose its journal, and what is left of the record."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from tests.adapters.observed import Train

PRELUDE = """
import os, shutil, sys
import torch, torch.nn as nn
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
opt = torch.optim.SGD(net.parameters(), lr=0.1)
def fit(steps, before=lambda step: None):
    for step in range(steps):
        opt.zero_grad(); net(torch.ones(3, 4)).square().mean().backward(); before(step); opt.step()
run_dir = os.environ["NNDIAG_RUN"]
"""
ENDINGS = {
    "its last line": ("fit(7)", 0, [("finished", "")]),
    "sys.exit": ("fit(7); sys.exit(3)", 3, [("finished", "")]),
    "an exception": ("fit(7); raise KeyError(1)", 1, [("exception", "KeyError")]),
    "Ctrl-C": (
        "import signal\nfit(7); os.kill(os.getpid(), signal.SIGINT)",
        -2,
        [("exception", "KeyboardInterrupt")],
    ),
    "os._exit": ("fit(7); os._exit(5)", 5, []),
    "SIGKILL": ("fit(7); os.kill(os.getpid(), 9)", -9, []),
}


@pytest.mark.parametrize("script, status, told", ENDINGS.values(), ids=ENDINGS)
def test_no_step_is_lost_when_a_script_ends_by(
    train: Train, script: str, status: int, told: list[tuple[str, str]]
):
    run = train(PRELUDE + script, status=status)

    assert list(run.series("loss")) == list(range(7))
    assert list(run.series("param_norm", "0.weight")) == list(range(7))
    assert [(event["how"], event["what"]) for event in run.of_kind("exit")] == told
    assert run.process["models"][0]["layers"]


def test_what_the_script_does_at_exit_is_still_seen(train: Train):
    run = train(PRELUDE + "import atexit\natexit.register(lambda: fit(2))\nfit(3)")

    assert list(run.series("loss")) == list(range(5))


def test_max_steps_ends_the_script_with_status_0(train: Train):
    script = PRELUDE + "try: fit(100)\nfinally: print('saved')\nprint('never')"
    run = train(script, max_steps=4)

    assert run.stdout == "saved\n" and run.stderr == ""
    assert len(run.series("loss")) == 4


def test_max_steps_holds_though_the_observation_has_ended(train: Train):
    run = train(PRELUDE + "shutil.rmtree(run_dir)\nfit(100)\nprint('never')", max_steps=6)

    assert run.stdout == ""


LOSSES = {
    "deleted at once": "shutil.rmtree(run_dir)",
    "deleted and made a file": "shutil.rmtree(run_dir); open(run_dir, 'w').close()",
}


@pytest.mark.parametrize("script", LOSSES.values(), ids=LOSSES)
def test_training_goes_on_when_the_run_directory_is(train: Train, script: str):
    run = train(PRELUDE + script + "\nfit(12)\nprint('done', torch.is_grad_enabled())")

    assert (run.stdout, run.stderr) == ("done True\n", "")


def test_a_journal_that_is_deleted_under_way_costs_nothing_but_itself(train: Train):
    script = "fit(12, lambda step: step == 5 and shutil.rmtree(run_dir))\nprint('done')"
    run = train(PRELUDE + script)

    assert (run.stdout, run.stderr) == ("done\n", "")


def test_a_full_disk_ends_the_observation_and_the_training_goes_on(train: Train):
    run = train(PRELUDE + """
import errno, nndiag.journal.writer as writer
whole = writer._write
def full(fd, data): raise OSError(errno.ENOSPC, "No space left on device")
def before(step):
    if step == 5: writer._write = full
    if step == 10: writer._write = whole  # somebody made room
fit(15, before)
print("done")
""")  # fmt: skip

    assert (run.stdout, run.stderr) == ("done\n", "")
    assert list(run.series("loss")) == [0, 1, 2, 3, 4]
    [ended] = run.of_kind("observation-ended")
    assert "No space left" in ended["reason"]


def test_a_process_whose_observation_fails_before_its_first_step_says_so(train: Train):
    run = train(PRELUDE + """
import nndiag.watcher.recorder as recorder
def broken(self): raise OSError("no directory for you")
recorder.Recorder._own_directory = broken
fit(12)
print("done")
""")  # fmt: skip

    assert run.stdout == "done\n"
    [failed] = run.run_dir.glob("failed-*")
    assert "no directory for you" in failed.read_text()


def test_an_exception_that_cannot_be_printed_is_no_trouble(train: Train):
    run = train(PRELUDE + """
class Mean(Exception):
    def __str__(self): raise ValueError
import nndiag.watcher.recorder as recorder
def step(self, *args): raise Mean
recorder.Recorder.step = step
fit(12)
print("done")
""")  # fmt: skip

    assert (run.stdout, run.stderr) == ("done\n", "")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_run_directory_is_no_trouble(train: Train, tmp_path: Path):
    run = train(PRELUDE + "os.chmod(run_dir, 0o500)\nfit(7)\nprint('done')")

    assert run.stdout == "done\n"
    shutil.rmtree(run.run_dir, ignore_errors=True)


def test_the_script_may_patch_what_we_use(train: Train):
    run = train(PRELUDE + """
import builtins, json, time
def no(*args, **kwargs): raise RuntimeError("patched")
fit(2)
os.write = os.open = os.replace = json.dumps = time.time = no
fit(5)
""")  # fmt: skip

    assert run.faults == []
    assert list(run.series("loss")) == list(range(7))


def test_hooks_that_the_script_takes_away_are_simply_gone(train: Train):
    run = train(PRELUDE + """
fit(3)
nn.modules.module._global_forward_hooks.clear()
fit(30)
""", every="auto")  # fmt: skip

    assert run.faults == []
    assert list(run.series("loss")) == list(range(33))
