"""Small trainings as people write them, healthy ones and each fault that a first look can see."""

from __future__ import annotations

HEAD = """
import torch
from torch import nn
from torch.nn import functional as F

torch.manual_seed(0)
torch.set_num_threads(1)

def numbers(n=2048, d=20, c=10):
    x = torch.randn(n, d)
    return x, (x @ torch.randn(d, c)).argmax(1)

def fit(model, x, y, loss=F.cross_entropy, optimizer=None, batch=64, steps=200):
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=1e-3)
    for _ in range(steps):
        at = torch.randint(len(x), (batch,))
        optimizer.zero_grad()
        loss(model(x[at]), y[at]).backward()
        optimizer.step()
"""

MLP = "nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))"

HEALTHY = {
    "an MLP": f"fit({MLP}, *numbers())",
    "an MLP under plain SGD": f"""
model = {MLP}
fit(model, *numbers(), optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
""",
    "a CNN with batch norm": """
model = nn.Sequential(
    nn.Conv2d(3, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2),
    nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
    nn.Flatten(), nn.Dropout(0.1), nn.Linear(32, 5),
)
fit(model, torch.randn(256, 3, 12, 12), torch.randint(5, (256,)), batch=32)
""",
    "a transformer": """
class LM(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(30, 32)
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(32, 30)
    def forward(self, x):
        return self.head(self.body(self.embed(x))).transpose(1, 2)
x = torch.randint(30, (256, 17))
fit(LM(), x[:, :-1], x[:, 1:], batch=16)
""",
    "an LSTM": """
class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.rnn = nn.LSTM(8, 32, batch_first=True)
        self.head = nn.Linear(32, 4)
    def forward(self, x):
        return self.head(self.rnn(x)[0][:, -1])
x = torch.randn(512, 12, 8)
fit(Tagger(), x, x.sum((1, 2)).gt(0).long())
""",
    "a regression": """
x = torch.randn(1024, 8)
model = nn.Sequential(nn.Linear(8, 32), nn.Tanh(), nn.Linear(32, 1))
fit(model, x, x[:, :1] * 3, loss=F.mse_loss)
""",
    "fine-tuning behind a frozen backbone": """
backbone = nn.Sequential(nn.Linear(20, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
backbone.requires_grad_(False)
head = nn.Linear(64, 10)
model = nn.Sequential(backbone, head)
fit(model, *numbers(), optimizer=torch.optim.AdamW(head.parameters(), lr=1e-3))
""",
    "a GAN": """
G = nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2))
D = nn.Sequential(nn.Linear(2, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
og = torch.optim.Adam(G.parameters(), lr=2e-4, betas=(0.5, 0.999))
od = torch.optim.Adam(D.parameters(), lr=2e-4, betas=(0.5, 0.999))
bce = F.binary_cross_entropy_with_logits
for _ in range(200):
    real, fake = torch.randn(64, 2) + 2, G(torch.randn(64, 8))
    od.zero_grad()
    (bce(D(real), torch.ones(64, 1)) + bce(D(fake.detach()), torch.zeros(64, 1))).backward()
    od.step()
    og.zero_grad()
    bce(D(fake), torch.ones(64, 1)).backward()
    og.step()
""",
    "low-rank adapters, one half of which starts at zero": """
class Lora(nn.Module):
    def __init__(self, base, rank=4):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.a = nn.Linear(base.in_features, rank, bias=False)
        self.b = nn.Linear(rank, base.out_features, bias=False)
        nn.init.zeros_(self.b.weight)
    def forward(self, x):
        return self.base(x) + self.b(self.a(x))
model = nn.Sequential(Lora(nn.Linear(20, 64)), nn.GELU(), Lora(nn.Linear(64, 10)))
held = [p for p in model.parameters() if p.requires_grad]
fit(model, *numbers(), optimizer=torch.optim.AdamW(held, lr=1e-3))
""",
    "gradients accumulated over four batches": f"""
model = {MLP}
x, y = numbers()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
for step in range(800):
    at = torch.randint(len(x), (32,))
    (F.cross_entropy(model(x[at]), y[at]) / 4).backward()
    if step % 4 == 3:
        optimizer.step()
        optimizer.zero_grad()
""",
    "a warm-up": f"""
model = {MLP}
x, y = numbers()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
warm = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: min(1, (s + 1) / 1000))
for _ in range(200):
    at = torch.randint(len(x), (64,))
    optimizer.zero_grad()
    F.cross_entropy(model(x[at]), y[at]).backward()
    optimizer.step()
    warm.step()
""",
    "a deep net as torch initialises it": """
layers = [m for _ in range(7) for m in (nn.Linear(64, 64), nn.ReLU())]
fit(nn.Sequential(nn.Linear(20, 64), nn.ReLU(), *layers, nn.Linear(64, 10)), *numbers())
""",
    "batches of four": f"fit({MLP}, *numbers(), batch=4)",
}

