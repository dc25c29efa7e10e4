"""Watching changes nothing: the same bits, random numbers and output with and without it."""

from __future__ import annotations

import pytest

from tests.adapters.observed import Train

PRELUDE = """
import copy, functools, hashlib, io, pickle, random, sys
import torch, torch.nn as nn, torch.nn.functional as F
torch.manual_seed(0); random.seed(0)
def digest(*things):
    sha = hashlib.sha256()
    def eat(thing):
        if isinstance(thing, torch.Tensor):
            sha.update(f"{thing.dtype} {tuple(thing.shape)}".encode())
            sha.update(thing.detach().to_dense().reshape(-1).view(torch.uint8).numpy().tobytes())
        elif isinstance(thing, dict):
            for key in thing: eat(key); eat(thing[key])
        elif isinstance(thing, (list, tuple)):
            for item in thing: eat(item)
        else: sha.update(repr(thing).encode())
    eat(things)
    return sha.hexdigest()[:16]
def report(*pairs):
    for net, opt in pairs:
        print(digest(net.state_dict()), digest([p.grad for p in net.parameters()]), digest(opt.state_dict()))
        print([sorted(vars(m)) for m in net.modules()], [sorted(vars(p)) for p in net.parameters()])
        print(sorted(vars(opt)), opt._optimizer_step_pre_hooks, opt._optimizer_step_post_hooks)
        copy.deepcopy(net); pickle.dumps(net); file = io.BytesIO(); torch.save(net, file); print(len(file.getvalue()))
    print(digest(torch.get_rng_state(), random.getstate()), torch.is_grad_enabled())
    assert "numpy" not in sys.modules or digest(sys.modules["numpy"].random.get_state()[1].tolist())
def mlp():
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(inplace=True), nn.Dropout(0.2), nn.Linear(8, 1))
def fit(net, opt, steps=12, loss_of=None, **kwargs):
    for step in range(steps):
        opt.zero_grad(); loss_of(step).backward(); opt.step()
x = torch.randn(16, 4)
"""
TRAININGS = {
    "an MLP with schedule and clipping": """
net = mlp(); opt = torch.optim.AdamW(net.parameters(), lr=0.1)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(opt, 20)
for step in range(23):
    opt.zero_grad(); net(torch.randn(16, 4)).square().mean().backward()
    nn.utils.clip_grad_norm_(net.parameters(), 0.1); opt.step(); schedule.step()
    print(f"step {step} val_loss {random.random()}", end="\\r" if step % 2 else "\\n", file=sys.stderr)
report((net, opt))
""",
    "a convolutional net with batch norm": """
net = nn.Sequential(nn.Conv2d(3, 8, 3, bias=False), nn.BatchNorm2d(8), nn.ReLU(inplace=True), nn.MaxPool2d(2),
                    nn.BatchNorm2d(8, momentum=None), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4))
opt = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9, nesterov=True)
for step in range(12):
    opt.zero_grad(); F.cross_entropy(net(torch.randn(8, 3, 10, 10)), torch.randint(4, (8,))).backward(); opt.step()
    net.eval(); net(torch.randn(8, 3, 10, 10)); net.train()
report((net, opt))
""",
    "recurrent nets": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.cell, self.head = nn.Embedding(11, 6), nn.GRUCell(6, 6), nn.Linear(16, 11)
        self.lstm = nn.LSTM(6, 8, 2, dropout=0.1, batch_first=True, bidirectional=True)
    def forward(self, t):
        e, h = self.embed(t), torch.zeros(len(t), 6)
        for k in range(t.shape[1]): h = self.cell(e[:, k], h)
        return self.head(torch.tanh(self.lstm(e * h[:, None])[0]))
net = Net(); opt = torch.optim.RMSprop(net.parameters(), lr=0.01); t = torch.randint(11, (4, 7))
fit(net, opt, loss_of=lambda step: F.cross_entropy(net(t).flatten(0, 1), t.flatten()))
report((net, opt))
""",
    "a transformer with dropout": """
net = nn.Transformer(16, 2, 2, 2, 32, 0.1, batch_first=True); opt = torch.optim.Adam(net.parameters(), amsgrad=True)
mask = nn.Transformer.generate_square_subsequent_mask(5)
for step in range(12):
    opt.zero_grad(); net(torch.randn(3, 5, 16), torch.randn(3, 5, 16), tgt_mask=mask).square().mean().backward(); opt.step()
    net.eval(); net(torch.randn(3, 5, 16), torch.randn(3, 5, 16)); net.train()
report((net, opt))
""",
    "a GAN with spectral norm": """
G = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 4))
D = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.2, inplace=True), nn.utils.spectral_norm(nn.Linear(8, 1)), nn.Sigmoid())
g, d, bce = torch.optim.Adam(G.parameters()), torch.optim.Adam(D.parameters()), nn.BCELoss()
for step in range(12):
    D.zero_grad(); bce(D(x), torch.ones(16, 1)).backward()
    fake = G(torch.randn(16, 2)); bce(D(fake.detach()), torch.zeros(16, 1)).backward(); d.step()
    G.zero_grad(); bce(D(fake), torch.ones(16, 1)).backward(); g.step()
