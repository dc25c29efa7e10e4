"""Models and optimizers are found, named and kept apart, whatever the script does with them."""

from __future__ import annotations

import pytest

from tests.adapters.observed import Observed, Train

PRELUDE = """
import copy, gc
import torch, torch.nn as nn, torch.nn.functional as F
torch.manual_seed(0)
x = torch.randn(16, 4)
class Encoder(nn.Module):
    def __init__(self):
        super().__init__(); self.fc, self.act = nn.Linear(4, 6), nn.ReLU()
    def forward(self, x):
        return self.act(self.fc(x))
class Decoder(nn.Module):
    def __init__(self):
        super().__init__(); self.fc, self.act, self.out = nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 4)
    def forward(self, x):
        return self.out(self.act(self.fc(x)))
class Net(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))
def fit(model, opt, steps=3, x=x):
    for step in range(steps):
        opt.zero_grad(); model(x).square().mean().backward(); opt.step()
"""


def layers(run: Observed, owner: str) -> list[str]:
    """The places where activations were measured."""
    places = run.places("activation_mean")
    return [place for place in places if run.series("activation_mean", place, owner)]


def described(run: Observed) -> dict[str, list[str]]:
    return {m["name"]: [layer["name"] for layer in m["layers"]] for m in run.process["models"]}


GAN = """
G = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 4))
D = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(), nn.Linear(8, 1), nn.Sigmoid())
G.__class__, D.__class__ = (type(n, (nn.Sequential,), {}) for n in ("G", "D"))
g_opt, d_opt, bce = torch.optim.Adam(G.parameters()), torch.optim.SGD(D.parameters(), lr=0.1), nn.BCELoss()
told = {"D": [], "G": [], "grad": []}
for step in range(4):
    D.zero_grad(); real = bce(D(x), torch.ones(16, 1)); real.backward()
    fake = G(torch.randn(16, 2)); made = bce(D(fake.detach()), torch.zeros(16, 1)); made.backward(); d_opt.step()
    G.zero_grad(); fooled = bce(D(fake), torch.ones(16, 1)); fooled.backward()
    told["grad"].append(float(torch.cat([p.grad.flatten() for p in G.parameters()]).norm())); g_opt.step()
    told["D"].append(float((real + made).detach() / 2)); told["G"].append(float(fooled.detach()))
import json; print(json.dumps(told))
"""


def test_the_two_sides_of_a_gan_stay_apart(train: Train):
    run = train(PRELUDE + GAN)

    assert run.faults == []
    assert run.owners == ["SGD(D)", "Adam(G)"]
    assert run.values("loss", owner="SGD(D)") == pytest.approx(run.told["D"])
    assert run.values("loss", owner="Adam(G)") == pytest.approx(run.told["G"])
    assert run.values("grad_norm", owner="Adam(G)") == pytest.approx(run.told["grad"], rel=1e-5)
    assert layers(run, "SGD(D)") == ["0", "1", "2", "3"]
    assert layers(run, "Adam(G)") == ["0", "1", "2"]
    assert list(run.series("dead_unit_fraction", "1", "Adam(G)")) == [0, 1, 2, 3]
    assert described(run) == {"D": ["0", "1", "2", "3"], "G": ["0", "1", "2"]}


def test_models_that_share_a_loss_keep_their_layers_with_one_optimizer_and_with_two(train: Train):
    one = train(PRELUDE + """
encoder, decoder = Encoder(), Decoder()
opt = torch.optim.SGD([*encoder.parameters(), *decoder.parameters()], lr=0.1)
fit(lambda x: decoder(encoder(x)), opt)
""")  # fmt: skip
    two = train(PRELUDE + """
encoder, decoder = Encoder(), Decoder()
a, b = torch.optim.SGD(encoder.parameters(), lr=0.1), torch.optim.SGD(decoder.parameters(), lr=0.1)
for step in range(3):
    a.zero_grad(); b.zero_grad(); decoder(encoder(x)).square().mean().backward(); a.step(); b.step()
""")  # fmt: skip

    assert layers(one, "SGD(Decoder)") == ["Encoder.fc", "Encoder.act", "fc", "act", "out"]
    assert layers(two, "SGD(Encoder)") == ["fc", "act"]
    assert layers(two, "SGD(Decoder)") == ["fc", "act", "out"]
    dead = [("Encoder.act", "Decoder", one), ("act", "Encoder", two), ("act", "Decoder", two)]
    for place, model, run in dead:
        assert len(run.series("dead_unit_fraction", place, f"SGD({model})")) == 3
    assert one.values("loss") == pytest.approx(two.values("loss", owner="SGD(Decoder)"))
    held = {p["name"]: p["optimizer"] for m in one.process["models"] for p in m["parameters"]}
    assert held["Encoder.fc.weight"] == held["fc.weight"] == "SGD(Decoder)"


