"""`--compiled eager` and `--compiled traced` show what compiled regions hide, and break nothing."""

from __future__ import annotations

import shutil

import pytest

from nndiag.cli.watch import watch
from nndiag.errors import BadUsage
from tests.adapters.observed import Observed, Train, Zygote, train_in

ACTIVATIONS = [
    "activation_count",
    "activation_mean",
    "activation_variance",
    "activation_sample_variance",
    "activation_abs_max",
    "activation_zero_fraction",
    "activation_nonfinite",
]
SCRIPT = """
import sys, warnings; warnings.simplefilter("ignore")
import torch, torch.nn as nn, torch._dynamo, torch.nn.functional as F
from torch._dynamo.utils import counters
from torch.utils.checkpoint import checkpoint
backend, *ways = sys.argv[1:]
compile = lambda f, **k: f if backend == "plain" else torch.compile(f, backend=backend, **k)
class Block(nn.Module):
    def __init__(self):
        super().__init__(); self.mix = nn.Linear(8, 8)
    def forward(self, x):
        return x + F.gelu(self.mix(x))
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 8), nn.ReLU()); self.one = Block(); self.two = Block()
        self.head = nn.Linear(8, 1)
    def forward(self, x):
        return self.head(self.two(self.one(self.body(x))))
data = [torch.randn(n, 4, generator=torch.manual_seed(1)) for n in [64] * 9]
sizes = [torch.randn(n, 4) for n in (64, 64, 33, 64, 21, 64, 40, 64, 64)]
def loss_of(model, x): return model(x).square().mean()
def train(model, steps=9, loss_of=loss_of, step=None, data=data, params=None):
    sgd = torch.optim.SGD((params or model).parameters(), lr=0.05)
    step = compile(lambda: sgd.step()) if step else sgd.step
    for x in data[:steps]:
        sgd.zero_grad(); loss_of(model, x).backward(); step()
    return sgd
def Model(net): train(compile(net, fullgraph=True))
def InPlace(net):
    if backend != "plain": net.compile(backend=backend, fullgraph=True)
    train(net)
def Blocks(net): net.one, net.two = compile(net.one), compile(net.two); train(net)
def Break(net):
    gelu = F.gelu
    def broken(x): torch._dynamo.graph_break(); return gelu(x)
    F.gelu = broken; train(compile(net)); F.gelu = gelu
def Sizes(net): train(compile(net, fullgraph=True), data=sizes)
def Twins(net): train(compile(net)); train(compile(type(net)()))
def Update(net): train(compile(net), step=True)
def Micro(net):  # two micro-batches, and validation
    model = compile(net); sgd = torch.optim.SGD(net.parameters(), lr=0.05)
    for x in data:
        sgd.zero_grad(); loss_of(model, x[:32]).backward(); loss_of(model, x[32:]).backward()
        sgd.step()
        model.eval()
        with torch.no_grad(): model(100 * x)
        model.train()
def Checkpoint(net):
    class Wrapped(nn.Module):
        def __init__(self): super().__init__(); self.net = net; self.last = nn.Linear(1, 1)
        def forward(self, x):
            y = checkpoint(self.net, x, use_reentrant=False)
            return self.last(y) + torch.func.vmap(self.last)(x[:, :1])
    model = Wrapped(); train(compile(model, fullgraph=True))
def tell(name):
    print(name, counters["stats"].get("unique_graphs", 0), sum(counters["graph_break"].values()),
          sum(counters["recompiles"].values()))
for name in ways:
    torch.manual_seed(0); torch._dynamo.reset(); counters.clear()
    globals()[name](type(name, (Net,), {})()); tell(name)
"""
SAME_LAYERS = ["Model", "InPlace", "Blocks", "Break", "Micro", "Sizes"]
STEPS = [0, 2, 4, 6, 8]


def same_layers(
    seen: Observed, plain: Observed, way: str, steps: list[int], rtol: float = 1e-4
) -> None:
    """The rows of `seen` at `steps` are those of an uncompiled training."""
    owner = f"SGD({way})"
    places = seen.places(ACTIVATIONS[0])
    wrapped = {place.replace("._orig_mod", ""): place for place in places if "_orig" in place}
    for metric in ACTIVATIONS:
        for place in plain.places(metric):
            found = seen.series(metric, place, owner) or seen.series(metric, wrapped[place], owner)
            expected = plain.series(metric, place, owner)
            assert [found.get(s) for s in steps] == pytest.approx(
                [expected[s] for s in steps], rel=rtol, abs=1e-5, nan_ok=True
            ), (way, metric, place)


def note_of(seen: Observed) -> str:
    [note] = [n["text"] for n in seen.of_kind("note") if "torch.compile" in n["text"]]
    return note


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, zygote: Zygote) -> Train:
    return train_in(tmp_path_factory.mktemp("compiled"), zygote)