report((G, g))
print(digest(D.state_dict(), d.state_dict(), [p.grad for p in D.parameters()]))
""",
    "LBFGS": """
net = mlp(); opt = torch.optim.LBFGS(net.parameters(), lr=0.5, line_search_fn="strong_wolfe")
def closure():
    opt.zero_grad(); loss = net(x).square().mean(); loss.backward(); return loss
for step in range(12): opt.step(closure)
report((net, opt))
""",
    "accumulation, autocast and a scaler": """
net = mlp(); opt = torch.optim.Adam(net.parameters(), lr=0.1)
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**14, growth_interval=2)
for step in range(48):
    with torch.autocast("cpu", torch.float16 if step % 2 else torch.bfloat16):
        loss = net(x * (step + 1)).float().square().mean()
    scaler.scale(loss / 4).backward()
    if step % 4 == 3:
        scaler.unscale_(opt); nn.utils.clip_grad_norm_(net.parameters(), 1.0); scaler.step(opt); scaler.update(); opt.zero_grad()
report((net, opt)); print(scaler.state_dict())
""",
    "bfloat16 and a fused optimizer": """
net = mlp().bfloat16(); opt = torch.optim.Adam(net.parameters(), lr=0.1, fused=True)
fit(net, opt, loss_of=lambda step: net(torch.randn(16, 4).bfloat16()).square().mean())
report((net, opt))
""",
    "activation checkpointing of every kind": """
from torch.utils.checkpoint import CheckpointPolicy as P, checkpoint, create_selective_checkpoint_contexts as contexts
class Block(nn.Module):
    def __init__(self):
        super().__init__(); self.layer, self.norm, self.drop = nn.Linear(16, 16), nn.BatchNorm1d(16), nn.Dropout(0.1)
    def forward(self, x):
        h = self.layer(x); top = h.abs().max()
        return self.drop(self.norm(torch.relu(h / top))) * top
saved = (torch.ops.aten.mm.default, torch.ops.aten.max.default)
policy = lambda c, op, *a, **k: P.MUST_SAVE if op in saved else P.PREFER_RECOMPUTE
kinds = [
    lambda f, x: checkpoint(f, x, use_reentrant=True),
    lambda f, x: checkpoint(f, x, use_reentrant=False),
    lambda f, x: checkpoint(f, x, use_reentrant=False, context_fn=functools.partial(contexts, policy)),
    lambda f, x: f(checkpoint(torch.relu, x, use_reentrant=False)),  # a ReLU outside of any module
]
for kind in kinds:
    torch.manual_seed(1); net = nn.Sequential(Block(), Block()); opt = torch.optim.SGD(net.parameters(), lr=0.01)
    for step in range(12):
        opt.zero_grad(); h = torch.randn(16, 16, requires_grad=True)
        for block in net: h = kind(block, h)
        (h * float("nan") if step == 9 else h).square().sum().backward()
        if step != 9: opt.step()
    report((net, opt))
with torch.autograd.graph.save_on_cpu():
    fit(net, opt, loss_of=lambda step: net(torch.randn(16, 16)).square().sum())
report((net, opt))
""",
    "modes, transforms, tracing and lazy modules": """
