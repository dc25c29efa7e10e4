"""Keeping batches changes no bit of a training, and keeps nothing alive that is not needed."""

from __future__ import annotations

import json

import pytest

from tests.adapters.observed import Observed, Train
from tests.adapters.test_neutral import PRELUDE, TRAININGS

# What is kept is looked at elsewhere: here the attributions at the end are left out.
NO_ATTRIBUTIONS = "import sys; sys.modules['nndiag.attribution.run'] = None\n"
QUICK = PRELUDE + NO_ATTRIBUTIONS

MORE = {
    "losses that leap": """
net = mlp(); opt = torch.optim.Adam(net.parameters(), lr=0.01)
for step in range(80):
    x = torch.randn(16, 4)
    if step in (40, 70): x[3] *= 1000
    opt.zero_grad(); F.mse_loss(net(x)[:, 0], torch.zeros(16)).backward(); opt.step()
report((net, opt))
""",
    "a loss that is not finite": """
net = mlp(); opt = torch.optim.SGD(net.parameters(), lr=0.01)
for step in range(30):
    opt.zero_grad(); loss = net(torch.randn(16, 4)).square().mean() * (float("nan") if step == 25 else 1); loss.backward()
    if step != 25: opt.step()
report((net, opt))
""",
    "two losses of one call, and a penalty": """
net = mlp(); opt = torch.optim.SGD(net.parameters(), lr=0.01)
for step in range(30):
    opt.zero_grad(); x = torch.randn(16, 4, requires_grad=True); out = net(x)
    g, = torch.autograd.grad(out.sum(), x, create_graph=True)
    out.square().mean().backward(retain_graph=True); ((g ** 2).mean() + F.l1_loss(out, torch.zeros(16, 1))).backward(); opt.step()
report((net, opt))
""",
    "outputs that are changed in place": """
net = mlp(); opt = torch.optim.SGD(net.parameters(), lr=0.01)
for step in range(30):
    opt.zero_grad(); out = net(torch.randn(16, 4)); out.mul_(0.5).add_(1); (out - 1).abs().mean().backward(); opt.step()
report((net, opt))
""",
}  # fmt: skip


@pytest.mark.parametrize("name", [*TRAININGS, *MORE])
def test_no_bit_changes_in(train: Train, name: str):
    script = QUICK + {**TRAININGS, **MORE}[name]
    plain = train(script, watched=False)

    for every in (1, "auto"):
        watched = train(script, every=every, attribute="auto")
        assert watched.faults == []
        assert watched.stdout == plain.stdout


COMPILED = """
import torch._dynamo
from torch._dynamo.utils import counters
net = mlp(); compiled = torch.compile(net, backend="aot_eager"); opt = torch.optim.Adam(net.parameters(), lr=0.01)
for step in range(60):
    x = torch.randn(16, 4)
    if step == 40: x[3] *= 1000
    opt.zero_grad(); F.mse_loss(compiled(x)[:, 0], torch.zeros(16)).backward(); opt.step()
print(digest(net.state_dict(), opt.state_dict(), torch.get_rng_state()))
print(counters["stats"], sum(counters["graph_break"].values()))
"""  # fmt: skip


def test_the_graphs_of_a_compiled_model_stay_the_same_and_its_batches_are_kept(train: Train):
    plain = train(QUICK + COMPILED, watched=False)
    watched = train(QUICK + COMPILED, attribute="auto", every="auto")

    assert watched.faults == []
    assert watched.stdout == plain.stdout
    assert set(kept(watched)) == {"step-40", "end"}
    assert kept(watched)["step-40"]["model"] == "Sequential"


def kept(watched: Observed) -> dict[str, dict]:
    """capture.json of each batch that was kept."""
    folders = sorted((watched.rank / "captures").glob("[!.]*"))
    return {one.name: json.loads((one / "capture.json").read_text()) for one in folders}


ALIVE = """
import gc, weakref
from torch.multiprocessing.reductions import StorageWeakRef
gc.disable()
def train(way):
    net = mlp(); opt = torch.optim.SGD(net.parameters(), lr=0.001)
    left, batches = [], []
    for step in range(40):
        x = torch.randn(16, 4)
        if step == 30: x *= 100
        out = net(x); loss = out.square().mean(); graph = weakref.ref(loss.grad_fn.__class__)
        memory = StorageWeakRef(out.untyped_storage())
        refs = weakref.ref(x), weakref.ref(out), weakref.ref(loss), lambda memory=memory: None if memory.expired() else 1
        opt.zero_grad(); loss.backward()
        batches.append(refs)
        if way == "step": opt.step()
        del x, out, loss
        left.append(sum(ref() is not None for refs in batches for ref in refs))
    return max(left)
print([train("step"), train("none")])
"""


