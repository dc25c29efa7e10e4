"""What cannot be done is refused with the reason, and with what would work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("captum")

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nndiag.attribution import methods, one_sample
from nndiag.attribution.attribute import DependentSamples
from nndiag.attribution.model_call import CannotAttribute
from tests.attribution import trainings as t
from tests.attribution.trainings import trained

x = torch.randn(8, 6)
y = torch.arange(8) % 2
ids = torch.arange(40).reshape(8, 5)


class Model(nn.Module):
    """Some parts, and what is done with them."""

    def __init__(self, forward: Callable[[Any, Tensor], Any], **parts: nn.Module) -> None:
        super().__init__()
        for name, part in parts.items():
            self.add_module(name, part)
        self._forward = forward

    def forward(self, x: Tensor) -> Any:
        return self._forward(self, x)


def head(**parts: nn.Module) -> dict[str, nn.Module]:
    return {**parts, "head": nn.Linear(6, 2)}


def captured(folder: Path, model: nn.Module, given: Tensor = x, why: str = "end") -> t.Captured:
    return t.capture(folder, model, lambda m: F.cross_entropy(m(given), y[: len(given)]), why=why)


TWICE = Model(lambda m, x: m.head(m.relu(m.one(m.relu(m.one(x))))),
              **head(one=nn.Linear(6, 6), relu=nn.ReLU()))  # fmt: skip
REFUSED = {
    "no convolution": (
        nn.Sequential(nn.Linear(6, 2)), "layer-gradcam", "",
        "needs a convolution", "integrated-gradients",
    ),
    "no hidden layer": (
        nn.Sequential(nn.Linear(6, 2)), "layer-conductance", "",
        "no layer between", "integrated-gradients",
    ),
    "a layer that runs twice": (TWICE, "layer-conductance", "one", "runs 2 times", "--layer NAME"),
    "a layer that is not there": (TWICE, "layer-conductance", "two", "no such layer", "one, relu"),
    "a layer for a method of inputs": (
        TWICE, "saliency", "one", "attributes to the input", "layer-conductance",
    ),
    "a layer without places": (
        TWICE, "layer-gradcam", "head", "no places", "integrated-gradients",
    ),
    "an unknown method": (TWICE, "magic", "", "no such method", "integrated-gradients"),
}  # fmt: skip


@pytest.mark.parametrize("model, method, layer, what, do", REFUSED.values(), ids=REFUSED)
def test_refuses(tmp_path: Path, model: nn.Module, method: str, layer: str, what: str, do: str):
    kept = captured(tmp_path, model)

    with pytest.raises(CannotAttribute) as refusal:
        t.ask(model, kept, method, layer=layer)

    assert what in refusal.value.what and do in refusal.value.do


def test_a_layer_that_gives_several_tensors_is_refused(tmp_path: Path):
    known = trained("gru")
    kept = t.capture(tmp_path, known.model, known.loss_of, why="end")

    with pytest.raises(CannotAttribute, match="more than one tensor"):
        t.ask(known.model, kept, "layer-conductance", layer="gru")


WITHOUT_EMBEDDING = {
    "EmbeddingBag": Model(lambda m, x: m.head(m.bag(x)), **head(bag=nn.EmbeddingBag(40, 6))),
    "one_hot": Model(lambda m, x: m.head(m.one(F.one_hot(x, 40).float().mean(1))),
                     **head(one=nn.Linear(40, 6))),
    "F.embedding": Model(lambda m, x: m.head(F.embedding(x, m.one.weight.t()).mean(1)),
                         **head(one=nn.Linear(40, 6))),
}  # fmt: skip


@pytest.mark.parametrize("model", WITHOUT_EMBEDDING.values(), ids=WITHOUT_EMBEDDING)
def test_ids_that_enter_no_embedding_are_ablated(tmp_path: Path, model: nn.Module):
    kept = captured(tmp_path, model, ids)

    result = t.ask(model, kept, "auto")

    assert result.method.name == "feature-ablation" and "without an embedding" in result.notes[0]
    assert result.features[0].kind == "ids"
    for one in result.samples:
        blank = torch.zeros_like(ids[one.row : one.row + 1])
        with torch.no_grad():
            change = model(ids[one.row : one.row + 1]) - model(blank)
        assert one.found.at_sample - one.found.at_baseline == pytest.approx(
            float(change[0, one.label]), abs=1e-5
        )
    with pytest.raises(CannotAttribute) as refusal:
        t.ask(model, kept, "saliency")
    assert "feature-ablation" in refusal.value.do


WITHOUT_GRADIENT = {
    "a detached output": Model(lambda m, x: m.head(x.detach()), **head()),
    "rounded inputs": Model(lambda m, x: m.head((x > 0).float()), **head()),
    "an argmax": Model(lambda m, x: m.head(F.one_hot(x.argmax(1), 6).float()), **head()),
}


@pytest.mark.parametrize("model", WITHOUT_GRADIENT.values(), ids=WITHOUT_GRADIENT)
def test_what_has_no_gradient_can_be_ablated_alone(tmp_path: Path, model: nn.Module):
    kept = captured(tmp_path, model)

    for method in ("integrated-gradients", "saliency", "input-x-gradient"):
        with pytest.raises(CannotAttribute) as refusal:
            t.ask(model, kept, method)
        assert "gradient" in refusal.value.what and "feature-ablation" in refusal.value.do
    assert t.ask(model, kept, "feature-ablation").samples


OF_THE_BATCH = nn.BatchNorm2d(3, track_running_stats=False)
DEPENDENT = {
    "time first": (
        Model(lambda m, x: m.head(m.gru(x)[0])[:, :, 0], **head(gru=nn.GRU(3, 6))),
        torch.randn(8, 2, 3),
    ),
    "batch statistics in eval mode": (
        Model(lambda m, x: m.head(m.norm(x).flatten(1)), **head(norm=OF_THE_BATCH)),
        torch.randn(8, 3, 2, 1),
    ),
    "a mean of the batch": (Model(lambda m, x: m.head(x - x.mean(0)), **head()), x),
}


@pytest.mark.parametrize("model, given", DEPENDENT.values(), ids=DEPENDENT)
def test_samples_that_depend_on_each_other_are_refused(
    tmp_path: Path, model: nn.Module, given: Tensor
):
    kept = captured(tmp_path, model, given)

    with pytest.raises(DependentSamples) as refusal:
        t.ask(model, kept)

    assert "time first?" in refusal.value.what and "batch_first=True" in refusal.value.do


def test_a_batch_of_one_and_batch_norm_work(tmp_path: Path):
    model = Model(lambda m, x: m.head(m.norm(x)), **head(norm=nn.BatchNorm1d(6)))
    model.eval()
    kept = captured(tmp_path, model, x[:1])
    model.train()

    [one] = t.ask(model, kept).samples

    assert float(one.found.values[0].abs().sum()) > 0


@pytest.mark.parametrize("method", ["integrated-gradients", "feature-ablation"])
def test_out_of_memory_halves_what_runs_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str
):
    most: list[int] = []

    def forward(model: Any, x: Tensor) -> Tensor:
        most.append(len(x))
        if len(x) > limit:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return model.head(torch.tanh(x))

    model, limit = Model(forward, **head()), 64
    kept = captured(tmp_path, model)
    wide = t.ask(model, kept, method, samples=1)
    limit, most[:] = 8, []  # the independence of eight samples is compared

    tight = t.ask(model, kept, method, samples=1)

    assert max(n for n in most if n <= 8) in (4, 6, 8)
    assert torch.allclose(
        wide.samples[0].found.values[0], tight.samples[0].found.values[0], atol=1e-6
    )


def test_what_does_not_fit_at_all_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    known = trained("table")
    kept = t.capture(tmp_path, known.model, known.loss_of, why="end")

    def full(*_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setitem(methods.RUN, "integrated-gradients", full)

    with pytest.raises(CannotAttribute, match="does not fit into memory"):
        t.ask(known.model, kept)


def test_at_the_end_of_the_time_fewer_samples_are_attributed(tmp_path: Path):
    known = trained("table")
    kept = t.capture(tmp_path, known.model, known.loss_of, why="end")

    result = t.ask(known.model, kept, samples=8, seconds=0.0)

    assert len(result.samples) == 1
    assert result.notes == ("1 of 8 samples: the time was over",)


def test_a_sample_that_is_not_finite_is_named_with_its_feature(tmp_path: Path):
    known = trained("table")
    bad = known.args[0].clone()
    bad[5, 13] = float("nan")
    kept = t.capture(
        tmp_path, known.model, lambda m: F.cross_entropy(m(bad), known.targets), why="spike"
    )
    assert kept.per_sample.isnan().nonzero().tolist() == [[5]]

    with pytest.raises(CannotAttribute) as refusal:
        t.ask(known.model, kept)

    assert refusal.value.what == (
        "sample 5: the loss (cross-entropy) is nan; its input is not finite at x[13]"
    )


def test_parameters_that_are_not_finite_clear_the_batch(tmp_path: Path):
    model = Model(lambda m, x: m.head(x), **head())
    kept = captured(tmp_path, model, why="spike")
    weights = {**kept.weights(), "head.bias": torch.tensor([0.0, torch.inf])}

    with pytest.raises(CannotAttribute, match="what went before is"):
        t.ask(model, kept, weights=weights)


def test_another_model_is_refused(tmp_path: Path):
    kept = captured(tmp_path, Model(lambda m, x: m.head(x), **head()))
    other = Model(lambda m, x: m.head(m.one(x)), **head(one=nn.Linear(6, 6)))

    with pytest.raises(CannotAttribute, match=r"one.weight.*differ"):
        t.ask(other, kept, weights=kept.weights())


def test_a_lone_number_is_attributed_one_variation_at_a_time(tmp_path: Path):
    """As of a model that gives (loss, logits): the first is no output of samples."""
    model = Model(lambda m, x: (m.head(x).square().mean(), m.head(x)), **head())
    kept = t.capture(tmp_path, model, lambda m: F.cross_entropy(m(x)[1], y), why="end")

    assert t.ask(model, kept).samples[0].words.startswith("output ")
    model._forward = lambda m, x: m.head(x).square().mean()
    result = t.ask(model, kept, samples=1)
    assert result.samples[0].words == "the number that the model gives"
    assert result.relative_delta is not None and result.relative_delta < 0.05


UNWRITABLE: dict[str, Callable[[], Any]] = {
    "a graph object": lambda: SimpleNamespace(edges=1),
    "a sparse tensor": lambda: torch.eye(4).to_sparse(),
    "complex numbers": lambda: torch.zeros(4, dtype=torch.complex64),
    "a set": lambda: {1, 2},
    "deep lists": lambda: [[[[[[[[1]]]]]]]],
    "a nested tensor": lambda: torch.nested.nested_tensor([torch.zeros(2), torch.zeros(3)]),
    "a quantised tensor": lambda: torch.quantize_per_tensor(torch.zeros(4), 1.0, 0, torch.qint8),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("argument", UNWRITABLE.values(), ids=UNWRITABLE)
def test_arguments_that_cannot_be_kept_are_said(tmp_path: Path, argument: Callable[[], Any]):
    class Takes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(6, 2)

        def forward(self, x: Tensor, more: Any) -> Tensor:
            return self.head(x)

    model = Takes()
    watched = t.Watched(model, tmp_path)

    watched.backward(F.cross_entropy(model(x, argument()), y))
    watched.end()

    assert not (tmp_path / "captures").exists()
    [note] = watched.sink.notes
    assert note.startswith("the batch could not be kept for attributions: the argument 1")


def test_the_models_own_failure_is_told(tmp_path: Path):
    def forward(model: Any, x: Tensor) -> Tensor:
        if len(x) != 8:
            raise ValueError("eight samples, please")
        return model.head(x)

    model = Model(forward, **head())
    kept = captured(tmp_path, model)

    with pytest.raises(CannotAttribute, match="eight samples, please"):
        t.ask(model, kept)


def test_halving_knows_out_of_memory_in_any_words():
    for error in (
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("MPS backend out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
        MemoryError(),
    ):
        assert one_sample._is_out_of_memory(error)
    assert not one_sample._is_out_of_memory(RuntimeError("shapes differ"))
