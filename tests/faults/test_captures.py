"""Under --attribute, too, a fault of ours costs its own record and nothing else."""

from __future__ import annotations

from nndiag.readers.attributions import kept_nothing_because
from tests.adapters.observed import Train

SPIKE = """
import hashlib, json, sys, torch, torch.nn as nn, torch.nn.functional as F
if sys.argv[1] == "full":
    import nndiag.journal.tensors as tensors
    def full(file, content): raise OSError(28, "No space left on device")
    tensors._write = full
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.1), nn.Linear(16, 2))
opt = torch.optim.Adam(net.parameters(), 1e-2)
for step in range(60):
    x = torch.randn(32, 8); y = (x[:, 2] > 0).long()
    if step == 40: x[7, 2], y[7] = 1e3, 0
    opt.zero_grad(); F.cross_entropy(net(x), y).backward(); opt.step()
state = [p.detach().numpy().tobytes() for p in net.parameters()] + [torch.get_rng_state().numpy().tobytes()]
print(json.dumps(hashlib.sha256(b"".join(state)).hexdigest()))
"""


def test_a_disk_without_room_for_a_batch_costs_the_batch_alone(train: Train) -> None:
    bare = train(SPIKE, "bare", watched=False)
    full = train(SPIKE, "full", attribute="saliency")

    assert full.status == 0 and full.told == bare.told
    assert len(full.series("loss")) == 60
    assert not list((full.rank / "captures").iterdir())
    [note] = [event["text"] for event in full.of_kind("note")]
    assert note == "a batch could not be kept for attributions: No space left on device"
    assert kept_nothing_because(str(full.run_dir)) == "No space left on device"
    assert full.of_kind("exit")  # the journal is whole


def test_attributions_that_fail_leave_the_batch_and_the_exit_status(train: Train) -> None:
    broken = "import sys; sys.modules['captum.attr'] = None\n" + SPIKE
    run = train(broken, "broken", attribute="auto")

    assert run.status == 0
    assert "no attributions: " in run.stderr
    assert {path.name for path in (run.rank / "captures").iterdir()} == {"step-40", "end"}


OF_A_CLASS = """
import torch, torch.nn as nn, torch.nn.functional as F
class Batch:
    def __init__(self): self.x = torch.randn(8, 4)
class Net(nn.Module):
    def __init__(self): super().__init__(); self.layer = nn.Linear(4, 2)
    def forward(self, batch): return self.layer(batch.x)
net = Net(); opt = torch.optim.SGD(net.parameters(), 0.01)
for step in range(5):
    opt.zero_grad(); net(Batch()).square().mean().backward(); opt.step()
"""


def test_arguments_that_cannot_be_kept_are_named_afterwards(train: Train) -> None:
    run = train(OF_A_CLASS, attribute="auto")

    assert not (run.rank / "captures").exists()
    assert kept_nothing_because(str(run.run_dir)) == "the argument 0 is a Batch"
    assert kept_nothing_because(str(train(SPIKE, "", attribute="saliency").run_dir)) == ""