from torch.utils.flop_counter import FlopCounterMode
from torch.func import functional_call, grad, vmap
net = mlp(); opt = torch.optim.Adam(net.parameters(), lr=0.1)
def some(steps): fit(net, opt, steps, lambda step: net(x).square().mean())
with FlopCounterMode(display=False) as flops: some(7)
print(flops.get_total_flops())
with torch.autograd.set_detect_anomaly(True, check_nan=False): some(2)
torch.use_deterministic_algorithms(True); some(3)
torch.set_default_dtype(torch.float64); torch.set_default_device("meta"); some(3)
torch.set_default_device("cpu"); torch.set_default_dtype(torch.float32)
net.eval(); parameters = dict(net.named_parameters())
print(digest(vmap(grad(lambda p, x: functional_call(net, p, (x,)).square().sum()), (None, 0))(parameters, x)))
net.train()
with torch.inference_mode(): net(x)
print(len(torch.export.export(mlp().eval(), (x,)).graph.nodes))
lazy = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(1)); lazy(x)
lazy_opt = torch.optim.SGD(lazy.parameters(), lr=0.1)
fit(lazy, lazy_opt, loss_of=lambda step: lazy(x).square().mean())
report((net, opt), (lazy, lazy_opt))
""",
    "outputs of every kind": """
import dataclasses
@dataclasses.dataclass
class Out: value: torch.Tensor
class Odd(nn.Module):
    def __init__(self, make): super().__init__(); self.make, self.w = make, nn.Parameter(torch.ones(4))
    def forward(self, x): return self.make(x * self.w)
kinds = [lambda x: (x, None), lambda x: {"a": [x, {"b": x}]}, Out, lambda x: (y for y in [x]), lambda x: [x] * 50, lambda x: None,
         lambda x: x.int(), lambda x: x.sum(), lambda x: x[:0], lambda x: x.to_sparse(), lambda x: x.to(torch.complex64), lambda x: "x",
         lambda x: x.double(), lambda x: x.half(), lambda x: nn.Parameter(x.detach()), lambda x: x > 0]
odd = nn.ModuleList(Odd(kind) for kind in kinds); head = mlp(); opt = torch.optim.SGD([*odd.parameters(), *head.parameters()], lr=0.1)
class Hostile(nn.Module):
    def forward(self, x): return x
    def __eq__(self, other): raise ValueError
    def __bool__(self): raise ValueError
    def __len__(self): raise ValueError
    def __repr__(self): raise ValueError
hostile = Hostile()
for step in range(7):
    opt.zero_grad()
    for module in odd: module(x)
    head(hostile(odd[0](x)[0])).square().mean().backward(); opt.step()
print(digest(head.state_dict(), odd.state_dict()))
""",
}


@pytest.mark.parametrize("script", TRAININGS.values(), ids=TRAININGS)
def test_nothing_changes_in(train: Train, script: str):
    plain = train(PRELUDE + script, watched=False)

    for every in (1, "auto"):
        watched = train(PRELUDE + script, every=every)
        assert watched.faults == []
        assert watched.stdout == plain.stdout
        assert watched.stderr == plain.stderr
        assert watched.owners  # it was watched


def test_a_script_that_leaves_its_steps_to_threads_and_forks_is_left_alone(train: Train):
    script = PRELUDE + """
import threading
from torch.utils.data import DataLoader, Dataset
class Data(Dataset):
    shift = nn.Linear(4, 4)  # a module that runs in the workers, with gradients
    def __len__(self): return 32
    def __getitem__(self, i): return self.shift(x[i % 16]).detach()
net = mlp(); opt = torch.optim.SGD(net.parameters(), lr=0.1)
for batch in DataLoader(Data(), batch_size=8, num_workers=2):
    opt.zero_grad(); net(batch).square().mean().backward(); opt.step()
other = mlp(); other_opt = torch.optim.SGD(other.parameters(), lr=0.1)
thread = threading.Thread(target=fit, args=(other, other_opt, 5, lambda step: other(x).square().mean()))
thread.start(); thread.join()
import os
pid = os.fork()
if pid == 0:
    fit(net, opt, 5, lambda step: net(x).square().mean()); print("val_loss 0.5"); sys.exit(0)
os.waitpid(pid, 0)
report((net, opt), (other, other_opt))
"""  # fmt: skip
    plain, watched = train(script, watched=False), train(script)

    assert watched.faults == []
    assert (watched.stdout, watched.stderr) == (plain.stdout, plain.stderr)
    assert [path.name for path in watched.run_dir.glob("rank-*")] == ["rank-0"]
    assert [len(watched.series("loss", owner=owner)) for owner in watched.owners] == [4, 5]
    assert watched.of_kind("metric") == []  # what the child printed is not ours
    assert len(watched.of_kind("exit")) == 1
