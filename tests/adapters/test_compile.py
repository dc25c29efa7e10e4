"""torch.compile makes the same graphs with us as without, and warns of nothing more."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.adapters.observed import Observed, Train, Zygote, python, train_in

SCRIPT = """
import hashlib, sys, warnings; warnings.simplefilter("default")  # torch itself warns
import torch, torch.nn as nn, torch._dynamo
from torch._dynamo.utils import counters
compile = lambda f, **kwargs: torch.compile(f, backend="aot_eager", **kwargs)
def in_place(net): net.compile(backend="aot_eager"); return net
def train(name, of_net=lambda net: net, of_step=lambda step: step, of_update=lambda update: update):
    torch.manual_seed(0); torch._dynamo.reset()
    before = dict(counters["stats"]), sum(counters["graph_break"].values())
    net = type(name, (nn.Sequential,), {})(nn.Linear(4, 8), nn.ReLU(), nn.Dropout(0.1), nn.Linear(8, 1))
    opt = torch.optim.Adam(net.parameters(), lr=0.01); compiled = of_net(net)
    def step(x):
        opt.zero_grad(); loss = compiled(x).square().mean(); loss.backward()
        nn.utils.clip_grad_norm_(net.parameters(), 0.1)
        return loss
    step, update = of_step(step), of_update(lambda: opt.step())
    for _ in range(11):
        step(torch.randn(16, 4)); update()
    stats = {key: n - before[0].get(key, 0) for key, n in counters["stats"].items()}
    sha = hashlib.sha256(b"".join(p.detach().numpy().tobytes() for p in net.parameters()))
    print(name, sha.hexdigest()[:16], stats, sum(counters["graph_break"].values()) - before[1])
kinds = dict(
    Module=dict(of_net=compile),
    Whole=dict(of_net=lambda net: compile(net, fullgraph=True)),
    InPlace=dict(of_net=in_place),
    Step=dict(of_step=compile),
    Update=dict(of_update=compile),
)
for name in sys.argv[1:]: train(name, **kinds[name])
"""
KINDS = ["Module", "Whole", "InPlace", "Step", "Update"]


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory, zygote: Zygote) -> Observed:
    return train_in(tmp_path_factory.mktemp("plain"), zygote)(SCRIPT, *KINDS, watched=False)


@pytest.mark.parametrize("every, kinds", [(1, KINDS), ("auto", ["Module", "Step"])])
def test_the_graphs_and_the_bits_are_the_same(
    train: Train, plain: Observed, every: int | str, kinds: list[str]
):
    watched = train(SCRIPT, *kinds, every=every)

    assert watched.faults == []
    assert watched.stdout.splitlines() == [
        line for line in plain.stdout.splitlines() if line.split()[0] in kinds
    ]
    assert watched.owners == [f"Adam({kind})" for kind in kinds]
    for owner in watched.owners:
        assert len(watched.series("loss", owner=owner)) == 11
        assert len(watched.series("param_grad_norm", "0.weight", owner)) >= 5
    assert any("torch.compile" in note["text"] for note in watched.of_kind("note"))


def test_compiling_a_module_warns_of_nothing(tmp_path: Path):
    script = """
import warnings
import torch, torch.nn as nn
net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
opt = torch.optim.SGD(net.parameters(), lr=0.1)
compiled = torch.compile(net, backend="eager")
for step in range(12):
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        opt.zero_grad(); compiled(torch.ones(3, 4)).square().mean().backward(); opt.step()
nn.modules.module.register_module_forward_hook(lambda *a: None)
with warnings.catch_warnings(record=True) as caught:  # of the user's own hook it still does
    warnings.simplefilter("always")
    torch._dynamo.reset(); compiled = torch.compile(net, backend="eager")(torch.ones(3, 4))
print(["global" in str(w.message) for w in caught])
"""
    (tmp_path / "train.py").write_text(script)
    watched = python("train.py", cwd=tmp_path, run_dir=tmp_path / "run")

    assert (watched.status, watched.stdout, watched.stderr) == (0, "[True]\n", "")
    assert len(watched.series("loss")) == 12
