"""Real small trainings with a fault of wiring, their healthy twins, and what only looks alike."""

from __future__ import annotations

import pytest

from nndiag.detectors import catalogue
from nndiag.readers import run_directory
from nndiag.records import Finding, Run, Severity
from tests.adapters.observed import Observed, Train

WIRING = (
    "missing-zero-grad", "softmax-before-cross-entropy", "eval-mode-training", "symmetric-units",
    "unnormalised-inputs", "batchnorm-small-batch", "fp16-overflow", "update-too-large",
    "update-too-small",
)  # fmt: skip

PRELUDE = """
import copy, math
import torch, torch.nn as nn, torch.nn.functional as F
torch.manual_seed(0)
centres = torch.randn(4, 8)
def batch(n=32):
    y = torch.randint(4, (n,))
    return centres[y] + 0.5 * torch.randn(n, 8), y
def mlp(*more, drop=0.1):
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(drop), nn.Linear(32, 4), *more)
def normed():
    return nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 4))
def fit(net, opt, steps=40, loss_of=F.cross_entropy, scale=1.0):
    for step in range(steps):
        x, y = batch(); opt.zero_grad(); loss_of(net(scale * x), y).backward(); opt.step()
SGD, Adam = torch.optim.SGD, torch.optim.Adam
"""

FIRES = {
    "nobody clears the gradients": ("missing-zero-grad", """
net = mlp(); opt = SGD(net.parameters(), 0.01)
for step in range(30):
    x, y = batch(); F.cross_entropy(net(x), y).backward(); opt.step()
"""),
    "the gradients of another model are cleared": ("missing-zero-grad", """
net = mlp(); opt = Adam(net.parameters(), 0.001); copied = copy.deepcopy(net)
for step in range(30):
    copied.zero_grad(); x, y = batch(); F.cross_entropy(net(x), y).backward()
    nn.utils.clip_grad_norm_(net.parameters(), 1.0); opt.step()
"""),
    "accumulation that is never cleared": ("missing-zero-grad", """
net = mlp(); opt = SGD(net.parameters(), 0.001)
for step in range(120):
    x, y = batch(); (F.cross_entropy(net(x), y) / 4).backward()
    if step % 4 == 3: opt.step()
"""),
    "nobody clears the gradients, and the net dies of it": ("missing-zero-grad", """
net = mlp(drop=0.0); opt = SGD(net.parameters(), 0.5)
for step in range(60):
    x, y = batch(); F.cross_entropy(net(x), y).backward(); opt.step()
    if step > 20: net[3].weight.data.zero_(); net[0].bias.data.fill_(-1e6)
"""),
    "a closure that does not clear": ("missing-zero-grad", """
net = mlp(drop=0.0); opt = torch.optim.LBFGS(net.parameters(), lr=0.01, max_iter=2); x, y = batch()
def closure():
    loss = F.cross_entropy(net(x), y); loss.backward(); return loss
for step in range(20): opt.step(closure)
"""),
    "a softmax before the loss": ("softmax-before-cross-entropy", """
net = mlp(nn.Softmax(dim=1)); fit(net, SGD(net.parameters(), 0.1))
"""),
    "a functional softmax over a sequence": ("softmax-before-cross-entropy", """
net = mlp(); opt = Adam(net.parameters())
fit(net, opt, loss_of=lambda out, y: nn.CrossEntropyLoss(label_smoothing=0.1)(
    out.softmax(-1).view(4, 8, 4).transpose(1, 2), y.view(4, 8)))
"""),
    "a sigmoid before a loss with logits": ("softmax-before-cross-entropy", """
net = mlp(nn.Sigmoid()); opt = Adam(net.parameters())
fit(net, opt, loss_of=lambda out, y: F.binary_cross_entropy_with_logits(out, F.one_hot(y, 4).float()))
"""),
    "probabilities for nll_loss": ("softmax-before-cross-entropy", """
net = mlp(nn.Softmax(dim=1)); fit(net, SGD(net.parameters(), 0.1), loss_of=F.nll_loss)
"""),
    "eval mode after the first validation": ("eval-mode-training", """
net = mlp(); opt = Adam(net.parameters())
for epoch in range(4):
    fit(net, opt, 10); net.eval()
    with torch.no_grad(): net(batch()[0])
"""),
    "a model that was loaded in eval mode": ("eval-mode-training", """
net = nn.Sequential(normed(), nn.Dropout(0.2), nn.Linear(4, 4)).eval(); fit(net, Adam(net.parameters()))
"""),
    "hidden layers of zeros": ("symmetric-units", """
net = mlp(drop=0.0); opt = SGD(net.parameters(), 0.1)
for p in net.parameters(): nn.init.zeros_(p)
fit(net, opt)
"""),
    "constant weights": ("symmetric-units", """
net = mlp(drop=0.0); opt = Adam(net.parameters(), 0.01)
for p in net.parameters(): nn.init.constant_(p, 0.1)
fit(net, opt)
"""),
    "pixels of 0 to 255": ("unnormalised-inputs", """
net = mlp(); opt = SGD(net.parameters(), 0.01)
fit(nn.Sequential(net), opt, scale=80.0)
"""),
    "a batch of four": ("batchnorm-small-batch", """
net = normed(); opt = Adam(net.parameters())
for step in range(30):
    x, y = batch(4); opt.zero_grad(); F.cross_entropy(net(x), y).backward(); opt.step()
"""),
    "gradients that overflow in float16": ("fp16-overflow", """
net = mlp(drop=0.0); opt = SGD(net.parameters(), 1e-3); scaler = torch.amp.GradScaler("cpu")
for step in range(90):
    x, y = batch(); opt.zero_grad()
    scaler.scale(F.cross_entropy(net(x), y)).backward()
    if step % 3 and step > 1: net[0].weight.grad[0, 0] = math.inf
    scaler.step(opt); scaler.update()
"""),
    "a learning rate a thousand times too high": ("update-too-large", """
net = mlp(drop=0.0); opt = Adam(net.parameters(), 1.0, betas=(0.0, 0.9))
for step in range(60):
    x, y = torch.randn(8, 8), torch.randint(4, (8,)); opt.zero_grad(); loss = F.cross_entropy(net(x), y); loss.backward(); opt.step()
    for p in net.parameters(): p.data.clamp_(-1, 1)
"""),
    "a learning rate a thousand times too low": ("update-too-small", """
net = mlp(drop=0.0); fit(net, Adam(net.parameters(), 1e-8), 80)
"""),
}  # fmt: skip

