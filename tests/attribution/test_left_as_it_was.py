"""After an attribution the model, its gradients and the random numbers are what they were before.

Whatever way it ends: with a result, with a refusal, by an exception or by Ctrl-C.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("captum")

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nndiag.attribution import methods
from nndiag.attribution.attribute import Request
from nndiag.attribution.run import Batches, attribute_all
from nndiag.errors import NndiagError
from nndiag.vocabulary import methods as vocabulary
from tests.attribution import trainings as t

image, table, tokens = torch.randn(8, 3, 8, 8), torch.randn(8, 6), torch.randint(1, 20, (8, 5))
labels = torch.arange(8) % 2


class Counting(nn.Module):
    """Keeps things of each forward pass: a buffer in place, a buffer anew, and an attribute."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(6, 2)
        self.register_buffer("calls", torch.zeros(1))
        self.register_buffer("newest", torch.zeros(1), persistent=False)
        self.last: Tensor | None = None

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.newest = x.detach().mean().reshape(1)
        x += 0.0  # in place on what it was given
        self.last = self.layer(x)
        return self.last


class Tied(nn.Module):
    """One embedding for what goes in and what comes out, used twice, with a largest norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 8, padding_idx=0, max_norm=1.0)
        self.head = nn.Linear(8, 20, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids: Tensor, others: Tensor) -> Tensor:
        x = self.embed(ids)
        x += 1.0
        return self.head(torch.tanh(x.sum(1) * self.embed(others).mean(1)))[:, :2]


def twice() -> nn.Module:
    relu, layer = nn.ReLU(inplace=True), nn.Linear(6, 6)
    return nn.Sequential(layer, relu, layer, relu, nn.Dropout(0.3), nn.Linear(6, 2))


def frozen() -> nn.Module:
    model = nn.Sequential(nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 2))
    model[0].requires_grad_(False)
    return model.eval()


def normed() -> nn.Module:
    from torch.nn.utils import parametrizations

    one = parametrizations.spectral_norm(nn.Linear(6, 6))
    two = parametrizations.weight_norm(nn.Linear(6, 6))
    with_hooks = nn.utils.spectral_norm(nn.Linear(6, 2))
    return nn.Sequential(one, nn.ReLU(), two, nn.ReLU(), with_hooks)


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[Tensor, ...]]] = {
    "a CNN with batch norm, in part in eval mode": (
        lambda: t.Cnn().apply(lambda m: m.eval() if isinstance(m, nn.BatchNorm2d) else m),
        (image,),
    ),
    "layers used twice, in place": (twice, (table,)),
    "what keeps things of its forward pass": (Counting, (table,)),
    "tied weights and a largest norm": (Tied, (tokens, tokens.flip(1))),
    "frozen, in eval mode": (frozen, (table,)),
    "spectral and weight norm": (normed, (table,)),
    "a transformer": (lambda: t.Words("attention"), (tokens,)),
    "an LSTM": (lambda: t.Words("lstm"), (tokens,)),
    "half precision": (
        lambda: nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2)).bfloat16(),
        (table.bfloat16(),),
    ),
}


def loss_of(inputs: tuple[Tensor, ...]) -> Callable[[nn.Module], Tensor]:
    def run(model: nn.Module) -> Tensor:
        out = model(*(x.clone() for x in inputs))
        return F.cross_entropy(getattr(out, "logits", out), labels)

    return run


def state(model: nn.Module) -> list[Any]:
    """Everything that must be as it was, by value and by identity."""
    found: list[Any] = [torch.get_rng_state().tolist(), random.getstate(), torch.is_grad_enabled()]
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        grad = None if tensor.grad is None else tensor.grad.tolist()
        found.append((name, id(tensor), tensor.tolist(), grad, tensor.requires_grad))
        found.append((tensor._version, tensor._backward_hooks))
    for name, module in model.named_modules():
        kept = {key: id(value) for key, value in vars(module).items()}
        tables = {k: list(v) for k, v in vars(module).items() if isinstance(v, dict)}
        found.append((name, module.training, getattr(module, "inplace", None), kept, tables))
    for hooks in vars(nn.modules.module).values():
        if isinstance(hooks, dict):
            found.append(len(hooks))
    found.append(torch.backends.cudnn.enabled)
    found.append(torch.backends.mha.get_fastpath_enabled())
    return found


@pytest.mark.parametrize("name", MODELS)
def test_nothing_of_the_model_changes(tmp_path: Path, name: str):
    torch.manual_seed(1)
    make, inputs = MODELS[name]
    model, loss = make(), loss_of(inputs)
    loss(model).backward()
    captured = t.capture(tmp_path, model, loss)
    weights = captured.weights()
    before = state(model)

    worked = 0
    for stand_in in (None, weights):
        for method in vocabulary.names():
            with contextlib.suppress(NndiagError):
                t.ask(model, captured, method, stand_in, samples=2)
                worked += 1
            assert state(model) == before, method

    assert worked >= 8


class Stop(Exception):
    """No failure that anybody expects."""


@pytest.mark.parametrize("error", [Stop, KeyboardInterrupt, RuntimeError])
@pytest.mark.parametrize("method", vocabulary.names())
def test_nothing_changes_when_it_is_cut_short(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, error: type[BaseException]
):
    model = t.Cnn()
    captured = t.capture(tmp_path, model, loss_of((image,)))
    before, calls = state(model), 0
    forward = F.adaptive_avg_pool2d

    def interrupted(*args: Any) -> Tensor:  # in the middle of the forward pass
        nonlocal calls
        calls += 1
        if calls == 6:
            raise error("now")
        return forward(*args)

    monkeypatch.setattr(F, "adaptive_avg_pool2d", interrupted)

    with pytest.raises((error, NndiagError)):
        t.ask(model, captured, method)
    assert calls == 6
    assert state(model) == before


def interrupt(*_: Any, **__: Any) -> Any:
    raise KeyboardInterrupt


def test_an_interrupt_inside_of_captum_leaves_no_hook(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    model = t.Cnn()
    captured = t.capture(tmp_path, model, loss_of((image,)))
    before = state(model)
    monkeypatch.setattr(methods.LayerConductance, "_attribute", interrupt)
    model_hook = model.two.register_forward_hook

    with pytest.raises(KeyboardInterrupt):
        t.ask(model, captured, "layer-conductance")

    assert state(model) == before and model_hook


@pytest.mark.parametrize(
    "context",
    [torch.no_grad, torch.inference_mode, lambda: torch.autocast("cpu", torch.bfloat16)],
    ids=["no_grad", "inference_mode", "autocast"],
)
def test_the_script_may_meet_the_model_in_any_mode(tmp_path: Path, context: Callable[[], Any]):
    """As when it is run again: its first forward pass is a validation, say."""
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    captured = t.capture(tmp_path, model, loss_of((table,)))
    plain = t.ask(model, captured, "integrated-gradients", captured.weights())
    written = attribute_all(model, Batches(str(tmp_path), Request()))
    outside = Path(written[0]).with_suffix(".safetensors").read_bytes()

    with context():
        inside = attribute_all(model, Batches(str(tmp_path), Request()))

    assert inside == written
    assert Path(inside[0]).with_suffix(".safetensors").read_bytes() == outside
    assert plain.samples[0].loss == pytest.approx(plain.samples[0].found.at_sample, rel=1e-4)


def test_parameters_made_in_inference_mode_are_no_obstacle(tmp_path: Path):
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    captured = t.capture(tmp_path, model, loss_of((table,)), why="end")
    with torch.inference_mode():
        other = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
        other.load_state_dict(model.state_dict())

    expected = t.ask(model, captured).samples[0].found.values[0]

    for weights in (None, captured.weights()):
        found = t.ask(other, captured, weights=weights).samples[0].found.values[0]
        assert torch.equal(found, expected)


def test_inputs_that_autocast_made_fit_parameters_in_full_precision(tmp_path: Path):
    model = nn.Sequential(nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    with torch.autocast("cpu", torch.bfloat16):
        captured = t.capture(tmp_path, model, loss_of((table.bfloat16(),)))

    assert captured.inputs["0"].dtype is torch.bfloat16
    assert t.ask(model, captured).relative_delta < 0.05


def test_the_captured_parameters_stand_in_for_the_embedding_too(tmp_path: Path):
    model = t.Words("pool")
    with torch.no_grad():
        loss = loss_of((tokens,))
    captured = t.capture(tmp_path, model, loss)
    weights, before = captured.weights(), t.ask(model, captured, samples=1)
    with torch.no_grad():
        model.embed.weight.add_(5.0)

    after = t.ask(model, captured, weights=weights, samples=1)

    assert torch.equal(before.samples[0].found.values[0], after.samples[0].found.values[0])
    assert after.samples[0].loss == pytest.approx(after.samples[0].found.at_sample, rel=1e-4)


def test_one_embedding_that_takes_two_inputs_is_replaced_for_the_one(tmp_path: Path):
    model = Tied()
    with torch.no_grad():
        model(tokens, tokens)  # so that the largest norm holds
    captured = t.capture(tmp_path, model, loss_of((tokens, tokens[:, :3])))

    result = t.ask(model, captured, "feature-ablation", samples=1)

    assert [feature.kind for feature in result.features] == ["tokens"]
    assert result.samples[0].found.at_sample == pytest.approx(result.samples[0].loss, rel=1e-4)
