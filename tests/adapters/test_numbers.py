"""Every number in the journal against the slowest obvious way to work it out, in the script itself."""

from __future__ import annotations

import pytest

# What a script works out for itself, in float64 and without our code.
BY_HAND = """
import json, math
import torch, torch.nn as nn, torch.nn.functional as F
torch.manual_seed(0)
told = {}
def tell(name, value):
    told.setdefault(name, []).append(float(torch.as_tensor(value).detach()))
def length(tensors):
    return math.sqrt(sum(float((t.detach().double() ** 2).sum()) for t in tensors))
def flat(tensors):
    return torch.cat([t.detach().double().reshape(-1) for t in tensors])
def statistics(name, x):
    x = x.detach().double()
    mean = x.sum() / x.numel()
    tell(name + " mean", mean)
    tell(name + " variance", ((x - mean) ** 2).sum() / x.numel())
    units = x.reshape(x.shape[0], -1)
    tell(name + " sample_variance", sum(units[:, j].var(correction=0) for j in range(units.shape[1])) / units.shape[1])
    tell(name + " abs_max", max(abs(v) for v in x.flatten().tolist()))
    tell(name + " zero_fraction", sum(v == 0 for v in x.flatten().tolist()) / x.numel())
    tell(name + " nonfinite", sum(not math.isfinite(v) for v in x.flatten().tolist()))
def end():
    print(json.dumps({k: [str(v) if v != v or abs(v) == math.inf else v for v in vs] for k, vs in told.items()}))
"""

MLP = (
    BY_HAND
    + """
net = nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, 3))
frozen = net[2].bias.requires_grad_(False)
opt = torch.optim.Adam([{"params": net[0].parameters()}, {"params": net[2].parameters(), "lr": 3e-3}], lr=1e-2, betas=(0.8, 0.99))
params = list(net.parameters())
before_update = None
for step in range(12):
    opt.param_groups[0]["lr"] = 1e-2 / (step + 1)
    x, y = torch.randn(32, 6) * 3 + 1, torch.randn(32, 3)
    opt.zero_grad()
    with torch.no_grad():
        h0 = x @ net[0].weight.T + net[0].bias
        statistics("0", h0); statistics("1", h0.clamp_min(0))
        statistics("2", h0.clamp_min(0) @ net[2].weight.T + net[2].bias)
    loss = F.mse_loss(net(x), y)
    loss.backward()
    tell("loss", loss); tell("lr", opt.param_groups[0]["lr"]); tell("lr1", opt.param_groups[1]["lr"])
    grads = [p.grad.clone() for p in params if p.grad is not None]
    tell("grad_norm", length(grads))
    for name, p in net.named_parameters():
        tell("grad " + name, -1 if p.grad is None else length([p.grad]))
    nn.utils.clip_grad_norm_(net.parameters(), 0.5)
    if before_update is not None:
        g = flat([p.grad for p in params if p.grad is not None])
        u = flat([u for u, p in zip(before_update, params) if p.grad is not None])
        tell("cosine", g @ u / g.norm() / u.norm())
    before = [p.detach().clone() for p in params]
    opt.step()
    before_update = [p.detach() - b for p, b in zip(params, before)]
    tell("update_ratio", length(before_update) / length(params))
    for (name, p), u in zip(net.named_parameters(), before_update):
        tell("norm " + name, length([p])); tell("update " + name, length([u]))
end()
"""
)


@pytest.fixture(scope="module")
def mlp(tmp_path_factory, zygote):
    from tests.adapters.observed import train_in

    return train_in(tmp_path_factory.mktemp("mlp"), zygote)(MLP)


def test_the_whole_run_numbers_are_those_worked_out_by_hand(mlp):
    assert mlp.faults == []
    assert list(mlp.series("loss")) == list(range(12))
    assert mlp.values("loss") == pytest.approx(mlp.told["loss"], rel=1e-6)
    assert mlp.values("lr") == pytest.approx(mlp.told["lr"])
    assert mlp.values("lr", "group-1") == pytest.approx(mlp.told["lr1"])
    assert mlp.values("grad_norm") == pytest.approx(mlp.told["grad_norm"], rel=1e-5)
    assert set(mlp.values("clip_threshold")) == {0.5}
    assert mlp.values("update_ratio") == pytest.approx(mlp.told["update_ratio"], rel=1e-4)
    assert mlp.values("update_gradient_cosine")[1:] == pytest.approx(mlp.told["cosine"], abs=1e-5)
    assert set(mlp.values("backward_calls")) == {1.0}


@pytest.mark.parametrize("name", ["0.weight", "0.bias", "2.weight", "2.bias"])
def test_the_norms_of_a_parameter_are_those_worked_out_by_hand(mlp, name):
    assert mlp.values("param_norm", name) == pytest.approx(mlp.told[f"norm {name}"], rel=1e-5)
    assert mlp.values("param_update_norm", name) == pytest.approx(
        mlp.told[f"update {name}"], rel=1e-4, abs=1e-9
    )
    # Gradient norms are those before clipping; -1 says that the frozen one has none.
    assert mlp.values("param_grad_norm", name) == pytest.approx(mlp.told[f"grad {name}"], rel=1e-4)


@pytest.mark.parametrize("layer", ["0", "1", "2"])
@pytest.mark.parametrize(
    "metric", ["mean", "variance", "sample_variance", "abs_max", "zero_fraction", "nonfinite"]
)
def test_the_statistics_of_a_layer_are_those_worked_out_by_hand(mlp, layer, metric):
    measured = mlp.values(f"activation_{metric}", layer)

    assert measured == pytest.approx(mlp.told[f"{layer} {metric}"], rel=1e-4, abs=1e-6)