SILENT = {
    "a healthy training": """
net = mlp(); fit(net, Adam(net.parameters(), 0.01), 60)
""",
    "batch norm and validation in eval mode, gradients and all": """
net = nn.Sequential(normed(), nn.Dropout(0.1), nn.Linear(4, 4)); opt = SGD(net.parameters(), 0.1)
for epoch in range(4):
    net.train(); fit(net, opt, 10); net.eval(); loss = F.cross_entropy(net(batch()[0]), batch()[1])
""",
    "zeros instead of None": """
net = mlp(); opt = SGD(net.parameters(), 0.1)
for step in range(30):
    opt.zero_grad(set_to_none=False); x, y = batch(); F.cross_entropy(net(x), y).backward(); opt.step()
""",
    "gradients cleared by hand": """
net = mlp(); opt = SGD(net.parameters(), 0.1)
for step in range(30):
    x, y = batch(); F.cross_entropy(net(x), y).backward(); opt.step()
    for p in net.parameters(): p.grad.data.zero_()
""",
    "a loop without an optimizer": """
net = mlp()
for step in range(30):
    x, y = batch(); F.cross_entropy(net(x), y).backward()
    with torch.no_grad():
        for p in net.parameters(): p -= 0.1 * p.grad; p.grad = None
""",
    "accumulation over four batches": """
net = mlp(); opt = SGD(net.parameters(), 0.1)
for step in range(120):
    x, y = batch(); (F.cross_entropy(net(x), y) / 4).backward()
    if step % 4 == 3: opt.step(); opt.zero_grad()
""",
    "a GAN that soils the generator": """
G = nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 8)); D = nn.Sequential(nn.Linear(8, 16), nn.LeakyReLU(0.2), nn.Linear(16, 1))
g, d = Adam(G.parameters(), 1e-3), Adam(D.parameters(), 1e-3); bce = nn.BCEWithLogitsLoss()
for step in range(30):
    D.zero_grad(); fake = G(torch.randn(16, 2))
    (bce(D(batch(16)[0]), torch.ones(16, 1)) + bce(D(fake), torch.zeros(16, 1))).backward(retain_graph=True); d.step()
    G.zero_grad(); bce(D(G(torch.randn(16, 2))), torch.ones(16, 1)).backward(); g.step()
""",
    "LBFGS": """
net = mlp(drop=0.0); opt = torch.optim.LBFGS(net.parameters(), lr=0.5); x, y = batch(64)
def closure():
    opt.zero_grad(); loss = F.cross_entropy(net(x), y); loss.backward(); return loss
for step in range(10): opt.step(closure)
""",
    "sharpness-aware steps": """
net = mlp(); opt = SGD(net.parameters(), 0.05)
for step in range(30):
    x, y = batch(); opt.zero_grad(); F.cross_entropy(net(x), y).backward()
    with torch.no_grad():
        e = [0.01 * p.grad / (p.grad.norm() + 1e-12) for p in net.parameters()]
        for p, d in zip(net.parameters(), e): p += d
    opt.zero_grad(); F.cross_entropy(net(x), y).backward()
    with torch.no_grad():
        for p, d in zip(net.parameters(), e): p -= d
    opt.step()
""",
    "gradients handed over by torch.autograd.grad": """
net = mlp(); opt = SGD(net.parameters(), 0.1)
for step in range(30):
    x, y = batch(); found = torch.autograd.grad(F.cross_entropy(net(x), y), list(net.parameters()))
    for p, g in zip(net.parameters(), found): p.grad = g
    opt.step()
""",
    "an optimizer inside of backward": """
net = mlp(); opts = {p: SGD([p], 0.1) for p in net.parameters()}
def step_now(p): opts[p].step(); opts[p].zero_grad()
for p in net.parameters(): p.register_post_accumulate_grad_hook(step_now)
for step in range(30):
    x, y = batch(); F.cross_entropy(net(x), y).backward()
""",
    "two optimizers on one loss, several losses": """
body, heads = nn.Sequential(nn.Linear(8, 32), nn.ReLU()), nn.ModuleList([nn.Linear(32, 4), nn.Linear(32, 4)])
a, b = Adam(body.parameters(), 1e-3), SGD(heads.parameters(), 0.1)
for step in range(30):
    x, y = batch(); a.zero_grad(); b.zero_grad(); h = body(x)
    F.cross_entropy(heads[0](h), y).backward(retain_graph=True); F.cross_entropy(heads[1](h), y).backward(); a.step(); b.step()
""",
    "log-probabilities for nll_loss": """
net = mlp(nn.LogSoftmax(dim=1)); fit(net, SGD(net.parameters(), 0.1), loss_of=F.nll_loss)
""",
    "probabilities for the losses that want them": """
net = mlp(nn.Softmax(dim=1)); opt = Adam(net.parameters(), 0.01)
fit(net, opt, loss_of=lambda p, y: F.nll_loss(torch.log(p + 1e-9), y) + F.binary_cross_entropy(p, F.one_hot(y, 4).float()))
""",
    "focal loss with smoothed labels": """
def focal(out, y):
    ce = F.cross_entropy(out, y, reduction="none", label_smoothing=0.1); return ((1 - torch.exp(-ce)) ** 2 * ce).mean()
net = mlp(); fit(net, Adam(net.parameters(), 0.01), loss_of=focal)
""",
    "attention, whose softmax is inside": """
class Net(nn.Module):
    def __init__(self):
        super().__init__(); self.q, self.out = nn.Linear(8, 8), nn.Linear(8, 4)
    def forward(self, x):
        a = (self.q(x) @ x.T / 3).softmax(-1); return self.out(a @ x + x)
net = Net(); fit(net, Adam(net.parameters(), 0.01))
""",
    "distillation from a teacher in eval mode": """
teacher, net = mlp().eval(), mlp(); opt = Adam(net.parameters(), 0.01)
for step in range(40):
    x, y = batch(); opt.zero_grad(); t = teacher(x); s = net(x)
    (F.cross_entropy(s, y) + F.kl_div((s / 2).log_softmax(-1), (t / 2).softmax(-1), reduction="batchmean")).backward(); opt.step()
""",
    "a frozen backbone in eval mode": """
body = nn.Sequential(nn.Linear(8, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Dropout(0.1)); head = nn.Linear(32, 4)
net = nn.Sequential(body, head); opt = Adam(head.parameters(), 0.01)
for p in body.parameters(): p.requires_grad = False
net.train(); body.eval(); fit(net, opt)
""",
    "batch norm frozen on purpose": """
net = nn.Sequential(normed(), nn.Dropout(0.1), nn.Linear(4, 4)); opt = Adam(net.parameters(), 0.01)
for m in net.modules():
    if isinstance(m, nn.BatchNorm1d): m.eval()
fit(net, opt)
""",
    "an attack in eval mode before each step": """
net = nn.Sequential(nn.Dropout(0.1), normed()); opt = Adam(net.parameters(), 0.01)
for step in range(30):
    x, y = batch(); net.eval(); x.requires_grad_(); F.cross_entropy(net(x), y).backward()
    x = (x + 0.01 * x.grad.sign()).detach(); net.train(); opt.zero_grad(); F.cross_entropy(net(x), y).backward(); opt.step()
""",
    "a model without dropout in eval mode": """
net = mlp(drop=0.0).eval(); fit(net, Adam(net.parameters(), 0.01))
""",
    "a head that starts at zero, with warm-up": """
net = mlp(); nn.init.zeros_(net[3].weight); nn.init.zeros_(net[3].bias); opt = Adam(net.parameters(), 1e-3)
warm = torch.optim.lr_scheduler.LambdaLR(opt, lambda s: min(1, s / 20))
for step in range(60):
    x, y = batch(); opt.zero_grad(); F.cross_entropy(net(x), y).backward(); opt.step(); warm.step()
""",
    "LoRA": """
class Lora(nn.Module):
    def __init__(self, base):
        super().__init__(); self.base = base.requires_grad_(False)
        self.A, self.B = nn.Parameter(torch.randn(2, base.in_features) * 0.1), nn.Parameter(torch.zeros(base.out_features, 2))
    def forward(self, x): return self.base(x) + x @ self.A.T @ self.B.T
net = mlp(); net[0], net[3] = Lora(net[0]), Lora(net[3])
fit(net, Adam([p for p in net.parameters() if p.requires_grad], 0.01), 60)
""",
    "an embedding of zeros and a residual scale of zeros": """
class Net(nn.Module):
    def __init__(self):
        super().__init__(); self.e = nn.Embedding(50, 8); nn.init.zeros_(self.e.weight)
        self.net, self.gamma = mlp(), nn.Parameter(torch.zeros(8))
    def forward(self, x): return self.net(x + self.gamma * x + self.e(torch.arange(len(x)) % 50))
net = Net(); fit(net, Adam(net.parameters(), 0.01))
""",
    "inputs of any scale into batch norm": """
net = nn.Sequential(nn.BatchNorm1d(8), mlp()); fit(net, Adam(net.parameters(), 0.01), scale=100.0)
""",
    "a convolution that batch norm follows": """
net = nn.Sequential(nn.Unflatten(1, (1, 8)), nn.Conv1d(1, 4, 3), nn.BatchNorm1d(4), nn.ReLU(), nn.Flatten(), nn.Linear(24, 4))
fit(net, Adam(net.parameters(), 0.01), scale=100.0)
""",
    "tokens": """
net = nn.Sequential(nn.Embedding(9, 16), nn.Flatten(), nn.Linear(32, 9)); opt = Adam(net.parameters(), 0.01)
for step in range(40):
    t = torch.randint(9, (32, 2)); opt.zero_grad(); F.cross_entropy(net(t), t[:, 0]).backward(); opt.step()
""",
    "a small last batch": """
net = normed(); opt = Adam(net.parameters(), 0.01)
for epoch in range(6):
    for n in (32, 32, 32, 32, 3):
        x, y = batch(n); opt.zero_grad(); F.cross_entropy(net(x), y).backward(); opt.step()
""",
    "a scaler that finds its factor": """
net = mlp(); opt = Adam(net.parameters(), 0.01); scaler = torch.amp.GradScaler("cpu")
for step in range(60):
    x, y = batch(); opt.zero_grad(); scaler.scale(F.cross_entropy(net(x), y)).backward()
    if step < 6: net[0].weight.grad[0, 0] = math.inf
    scaler.step(opt); scaler.update()
""",
    "a careful fine-tuning after a long warm-up": """
net = mlp(drop=0.0); fit(net, Adam(net.parameters(), 0.05), 60)
opt = SGD(net.parameters(), 1e-6); warm = torch.optim.lr_scheduler.LambdaLR(opt, lambda s: (s + 1) / 100)
for step in range(60):
    x, y = batch(); opt.zero_grad(); F.cross_entropy(net(x), y).backward(); opt.step(); warm.step()
""",
}  # fmt: skip


def read(observed: Observed) -> Run:
    assert observed.faults == []
    return run_directory.read(observed.run_dir)


def findings(run: Run, *names: str) -> list[Finding]:
    said = [s for detector in catalogue.selected(names) for s in detector.examine(run)]
    return [s for s in said if isinstance(s, Finding)]


@pytest.mark.parametrize(("name", "script"), FIRES.values(), ids=FIRES)
def test_is_found(train: Train, name: str, script: str):
    found = findings(read(train(PRELUDE + script)), *WIRING)

    assert name in {f.name for f in found if f.severity >= Severity.WARNING}


@pytest.mark.parametrize("script", SILENT.values(), ids=SILENT)
def test_stays_silent_about(train: Train, script: str):
    found = findings(read(train(PRELUDE + script)), *WIRING)

    assert [f.message for f in found if f.severity >= Severity.WARNING] == []