FOUND = {
    "called as forward": ("net = Decoder()\nfit(net.forward, SGD(net), x=torch.randn(16, 6))",
                          "Decoder", ["fc", "act", "out"]),
    "copied": ("net = copy.deepcopy(Decoder())\nfit(net, SGD(net), x=torch.randn(16, 6))",
               "Decoder", ["fc", "act", "out"]),
    "unpickled": ("import pickle\nnet = pickle.loads(pickle.dumps(Net()))\nfit(net, SGD(net))",
                  "Net", ["0", "1", "2"]),
    "wrapped": ("net = nn.DataParallel(Net())\nfit(net, SGD(net))", "Net", ["0", "1", "2"]),
    "a single layer": ("net = nn.Linear(4, 1)\nfit(net, SGD(net))", "Linear", [""]),
    "a single layer, called as forward": ("net = nn.Linear(4, 1)\nfit(net.forward, SGD(net))",
                                          "Linear", []),
    "gone at the end": ("def main():\n    net = Net(); fit(net, SGD(net))\nmain(); gc.collect()",
                        "Net", ["0", "1", "2"]),
    "without its optimizer at the end": ("net = Net()\nfit(net, SGD(net)); gc.collect()",
                                         "Net", ["0", "1", "2"]),
    "lazy": ("net = nn.Sequential(nn.LazyLinear(3), nn.ReLU()); net(x)\nfit(net, SGD(net))",
             "Sequential", ["0", "1"]),
}  # fmt: skip
MAKE_SGD = "SGD = lambda net: torch.optim.SGD(net.parameters(), lr=0.1)\n"


@pytest.mark.parametrize("script, model, places", FOUND.values(), ids=FOUND)
def test_a_model_is_found(train: Train, script: str, model: str, places: list[str]):
    run = train(PRELUDE + MAKE_SGD + script)

    assert run.faults == []
    assert run.owners == [f"SGD({model})"]
    assert layers(run, f"SGD({model})") == places
    assert described(run) == {model: places}
    assert [o["owner"] for o in run.process["optimizers"]] == [f"SGD({model})"]
    parameters = run.process["models"][0]["parameters"]
    assert parameters and {p["optimizer"] for p in parameters} == {f"SGD({model})"}


def test_an_optimizer_that_is_made_anew_goes_on_where_the_last_one_stopped(train: Train):
    run = train(PRELUDE + """
net = Net()
for epoch in range(20):
    opt = torch.optim.SGD(net.parameters(), lr=0.1 / (epoch + 1))
    fit(net, opt, steps=2)
""")  # fmt: skip

    assert list(run.series("loss")) == list(range(40))
    assert run.values("lr")[::2] == pytest.approx([0.1 / (epoch + 1) for epoch in range(20)])


def test_models_that_are_made_anew_are_runs_of_their_own(train: Train):
    run = train(PRELUDE + """
for fold in range(20):
    net = Net()
    fit(net, torch.optim.SGD(net.parameters(), lr=0.1), steps=fold + 2)
""")  # fmt: skip

    assert run.faults == []
    assert run.owners[:2] == ["SGD(Net)", "SGD(Net-1)"] and len(set(run.owners)) == 16
    assert [len(run.series("loss", owner=f"SGD(Net-{i})")) for i in range(1, 16)] == list(
        range(3, 18)
    )
    assert [n["text"] for n in run.of_kind("note")] == ["only the first 16 optimizers are followed"]