def test_a_batch_and_its_graph_are_gone_when_the_step_is(train: Train):
    plain = train(QUICK + ALIVE, watched=False)
    watched = train(QUICK + ALIVE, attribute="auto")

    assert plain.told == [0, 0]
    assert watched.told == [0, 0]


MADE_INSIDE = """
def main():
    net = mlp(); opt = torch.optim.SGD(net.parameters(), lr=0.01)
    for step in range(12):
        opt.zero_grad(); F.mse_loss(net(torch.randn(8, 4))[:, 0], torch.ones(8)).backward(); opt.step()
main()
"""


def test_a_model_made_in_a_function_is_there_at_the_end(train: Train):
    assert list(kept(train(QUICK + MADE_INSIDE, attribute="auto"))) == ["end"]


NEW_MODEL = """
for fold in range(3):
    net = nn.Sequential(nn.Linear(4, 4 + fold), nn.Linear(4 + fold, 1)); opt = torch.optim.SGD(net.parameters(), lr=0.01)
    for step in range(60):
        opt.zero_grad(); net(torch.randn(8, 4)).square().mean().backward(); opt.step()
print(json.dumps([list(p.shape) for p in net.parameters()]))
"""


def test_when_another_model_trains_that_one_is_followed(train: Train):
    from nndiag.journal.tensor_reader import read_tensors

    watched = train(QUICK + "import json\n" + NEW_MODEL, attribute="auto")

    stored = read_tensors(watched.rank / "captures" / "end" / "weights.safetensors")
    assert [list(tensor.shape) for tensor in stored.values()] == watched.told


FOLDS = """
def train(fold, broken):
    torch.manual_seed(fold); net = mlp(); opt = torch.optim.SGD(net.parameters(), lr=1e-5)
    for step in range(150):
        x = torch.randn(16, 4)
        if step in broken: x *= broken[step]
        opt.zero_grad(); F.mse_loss(net(x)[:, 0], torch.zeros(16)).backward(); opt.step()
train(0, {80: 100}); train(3, {60: 70, 80: 200}); train(4, {80: 100})
"""  # fmt: skip


def test_each_fold_has_its_own_steps_and_loses_no_leap_of_another(train: Train):
    told = kept(train(QUICK + FOLDS, attribute="auto"))

    assert set(told) == {"step-60", "step-80", "step-80-2", "step-80-3", "end"}
    assert [told[name]["step"] for name in sorted(told)] == [149, 60, 80, 80, 80]
    owners = [
        told[name]["owner"] for name in ("step-80", "step-60", "step-80-2", "step-80-3", "end")
    ]
    assert owners[0] == "SGD(Sequential)" and owners[1] == owners[2] and owners[3] == owners[4]
    assert len(set(owners)) == 3


def test_another_model_is_followed_though_hardly_a_step_is_measured(train: Train):
    told = kept(train(QUICK + FOLDS, attribute="auto", every=1000))

    assert {"step-60", "step-80", "step-80-2", "step-80-3"} <= set(told)


GAN = """
G = nn.Sequential(nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 4)); D = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
g, d, bce = torch.optim.Adam(G.parameters()), torch.optim.Adam(D.parameters()), F.binary_cross_entropy_with_logits
for step in range(12):
    z = torch.randn(8, 2); fake = G(z)
    d.zero_grad(); (bce(D(torch.randn(8, 4)), torch.ones(8, 1)) + bce(D(fake.detach()), torch.zeros(8, 1))).backward(); d.step()
    g.zero_grad(); bce(D(fake), torch.ones(8, 1)).backward(); g.step()
"""  # fmt: skip


def test_of_a_generator_it_is_its_own_loss_that_counts(train: Train):
    watched = train(QUICK + GAN, attribute="auto")
    told = kept(watched)["end"]
    notes = [event["text"] for event in watched.of_kind("note")]

    assert told["model"] == "Sequential" and told["samples"] == 8
    assert told["call"]["args"] == [{"tensor": "0"}]
    assert "output" not in told["loss_made_of"]  # the loss was given what D made of it
    assert notes.count("batches are kept of Sequential alone, the largest of 2 models") == 1