# what is wrong -> (finding, check that says so, script)
SICK = {
    "a head that the loss does not see": (
        "unused-parameters",
        "has gradient",
        """
class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.body, self.head, self.aux = nn.Linear(20, 32), nn.Linear(32, 10), nn.Linear(32, 3)
    def forward(self, x):
        h = self.body(x).tanh()
        self.aux(h.detach())
        return self.head(h)
fit(Two(), *numbers())
""",
    ),
    "an optimizer with half of the model": (
        "untrained-parameters",
        "parameters",
        f"model = {MLP}\nhalf = torch.optim.Adam(model[:2].parameters())\n"
        "fit(model, *numbers(), optimizer=half)",
    ),
    "a learning rate of zero": (
        "untrained-parameters",
        "parameters",
        f"model = {MLP}\nstill = torch.optim.SGD(model.parameters(), lr=0.0)\n"
        "fit(model, *numbers(), optimizer=still)",
    ),
    "no zero_grad": (
        "missing-zero-grad",
        "zero_grad",
        f"""
model = {MLP}
x, y = numbers()
optimizer = torch.optim.Adam(model.parameters())
for _ in range(200):
    F.cross_entropy(model(x[:64]), y[:64]).backward()
    optimizer.step()
""",
    ),
    "eval mode": (
        "eval-mode-training",
        "modes",
        """
block = nn.Linear(20, 64), nn.BatchNorm1d(64), nn.ReLU(), nn.Dropout()
model = nn.Sequential(*block, nn.Linear(64, 10))
model.eval()
fit(model, *numbers())
""",
    ),
    "softmax before cross entropy": (
        "softmax-before-cross-entropy",
        "first loss",
        f"model = {MLP}\nmodel.append(nn.Softmax(dim=1))\nfit(model, *numbers())",
    ),
    "raw pixels": (
        "unnormalised-inputs",
        "inputs",
        f"x, y = numbers()\nfit({MLP}, 128 + 60 * x, y)",
    ),
    "logits that are far too large": (
        "loss-off-chance",
        "first loss",
        f"model = {MLP}\nwith torch.no_grad(): model[4].weight.mul_(200)\nfit(model, *numbers())",
    ),
    "a signal that fades": (
        "vanishing-gradient",
        "gradient norm",
        """
layers = [m for _ in range(12) for m in (nn.Linear(64, 64), nn.Sigmoid())]
model = nn.Sequential(nn.Linear(20, 64), nn.Sigmoid(), *layers, nn.Linear(64, 10))
fit(model, *numbers(), optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
""",
    ),
    "a signal that explodes": (
        "activation-exploding",
        "variance",
        f"""
model = {MLP}
for layer in model[::2]: nn.init.normal_(layer.weight, std=3.0)
fit(model, *numbers())
""",
    ),
    "units born dead": (
        "dead-relu",
        "dead units",
        f"model = {MLP}\nwith torch.no_grad(): model[2].bias.fill_(-20)\nfit(model, *numbers())",
    ),
    "layers of zeros": (
        "symmetric-units",
        "gradient norm",
        f"""
model = {MLP}
for layer in model[::2]: nn.init.constant_(layer.weight, 0.05); nn.init.zeros_(layer.bias)
fit(model, *numbers())
""",
    ),
    "a loss that becomes NaN": (
        "loss-nonfinite",
        "loss",
        f"""
model = {MLP}
x, y = numbers()
fit(model, x, y, loss=lambda out, y: (out.softmax(1)[:, 0] - 1).log().mean())
""",
    ),
    "updates as large as the weights": (
        "update-too-large",
        "updates",
        f"""
model = {MLP}
x, y = numbers()
optimizer = torch.optim.SGD(model.parameters(), lr=50.0)
for _ in range(200):
    at = torch.randint(len(x), (64,))
    optimizer.zero_grad()
    F.cross_entropy(model(x[at]), y[at]).backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
""",
    ),
}