@pytest.fixture(scope="module")
def plain(run: Train) -> Observed:
    return run(SCRIPT, "plain", *SAME_LAYERS, "Update", every=2)


@pytest.fixture(scope="module")
def hidden(run: Train) -> Observed:
    return run(SCRIPT, "aot_eager", *SAME_LAYERS, "Twins", "Update", "Checkpoint", every=2)


@pytest.fixture(scope="module")
def traced(run: Train) -> Observed:
    ways = [*SAME_LAYERS, "Twins", "Update", "Checkpoint"]
    return run(SCRIPT, "aot_eager", *ways, every=2, compiled="traced")


@pytest.mark.parametrize("way", [*SAME_LAYERS, "Update"])
def test_traced_statistics_are_those_of_an_uncompiled_run(
    plain: Observed, traced: Observed, way: str
):
    assert traced.faults == []
    # Only the first optimizer of a script is sure to be measured at its first step; the last step
    # of a compiled one is told by parameters that are gone when the next training begins.
    steps = {"Model": STEPS, "Update": STEPS[1:-1]}.get(way, STEPS[1:])
    same_layers(traced, plain, way, steps)


def test_tracing_makes_no_further_graph_break_or_recompilation(hidden: Observed, traced: Observed):
    assert traced.stdout == hidden.stdout
    assert "Model 1 0 0" in traced.stdout


def test_what_cannot_be_traced_stays_hidden_and_is_told(traced: Observed):
    owner = "SGD(Wrapped)"

    assert len(traced.series("activation_mean", "last", owner)) == 5
    assert not traced.series("activation_mean", "net.head", owner)
    assert "not seen: parts inside of activation checkpoints" in note_of(traced)
    assert "torch.func" in note_of(traced)


def test_an_eager_step_shows_every_layer(run: Train, plain: Observed, hidden: Observed):
    ways = ["Model", "Blocks", "Break", "Update"]
    seen = run(SCRIPT, "aot_eager", *ways, every=2, compiled="eager")

    assert seen.faults == []
    expected = [line for line in hidden.stdout.splitlines() if line.split()[0] in ways]
    assert seen.stdout.splitlines() == expected
    for way in ways[:-1]:
        same_layers(seen, plain, way, STEPS[1:])
    assert len(seen.series("loss", owner="SGD(Update)")) == 9
    assert "12 measured steps ran uncompiled" in note_of(seen)
    assert "a compiled optimizer tells of its steps too late" in note_of(seen)


def test_inductor_does_the_same(run: Train, plain: Observed):
    if not (shutil.which("g++") or shutil.which("clang++")):
        pytest.skip("Inductor needs a C++ compiler")
    seen = run(SCRIPT, "inductor", "Model", every=2, compiled="traced")

    assert (seen.faults, seen.stdout) == ([], "Model 1 0 0\n")
    same_layers(seen, plain, "Model", STEPS)


def test_compiled_code_is_used_again_after_an_eager_step(train: Train):
    script = (
        SCRIPT
        + """
calls = []
def compiled(graph, inputs): return lambda *a: (calls.append(1), graph(*a))[1]
net = Net(); train(torch.compile(net, backend=compiled)); tell(len(calls))
"""
    )
    seen = train(script, "eager", every=4, compiled="eager")

    assert seen.stdout.split() == ["7", "1", "0", "0"]  # steps 4 and 8 ran without it


def test_eager_steps_leave_a_stance_of_the_script_alone(train: Train):
    script = (
        SCRIPT
        + """
from torch._dynamo import eval_frame
model = compile(Net()); sgd = train(model, 4)
with torch.compiler.set_stance("eager_on_recompile"): train(model, 4)
torch.compiler.set_stance("fail_on_recompile"); train(model, 3); print(eval_frame._stance.stance)
"""
    )
    seen = train(script, "eager", every=3, compiled="eager")

    assert (seen.faults, seen.stdout.split()[-1]) == ([], "fail_on_recompile")
    assert "stance of its own" in note_of(seen)


def test_traced_sums_are_in_no_state_dict_and_in_no_buffer(train: Train):
    script = (
        SCRIPT
        + """
net = Net(); train(compile(net), 3); print(hasattr(net.head, "_nndiag_sums"))
print(*net.state_dict(), *(name for name, _ in net.named_buffers()))
"""
    )
    seen = train(script, "eager", compiled="traced").stdout.splitlines()
    bare = train(script, "eager", watched=False).stdout.splitlines()

    assert (seen[0], bare[0]) == ("True", "False")
    assert seen[1:] == bare[1:]


def test_the_note_names_the_options_that_would_show_more(hidden: Observed):
    assert "--compiled eager" in note_of(hidden) and "--compiled traced" in note_of(hidden)


def test_another_value_of_the_option_is_refused():
    with pytest.raises(BadUsage, match="hidden, eager, traced"):
        watch(
            ["train.py"], every="auto", wandb=False, attribute=None, stop_on=None, compiled="inside"
        )