SCALED = """
net = mlp()[:2].append(nn.Linear(8, 1)); opt = torch.optim.SGD(net.parameters(), lr=0.001)
scaler = torch.amp.GradScaler("cpu", init_scale=4.0, growth_interval=3)
for step in range(40):
    for micro in range(4):
        x = torch.randn(16, 4)
        if (step, micro) == (30, 2): x[11] = 300.0
        out = net(x)
        each = F.mse_loss(out[:, 0], torch.ones(16), reduction="none").tolist() if (step, micro) == (30, 2) else None
        scaler.scale(F.mse_loss(out[:, 0], torch.ones(16)) / 4).backward()
        if each: print(json.dumps(each))
    scaler.step(opt); scaler.update(); opt.zero_grad()
"""  # fmt: skip


def test_a_micro_batch_that_leaps_is_kept_with_its_losses_unscaled(train: Train):
    from nndiag.journal.tensor_reader import read_tensors

    watched = train(QUICK + "import json\n" + SCALED, attribute="auto")

    told = kept(watched)
    assert set(told) == {"step-30", "end"}
    stored = read_tensors(watched.rank / "captures" / "step-30" / "batch.safetensors")
    assert stored["loss/samples"].array().tolist() == pytest.approx(watched.told, rel=1e-6)
    assert stored["input/0"].array()[11].tolist() == [300.0] * 4


BY_HAND = """
net = mlp()[:2].append(nn.Linear(8, 1)); opt = torch.optim.SGD(net.parameters(), lr=0.01)
y = torch.arange(16.0)[:, None]
losses = {"l1": lambda: F.l1_loss(net(x), y), "squared": lambda: ((net(x) - y) ** 2).mean(), "to": lambda: (y - net(x)).abs().mean(), "changed": lambda: F.l1_loss(net(x).mul_(2), y)}
for step in range(12):
    opt.zero_grad(); losses[sys.argv[1]]().backward(); opt.step()
"""  # fmt: skip


@pytest.mark.parametrize("way", ["l1", "squared", "to", "changed"])
def test_targets_are_known_though_no_variable_holds_the_output(train: Train, way: str):
    from nndiag.journal.tensor_reader import read_tensors

    watched = train(QUICK + BY_HAND, way, attribute="auto")

    stored = read_tensors(watched.rank / "captures" / "end" / "batch.safetensors")
    if way == "changed":  # in place, since the model gave it
        assert "loss/targets" not in stored
    else:
        targets = stored["loss/targets"].array().ravel()
        assert targets.tolist() == pytest.approx(list(range(16)), abs=1e-5)


PENALTY = """
net = mlp(); opt = torch.optim.SGD(net.parameters(), lr=0.01)
y = torch.zeros(16, 1)
for step in range(12):
    opt.zero_grad(); F.mse_loss(net(x), y).backward(); opt.step()
    y.fill_(step)  # a buffer that the script uses again
"""


def test_what_is_kept_of_the_last_batch_is_a_copy(train: Train):
    from nndiag.journal.tensor_reader import read_tensors

    watched = train(QUICK + PENALTY, attribute="auto")

    stored = read_tensors(watched.rank / "captures" / "end" / "batch.safetensors")
    assert set(stored["loss/targets"].array().ravel().tolist()) == {10.0}


NOT_EARLIER = """
net = mlp(); opt = torch.optim.SGD(net.parameters(), lr=1e-7)
for step in range(60):
    x = torch.randn(16, 4)
    if step == 40: x[3] *= 1000
    opt.zero_grad(); F.mse_loss(net(x)[:, 0], torch.zeros(16)).backward(); opt.step()
loaded = [name for name in sys.modules if name.split(".")[0] in ("captum", "numpy") or "nndiag.attribution" in name]
import json; print(json.dumps(loaded))
"""


def test_neither_captum_nor_numpy_is_loaded_before_the_last_step(train: Train):
    pytest.importorskip("captum")
    plain = train(PRELUDE + NOT_EARLIER, watched=False)  # torch loads numpy if it is there
    watched = train(PRELUDE + NOT_EARLIER, attribute="auto")

    assert watched.told == plain.told
    assert not [name for name in watched.told if "numpy" not in name]
    names = {path.name for path in (watched.rank / "attributions").glob("*.json")}
    assert names == {"step-40-integrated-gradients.json", "end-integrated-gradients.json"}