def test_groups_that_join_later_are_followed_without_their_rates(train: Train):
    run = train(PRELUDE + """
net = Net()
opt = torch.optim.SGD(net[0].parameters(), lr=0.1)
fit(net, opt, steps=2)
opt.add_param_group({"params": list(net[2].parameters()), "lr": 0.01})
fit(net, opt, steps=2)
""")  # fmt: skip

    assert list(run.series("loss")) == [0, 1, 2, 3]
    assert list(run.series("param_norm", "0.weight")) == [0, 1, 2, 3]
    assert list(run.series("param_norm", "2.weight")) == [2, 3]


def test_evaluation_does_not_enter_the_statistics_of_training(train: Train):
    run = train(PRELUDE + """
net = Net()
opt = torch.optim.SGD(net.parameters(), lr=0.0)
net.eval(); net(x * 1000); net.train()
for step in range(4):
    with torch.no_grad():
        net(x * 1000)
    fit(net, opt, steps=1)
    net.eval(); net(x * 1000); net.train()
""")  # fmt: skip

    measured = run.values("activation_abs_max", "0")
    assert len(measured) == 4 and len(set(measured)) == 1
    assert measured[0] < 50


LOOSE_LAYERS = """
layers = [nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(12)]
opt = torch.optim.SGD([p for layer in layers for p in layer.parameters()], lr=0.1)
for step in range(3):
    opt.zero_grad()
    for _ in range(2):  # the first time through is a validation pass, gradients and all
        y = x
        for layer in layers:
            y = layer(y)
    y.square().mean().backward(); opt.step()
"""


def test_layers_that_no_module_holds_are_all_seen(train: Train):
    run = train(PRELUDE + LOOSE_LAYERS)

    assert len(run.places("activation_mean")) == 24
    counts = [run.series("activation_count", where)[2] for where in run.places("activation_count")]
    assert set(counts) == {16 * 4}  # of one pass, not of two


def test_an_optimizer_that_rests_does_not_keep_the_measuring_on(train: Train):
    run = train(PRELUDE + """
from torch.nn.modules.module import _global_forward_hooks as hooks
head, net = nn.Linear(4, 1), Net()
fit(head, torch.optim.SGD(head.parameters(), lr=0.1), steps=3)  # its step 3 is due, but never comes
opt, on = torch.optim.Adam(net.parameters()), 0
keep = head
for step in range(400):
    fit(net, opt, steps=1)
    on += bool(hooks)
print(on)
""", every=10)  # fmt: skip

    assert int(run.stdout) < 50


def test_an_optimizer_inside_an_optimizer_is_followed_beside_it(train: Train):
    run = train(PRELUDE + """
class Outer(torch.optim.Optimizer):
    def __init__(self, inner):
        self.inner = inner; super().__init__(inner.param_groups, inner.defaults)
    def step(self, closure=None):
        self.inner.step()
net = Net()
fit(net, Outer(torch.optim.SGD(net.parameters(), lr=0.1)), steps=3)
""")  # fmt: skip

    assert run.faults == [] and set(run.owners) == {"SGD(Net)", "Outer(Net)"}
    for metric in ("loss", "grad_norm", "update_ratio"):
        inner, outer = (run.values(metric, owner=f"{kind}(Net)") for kind in ("SGD", "Outer"))
        assert len(inner) == 3 and inner == pytest.approx(outer), metric


def test_two_threads_that_train_two_models_are_left_in_peace(train: Train):
    run = train(PRELUDE + """
import threading
def work(scale, kind):
    net = kind(); opt = torch.optim.SGD(net.parameters(), lr=0.0)
    ready.wait()
    for step in range(60):
        opt.zero_grad(); (net(x) * 0 + scale).mean().backward(); opt.step()
class Other(Net): pass
ready = threading.Barrier(2)
threads = [threading.Thread(target=work, args=a) for a in ((1.0, Net), (2.0, Other))]
for thread in threads: thread.start()
for thread in threads: thread.join()
print("done")
""")  # fmt: skip

    assert run.stdout == "done\n" and run.stderr == ""
