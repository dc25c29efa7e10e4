"""Each method names the features that are known to decide, on inputs of every kind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import mean

import pytest

pytest.importorskip("torch")
pytest.importorskip("captum")

import torch
import torch.nn.functional as F
from torch import nn

from tests.attribution import trainings as t
from tests.attribution.trainings import trained

IG, IXG, SALIENCY, ABLATION = (
    "integrated-gradients",
    "input-x-gradient",
    "saliency",
    "feature-ablation",
)
# Least share of |attribution| on the planted features: about three quarters of what was measured.
# They are 4 to 17 % of each input.
LEAST = {
    ("image", IG): 0.45,
    ("image", IXG): 0.45,
    ("image", SALIENCY): 0.18,
    ("image", ABLATION): 0.6,
    ("dark patch", IG): 0.7,
    ("dark patch", ABLATION): 0.7,
    ("pooled words", IG): 0.45,
    ("pooled words", IXG): 0.45,
    ("pooled words", ABLATION): 0.45,
    ("attended words", IG): 0.6,
    ("attended words", ABLATION): 0.6,
    ("lstm words", IG): 0.6,
    ("lstm words", IXG): 0.3,
    ("lstm words", ABLATION): 0.6,
    ("table", IG): 0.5,
    ("table", IXG): 0.5,
    ("table", SALIENCY): 0.6,
    ("table", ABLATION): 0.5,
    ("gru", IG): 0.6,
    ("gru", IXG): 0.3,
    ("gru", ABLATION): 0.6,
    ("conv1d", IG): 0.45,
    ("conv1d", IXG): 0.45,
    ("conv1d", ABLATION): 0.45,
    ("two inputs", IG): 0.5,
    ("two inputs", ABLATION): 0.5,
}


def shares(folder: Path, name: str, method: str, model: nn.Module | None = None) -> float:
    """The mean over the samples that have the planted features."""
    known = trained(name)
    model = model or known.model
    captured = t.capture(folder, model, known.loss_of, why="end")
    result = t.ask(model, captured, method, samples=8)
    rows = [i for i, one in enumerate(result.samples) if one.row in known.rows]
    return mean(t.share(result, known.planted, i) for i in rows)


@pytest.mark.parametrize("name, method", LEAST, ids=lambda value: value.replace(" ", "-"))
def test_the_planted_features_count_most(tmp_path: Path, name: str, method: str):
    assert shares(tmp_path, name, method) >= LEAST[name, method]


@pytest.mark.parametrize("name", ["image", "lstm words", "table", "gru"])
def test_a_model_that_learnt_nothing_fails_these_tests(tmp_path: Path, name: str):
    torch.manual_seed(3)
    fresh = type(trained(name).model)
    untrained = {
        "image": t.Cnn,
        "lstm words": lambda: t.Words("lstm"),
        "gru": lambda: t.Steps("gru"),
        "table": lambda: nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 2)),
    }[name]()

    assert isinstance(untrained, fresh)
    assert shares(tmp_path, name, IG, untrained) < LEAST[name, IG]


def test_a_method_without_a_baseline_is_blind_to_what_is_zero(tmp_path: Path):
    """Why the baseline of an image is its usual colour, and not zeros: zero times a gradient, and
    integrated gradients from zeros, both give nothing to a patch that is black."""
    assert shares(tmp_path, "dark patch", IXG) < 0.05


@pytest.mark.parametrize("why", ["end", "spike"])
def test_gradcam_sees_the_patch(tmp_path: Path, why: str):
    known = trained("image")
    captured = t.capture(tmp_path, known.model, known.loss_of, why=why)
    if why == "spike":  # the patch raises the loss of what is labelled as if it had none
        captured.targets[:] = 0

    result = t.ask(known.model, captured, "layer-gradcam", samples=2, target=None)

    row = next(i for i, one in enumerate(result.samples) if one.row in known.rows)
    seen = result.samples[row].found.values[0][0, 0]
    assert result.layer == "two" and seen.shape == (8, 8) and float(seen.min()) >= 0
    place = divmod(int(seen.argmax()), 8)
    assert 1 <= place[0] <= 4 and 3 <= place[1] <= 6  # cells 2-3, 4-5, and what a kernel adds


def test_gradcam_sees_the_time_step(tmp_path: Path):
    known = trained("conv1d")
    captured = t.capture(tmp_path, known.model, known.loss_of, why="end")

    result = t.ask(known.model, captured, "layer-gradcam", samples=4)

    row = next(i for i, one in enumerate(result.samples) if one.row in known.rows)
    assert abs(int(result.samples[row].found.values[0].reshape(-1).argmax()) - 6) <= 1


@pytest.mark.parametrize("name", ["image", "lstm words", "table", "gru", "two inputs"])
@pytest.mark.parametrize("method", [IG, "layer-conductance"])
@pytest.mark.parametrize("why", ["end", "spike"])
def test_what_is_attributed_adds_up(tmp_path: Path, name: str, method: str, why: str):
    known = trained(name)
    captured = t.capture(tmp_path, known.model, known.loss_of, why=why)

    result = t.ask(known.model, captured, method, samples=2)

    assert result.relative_delta is not None and result.relative_delta <= 0.05
    for one in result.samples:
        found = one.found
        total = sum(float(values.double().sum()) for values in found.values)
        change = found.at_sample - found.at_baseline
        assert total - change == pytest.approx(found.delta, abs=1e-4 + 1e-4 * abs(change))


def test_conductance_is_that_of_the_units_the_output_is_made_of(tmp_path: Path):
    model = nn.Sequential(nn.Linear(3, 4, bias=False), nn.Identity(), nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1], [1, 1, 1]]))
        model[2].weight.copy_(torch.tensor([[2.0, -1.0, 0.0, 0.0]]))
    x = torch.tensor([[1.0, 2, 3], [4, 5, 6], [0, 0, 0]])  # fewer than four: the baseline is 0
    captured = t.capture(tmp_path, model, lambda m: F.mse_loss(m(x), x[:, :1]), why="end")

    result = t.ask(model, captured, "layer-conductance")

    assert result.layer == "input of 2"
    units = [one.found.values[0][0].tolist() for one in result.samples]
    assert units[0] == pytest.approx([2, -2, 0, 0], rel=0.01, abs=1e-5)
    assert units[1] == pytest.approx([8, -5, 0, 0], rel=0.01, abs=1e-5)
    named = t.ask(model, captured, "layer-conductance", layer="0")
    assert named.samples[0].found.values[0][0].tolist() == pytest.approx(units[0], abs=1e-5)


def linear(folder: Path) -> tuple[nn.Module, torch.Tensor, torch.Tensor, t.Captured]:
    torch.manual_seed(0)
    model = nn.Linear(6, 3)
    x, y = torch.randn(9, 6), torch.randint(3, (9,))
    captured = t.capture(folder, model, lambda m: F.cross_entropy(m(x), y), why="end")
    return model, x, y, captured


EXACT: dict[str, Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]] = {
    IG: lambda x, b, w: (x - b) * w,
    ABLATION: lambda x, b, w: (x - b) * w,
    IXG: lambda x, b, w: x * w,
    SALIENCY: lambda x, b, w: w.abs(),
}


@pytest.mark.parametrize("method", EXACT)
def test_of_a_linear_model_each_method_is_known_exactly(tmp_path: Path, method: str):
    model, x, y, captured = linear(tmp_path)

    result = t.ask(model, captured, method, samples=9)

    baseline = x.median(dim=0).values
    for one in result.samples:
        expected = EXACT[method](x[one.row], baseline, model.weight[y[one.row]]).detach()
        assert one.words == f"output {y[one.row]} (the label)"
        assert torch.allclose(one.found.values[0][0], expected, atol=1e-5)


def test_captum_called_by_hand_says_the_same(tmp_path: Path):
    from captum.attr import FeatureAblation, IntegratedGradients, LayerGradCam, Saliency

    known = trained("image")
    captured = t.capture(tmp_path, known.model, known.loss_of, why="end")
    ours = {m: t.ask(known.model, captured, m) for m in (IG, SALIENCY, ABLATION, "layer-gradcam")}

    model = known.model.eval()
    x, y = known.args[0][1:2], int(known.targets[1])
    middle = known.args[0].movedim(1, 0).reshape(3, -1).median(dim=1).values
    blank = middle.reshape(1, 3, 1, 1).expand_as(x)
    steps = ours[IG].samples[1].found.steps
    mask = (torch.arange(16) // 2 * 8)[:, None] + (torch.arange(16) // 2)[None, :]
    theirs = {
        IG: IntegratedGradients(model).attribute(x, blank, target=y, n_steps=steps),
        SALIENCY: Saliency(model).attribute(x, target=y),
        ABLATION: FeatureAblation(model).attribute(
            x, blank, target=y, feature_mask=mask.expand(1, 3, 16, 16)
        )
        / 12,  # of a square with 2 x 2 x 3 numbers each has its part
        "layer-gradcam": LayerGradCam(model, model.two).attribute(
            x, target=y, relu_attributions=True
        ),
    }
    model.train()
    for method, expected in theirs.items():
        found = ours[method].samples[1].found.values[0]
        assert torch.allclose(found, expected, rtol=1e-3, atol=1e-4), method
