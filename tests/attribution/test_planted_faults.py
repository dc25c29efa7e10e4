"""From a training script with one planted fault to the report: who it was, and which feature.

The scripts know nothing of nndiag. Most run in forks of one process, one by the command line.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("captum")

from nndiag.readers.attributions import attributions_of
from nndiag.records import Attribution
from nndiag.reports import attribution as report
from nndiag.reports import attribution_facts as facts
from nndiag.reports import plain
from tests.adapters.observed import BOOTSTRAP, Observed, Train

PRELUDE = """
import torch, torch.nn as nn, torch.nn.functional as F
torch.manual_seed(0)
def table(n=32):
    x = torch.randn(n, 10); return x, (x[:, 3] > 0).long(), 2 * x[:, 3:4] - x[:, 1:2]
net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, OUTPUTS))
opt = torch.optim.SGD(net.parameters(), lr=0.05)
def train(loss_of, steps=90, spoil=lambda step, x, y, v: None):
    for step in range(steps):
        x, y, v = table(); spoil(step, x, y, v)
        opt.zero_grad(); loss_of(x, y, v).backward(); opt.step()
"""


TWO, ONE = PRELUDE.replace("OUTPUTS", "2"), PRELUDE.replace("OUTPUTS", "1")


def spike(watched: Observed, step: int = 70) -> Attribution:
    found, errors = attributions_of(str(watched.run_dir))
    assert errors == [] and watched.faults == []
    [one] = [one for one in found if one.step == step and one.why != "end"]
    return one


def text(one: Attribution) -> str:
    return plain.text(report.report([one]))


HUGE = """
def spoil(step, x, y, v):
    if step == 70:
        x[7, 5] = 300.0; v[7] = -60.0
        with torch.no_grad(): out = net(x)[7]
        y[7] = 1 - out.argmax() if len(out) > 1 else out[0] < 0
"""  # fmt: skip
SOME = "F.cross_entropy(net(x), torch.where(torch.arange(32) < 30, y, -100), torch.ones(2) * 2)"
LOSSES = {
    "cross-entropy": (TWO, "F.cross_entropy(net(x), y)"),
    "cross-entropy with ignored ones and weights": (TWO, SOME),
    "mse": (ONE, "F.mse_loss(net(x), v)"),
    "binary cross-entropy": (
        ONE,
        "F.binary_cross_entropy_with_logits(net(x), y[:, None].float())",
    ),
}


@pytest.mark.parametrize("prelude, loss", LOSSES.values(), ids=LOSSES)
def test_a_huge_feature_of_one_sample_is_found(train: Train, prelude: str, loss: str):
    one = spike(train(f"{prelude}{HUGE}train(lambda x, y, v: {loss}, 90, spoil)", attribute="auto"))

    carriers = facts.carriers(one)
    assert carriers.stand_out and carriers.rows[0] == 7 and carriers.shares[0] > 0.3
    assert one.of == "loss" and one.samples[0].row == 7
    assert one.samples[0].at_sample == pytest.approx(one.samples[0].loss, rel=1e-4)
    [best] = facts.parts(one, one.inputs[0], 0, 1)
    assert best.index == (5,) and best.value == 300.0 and best.share > 0.5 and best.sign == 1
    assert "sample 7" in text(one) and "x[5] = 300" in text(one)


@pytest.mark.parametrize("loss", ["F.l1_loss(out, v)", "((v - out) ** 2).mean()"])
def test_so_it_is_by_a_loss_that_keeps_no_target(train: Train, loss: str):
    """The output that the script still holds is what tells the targets."""
    script = f"""{ONE}{HUGE}
for step in range(90):
    x, y, v = table(); spoil(step, x, y, v)
    out = net(x); loss = {loss}
    opt.zero_grad(); loss.backward(); opt.step()
"""
    one = spike(train(script, attribute="auto"))

    assert facts.carriers(one).rows[0] == 7 and one.of == "loss"
    assert facts.parts(one, one.inputs[0], 0, 1)[0].index == (5,)


def test_a_wrong_label_is_found_by_its_sample(train: Train):
    spoil = "def spoil(step, x, y, v):\n    if step == 240: y[12] = 1 - y[12]; x[12, 3] *= 20\n"
    script = f"{TWO}{spoil}train(lambda x, y, v: F.cross_entropy(net(x), y), 250, spoil)"

    one = spike(train(script, attribute="auto"), 240)

    assert facts.carriers(one).rows[0] == 12 and facts.carriers(one).shares[0] > 0.8
    assert facts.parts(one, one.inputs[0], 0, 1)[0].index == (3,)


def test_a_sample_that_is_not_finite_is_named_with_its_feature(train: Train):
    spoil = "def spoil(step, x, y, v):\n    if step == 70: x[9, 2] = float('nan')\n"
    script = f"{TWO}{spoil}train(lambda x, y, v: F.cross_entropy(net(x), y), 72, spoil)"

    watched = train(script, attribute="auto")
    one = spike(watched)

    assert one.why == "nonfinite" and facts.carriers(one).nonfinite == (9,)
    assert "its input is not finite at x[2]" in one.failed
    assert "1 of 32 samples has a loss that is not finite: sample 9" in text(one)
    found, _ = attributions_of(str(watched.run_dir))
    [end] = [one for one in found if one.why == "end"]
    assert "not finite at the end of the training" in end.failed


WORDS = """
import torch, torch.nn as nn, torch.nn.functional as F
torch.manual_seed(0)
class Net(nn.Module):
    def __init__(self):
        super().__init__(); self.embed, self.head = nn.Embedding(60, 8), nn.Linear(8, 2)
        with torch.no_grad(): self.embed.weight[59] *= 40  # what nobody has trained
    def forward(self, input_ids, attention_mask=None):
        return {"logits": self.head(self.embed(input_ids).mean(1))}
net = Net(); opt = torch.optim.Adam(net.parameters(), lr=0.01)
for step in range(90):
    ids = torch.randint(1, 50, (32, 9)); y = torch.arange(32) % 2
    ids[y == 1, 4] = 7; ids[y == 0, 4] = 8
    if step == 80: ids[20, 4] = 59; y[20] = 1 - net(input_ids=ids)["logits"][20].argmax()
    out = net(input_ids=ids, attention_mask=torch.ones_like(ids))
    opt.zero_grad(); F.cross_entropy(out["logits"], y).backward(); opt.step()
"""


def test_a_bad_token_is_found(train: Train):
    one = spike(train(WORDS, attribute="auto"), 80)

    assert facts.carriers(one).rows[0] == 20 and one.samples[0].row == 20
    [best] = facts.parts(one, one.inputs[0], 0, 1)
    assert (one.inputs[0].name, best.index, best.value) == ("input_ids", (4,), 59)
    assert "input_ids[4] = token 59" in text(one)


FAST = """
def spoil(step, x, y, v):
    if step in (69, 70): opt.param_groups[0]["lr"] = 3.0 if step == 69 else 0.05
"""


def test_of_a_step_that_was_too_large_no_sample_is_blamed(train: Train):
    """The batch of step 69 is as any other; its update spoils the next one for all samples."""
    script = f"{ONE}{FAST}train(lambda x, y, v: F.mse_loss(net(x), v), 90, spoil)"

    one = spike(train(script, attribute="auto"))

    assert not facts.carriers(one).stand_out
    assert "no sample stands out" in text(one) and "before this batch" in text(one)


def test_an_optimizer_that_blew_up_is_not_blamed_on_the_batch_after_it(train: Train):
    spoil = "def spoil(step, x, y, v):\n    if step == 70: net[2].bias.data[0] = float('inf')\n"
    script = f"{ONE}{spoil}train(lambda x, y, v: F.mse_loss(net(x), v), 71, spoil)"

    one = spike(train(script, attribute="auto"))

    assert one.why == "nonfinite"
    assert "2.bias was not finite any longer" in one.failed and "what went before" in one.failed


def test_of_a_loss_that_is_not_known_the_samples_are_not_told_apart(train: Train):
    loss = "torch.log(torch.cosh(net(x) - v)).mean()"
    one = spike(train(f"{ONE}{HUGE}train(lambda x, y, v: {loss}, 90, spoil)", attribute="auto"))

    assert one.batch is None and one.of == "output"
    assert "the loss of each sample could not be read" in text(one)
    assert any("cannot be worked out anew" in note for note in one.notes)


def test_time_first_is_refused_and_its_losses_are_not_shown(train: Train):
    script = """
import torch, torch.nn as nn, torch.nn.functional as F
torch.manual_seed(0)
class Net(nn.Module):
    def __init__(self): super().__init__(); self.gru, self.head = nn.GRU(4, 8), nn.Linear(8, 1)
    def forward(self, x): return self.head(self.gru(x)[0])[..., 0]
net = Net(); opt = torch.optim.SGD(net.parameters(), lr=0.01)
for step in range(80):
    x = torch.randn(6, 16, 4)
    if step == 70: x[:, 3] *= 100; y[:, 3] = 50
    else: y = x.sum(2)
    opt.zero_grad(); F.mse_loss(net(x), y).backward(); opt.step()
"""
    one = spike(train(script, attribute="auto"))

    assert "time first?" in one.failed and "batch_first=True" in one.do
    assert one.batch is None


SCRIPT = f"{TWO}{HUGE}train(lambda x, y, v: F.cross_entropy(net(x), y), 90, spoil)"


def test_the_command_line_from_watch_to_attribute(
    nndiag: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
):
    (tmp_path / "train.py").write_text(SCRIPT)

    watched = nndiag("watch", "--attribute", "auto", "--run-dir", "run", "train.py")

    assert watched.returncode == 0
    assert "1 of 32 samples carries" in watched.stderr and "x[5] = 300" in watched.stderr
    # The first model that is called in the script is in no_grad, and is compiled.
    (tmp_path / "again.py").write_text(
        SCRIPT.replace("def train(", "net2 = torch.compile(net)\nwith torch.inference_mode(): "
                       "net2(torch.zeros(2, 10))\nprint('on')\ndef train(")
    )  # fmt: skip
    again = nndiag(
        *("attribute", "run", "--method", "saliency", "--step", "70", "--json"),
        *("--", "again.py"),
    )
    assert again.returncode == 0, again.stderr
    assert "on" not in again.stdout.split()
    [found] = json.loads(again.stdout)["attributions"]
    assert found["method"] == "saliency" and found["step"] == 70


def test_each_rank_has_batches_of_its_own(tmp_path: Path):
    torch = pytest.importorskip("torch")
    if not torch.distributed.is_available():
        pytest.skip("this torch knows no process groups")
    (tmp_path / "ddp.py").write_text("""
import os, sys, torch, torch.nn as nn, torch.nn.functional as F, torch.distributed as dist
dist.init_process_group("gloo"); rank = dist.get_rank(); torch.manual_seed(0)
net = nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 1))
net = nn.parallel.DistributedDataParallel(net)
opt = torch.optim.SGD(net.parameters(), lr=0.01); torch.manual_seed(rank)
for step in range(60):
    x = torch.randn(16, 10)
    if step == 50 and rank == 1: x[4, 8] = 300.0
    opt.zero_grad(); F.mse_loss(net(x), x[:, :1]).backward(); opt.step()
""")
    run = tmp_path / "run"
    (run).mkdir()

    ranks = []
    for rank in range(2):
        environment = {
            **os.environ,
            "NNDIAG_RUN": str(run),
            "NNDIAG_SETTINGS": json.dumps({"every": 1, "attribute": "auto"}),
            "PYTHONPATH": str(BOOTSTRAP),
            "OMP_NUM_THREADS": "1",
            **{"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1"},
            "MASTER_PORT": str(29500 + os.getpid() % 2000),
        }
        ranks.append(subprocess.Popen([sys.executable, "ddp.py"], cwd=tmp_path, env=environment))
    assert [one.wait(120) for one in ranks] == [0, 0]

    found, errors = attributions_of(str(run))

    assert errors == []
    by_rank = {(Path(one.path).parts[-3], one.why): one for one in found}
    assert {("rank-0", "end"), ("rank-1", "end"), ("rank-1", "spike")} <= set(by_rank)
    one = by_rank["rank-1", "spike"]
    assert one.model == "Sequential" and facts.carriers(one).rows[0] == 4
    assert facts.parts(one, one.inputs[0], 0, 1)[0].index == (8,)
