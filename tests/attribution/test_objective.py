"""Which number is attributed: the loss as the training computed it, or an output that is named."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("captum")

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nndiag.adapters.pytorch import loss_terms
from tests.attribution import trainings as t

B, FEATURES, C = 8, 5, 4


class Net(nn.Module):
    """(B, F) or (B, T, F) to what `make` makes of the last layer's output."""

    def __init__(self, outputs: int = C, make: Callable[[Tensor], Any] = lambda out: out) -> None:
        super().__init__()
        self.hidden, self.head, self.make = nn.Linear(FEATURES, 8), nn.Linear(8, outputs), make

    def forward(self, x: Tensor) -> Any:
        return self.make(self.head(torch.tanh(self.hidden(x))))


@dataclass
class Out:
    logits: Tensor
    other: Tensor | None = None


x2, x3 = torch.randn(B, FEATURES), torch.randn(B, 6, FEATURES)
labels, ids = torch.arange(B) % C, torch.arange(B * 6).reshape(B, 6) % C
padded = ids.clone()
padded[:, 4:] = -100
values = torch.randn(B, C)
weight = torch.tensor([1.0, 2.0, 0.5, 3.0])
tags = (values > 0).float()
cross_entropy, each_one = F.cross_entropy, {"reduction": "none"}
of_logits = F.binary_cross_entropy_with_logits

# name -> (model, inputs, loss of the output, the same with reduction="none" for each sample)
LOSSES: dict[str, tuple[Net, Tensor, Callable, Callable]] = {
    "cross-entropy": (
        Net(), x2,
        lambda o: F.cross_entropy(o, labels),
        lambda o: F.cross_entropy(o, labels, reduction="none"),
    ),
    "class weights and label smoothing": (
        Net(), x2,
        lambda o: F.cross_entropy(o, labels, weight, label_smoothing=0.2),
        lambda o: F.cross_entropy(o, labels, weight, label_smoothing=0.2, reduction="none"),
    ),
    "nll of log_softmax in the model": (
        Net(make=lambda out: out.log_softmax(-1)), x2,
        lambda o: F.nll_loss(o, labels),
        lambda o: F.nll_loss(o, labels, reduction="none"),
    ),
    "a language model with padding": (
        Net(), x3,
        lambda o: F.cross_entropy(o.flatten(0, 1), padded.flatten()),
        lambda o: (
            cross_entropy(o.flatten(0, 1), padded.flatten(), **each_one)
            .reshape(B, 6)[:, :4]
            .mean(1)
        ),
    ),
    "a language model with a shifted loss": (
        Net(), x3,
        lambda o: F.cross_entropy(o[:, :-1].reshape(-1, C), ids[:, 1:].reshape(-1)),
        lambda o: (
            cross_entropy(o[:, :-1].reshape(-1, C), ids[:, 1:].reshape(-1), **each_one)
            .reshape(B, 5)
            .mean(1)
        ),
    ),
    "classes second": (
        Net(), x3,
        lambda o: F.cross_entropy(o.transpose(1, 2), ids),
        lambda o: F.cross_entropy(o.transpose(1, 2), ids, reduction="none").mean(1),
    ),
    "segmentation": (
        Net(C, lambda out: out.movedim(-1, 1).reshape(B if len(out) == B else -1, C, 2, 3)), x3,
        lambda o: F.cross_entropy(o, ids.reshape(B, 2, 3)),
        lambda o: F.cross_entropy(o, ids.reshape(B, 2, 3), reduction="none").mean((1, 2)),
    ),
    "regression": (
        Net(1), x2,
        lambda o: F.mse_loss(o.squeeze(1), values[:, 0]),
        lambda o: F.mse_loss(o.squeeze(1), values[:, 0], reduction="none"),
    ),
    "an autoencoder": (
        Net(FEATURES), x3,
        lambda o: F.mse_loss(o, x3),
        lambda o: F.mse_loss(o, x3, reduction="none").mean((1, 2)),
    ),
    "many labels": (
        Net(), x2,
        lambda o: of_logits(o, tags, pos_weight=weight),
        lambda o: of_logits(o, tags, pos_weight=weight, **each_one).mean(1),
    ),
    "binary cross-entropy of probabilities": (
        Net(1, torch.sigmoid), x2,
        lambda o: F.binary_cross_entropy(o[:, 0], (values[:, 0] > 0).float()),
        lambda o: F.binary_cross_entropy(o[:, 0], (values[:, 0] > 0).float(), reduction="none"),
    ),
    "smooth l1": (
        Net(), x2,
        lambda o: F.smooth_l1_loss(o, values, beta=0.3),
        lambda o: F.smooth_l1_loss(o, values, beta=0.3, reduction="none").mean(1),
    ),
    "huber": (
        Net(), x2,
        lambda o: F.huber_loss(o, values, delta=0.3),
        lambda o: F.huber_loss(o, values, delta=0.3, reduction="none").mean(1),
    ),
    "l1": (Net(), x2, lambda o: F.l1_loss(o, values), lambda o: (o - values).abs().mean(1)),
    "written by hand": (
        Net(), x2,
        lambda o: ((values - o) ** 2).mean(),
        lambda o: ((o - values) ** 2).mean(1),
    ),
    "a sum": (
        Net(), x2,
        lambda o: F.cross_entropy(o, labels, reduction="sum"),
        lambda o: F.cross_entropy(o, labels, reduction="none"),
    ),
    "the second of a tuple": (
        Net(make=lambda out: (out * 3, out)), x2,
        lambda o: F.cross_entropy(o[1], labels),
        lambda o: F.cross_entropy(o[1], labels, reduction="none"),
    ),
    "one of a dict": (
        Net(make=lambda out: {"a": out * 3, "b": {"c": out}}), x2,
        lambda o: F.cross_entropy(o["b"]["c"], labels),
        lambda o: F.cross_entropy(o["b"]["c"], labels, reduction="none"),
    ),
    "the logits of a dataclass": (
        Net(make=lambda out: Out(out)), x2,
        lambda o: F.cross_entropy(o.logits, labels),
        lambda o: F.cross_entropy(o.logits, labels, reduction="none"),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", LOSSES)
def test_the_loss_of_a_sample_is_the_one_that_the_training_saw(tmp_path: Path, name: str):
    model, x, loss, each = LOSSES[name]
    seen: list[Any] = []

    def loss_of(called: nn.Module) -> Tensor:
        seen.append(called(x))
        return loss(seen[0])

    captured = t.capture(tmp_path, model, loss_of)

    expected = each(seen[0]).detach()
    assert captured.per_sample is not None
    assert torch.equal(captured.per_sample, expected)
    result = t.ask(model, captured, "input-x-gradient", samples=B)
    assert result.of == "loss" and not any("eval mode" in note for note in result.notes)
    for one in result.samples:
        assert one.loss == pytest.approx(float(expected[one.row]))
        assert one.found.at_sample == pytest.approx(float(expected[one.row]), rel=1e-4)


def test_a_hand_written_loss_whose_output_no_variable_holds_is_worked_out_anew(tmp_path: Path):
    model = Net()
    captured = t.capture(tmp_path, model, lambda m: ((m(x2) - values) ** 2).mean())

    assert captured.targets is not None and t.ask(model, captured).of == "loss"


def test_a_hand_written_loss_whose_output_is_gone_tells_the_samples_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(loss_terms, "HELD_BYTES", 0)  # too large to be held
    model = Net()
    captured = t.capture(tmp_path, model, lambda m: ((m(x2) - values) ** 2).mean())

    result = t.ask(model, captured)

    assert captured.per_sample is not None and captured.targets is None
    assert result.of == "output"
    assert result.notes[0] == (
        "the loss (squared-difference) cannot be worked out anew: the output is attributed"
    )


ABSTAINS = {
    "a loss nothing is known of": lambda o: torch.log(torch.cosh(o - values)).mean(),
    "the hardest samples alone": lambda o: (
        F.cross_entropy(o, labels, reduction="none").topk(3).values.mean()
    ),
    "samples in another order": lambda o: F.cross_entropy(
        o.repeat(2, 1)[torch.randperm(2 * B)], labels.repeat(2)
    ),
}


@pytest.mark.parametrize("loss", ABSTAINS.values(), ids=ABSTAINS)
def test_abstains_from_samples_of(tmp_path: Path, loss: Callable[[Tensor], Tensor]):
    model = Net()

    captured = t.capture(tmp_path, model, lambda m: loss(m(x2)))

    assert captured.per_sample is None and captured.targets is None
    assert t.ask(model, captured).of == "output"


def test_a_loss_of_what_was_made_from_the_output_is_not_rebuilt_from_it(tmp_path: Path):
    model = Net()
    captured = t.capture(tmp_path, model, lambda m: F.cross_entropy(m(x2) / 7, labels))

    assert captured.per_sample is not None  # which sample it was is known all the same
    assert t.ask(model, captured).of == "output"


def test_an_encoder_is_not_taken_for_what_makes_the_logits(tmp_path: Path):
    encoder, head = Net(32), nn.Linear(32, C)
    captured = t.capture(tmp_path, encoder, lambda m: F.cross_entropy(head(m(x2)), labels))

    assert captured.model == "Net" and captured.loss_output is None
    assert torch.equal(
        captured.per_sample, F.cross_entropy(head(encoder(x2)), labels, reduction="none").detach()
    )
    assert t.ask(encoder, captured).of == "output"


def test_masks_and_weights_of_samples_count(tmp_path: Path):
    model, of_sample = Net(), torch.linspace(0, 2, B)
    out = []

    def loss_of(m: nn.Module) -> Tensor:
        out.append(m(x2))
        return (F.cross_entropy(out[0], labels, reduction="none") * of_sample).mean()

    captured = t.capture(tmp_path, model, loss_of)

    each = F.cross_entropy(out[0], labels, reduction="none") * of_sample
    assert torch.equal(captured.per_sample, each.detach())


def test_of_several_terms_the_largest_is_taken_and_this_is_said(tmp_path: Path):
    model = Net()

    def loss_of(m: nn.Module) -> Tensor:
        out = m(x2)
        return F.cross_entropy(out, labels) + 0.01 * F.mse_loss(out, values)

    captured = t.capture(tmp_path, model, loss_of)

    assert (captured.loss_kind, captured.loss_terms) in (("mse", 2), ("cross-entropy", 2))
    assert "the loss has 2 terms" in t.ask(model, captured).notes[0]


def test_a_sample_that_is_ignored_as_a_whole_has_no_loss(tmp_path: Path):
    target = ids.clone()
    target[3] = -100
    captured = t.capture(
        tmp_path, Net(), lambda m: F.cross_entropy(m(x3).flatten(0, 1), target.flatten())
    )

    assert float(captured.per_sample[3]) == 0 and bool(captured.per_sample.isfinite().all())


def test_an_output_asked_for_is_attributed_instead_of_the_loss(tmp_path: Path):
    model = Net()
    captured = t.capture(tmp_path, model, lambda m: F.cross_entropy(m(x2), labels))

    result = t.ask(model, captured, target=2)

    assert {one.words for one in result.samples} == {"output 2 (asked for)"}


def test_a_model_that_gives_its_loss_alone_is_run_one_variation_at_a_time(tmp_path: Path):
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(FEATURES, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.layer(x).square().mean()

    model = Own()
    watched = t.Watched(model, tmp_path)
    watched.backward(model(x2), leaps=False)
    assert not watched.sink.notes

    # Nothing hangs on a number: no batch is kept of it, and none is made up.
    watched.end()
    assert not (tmp_path / "captures").exists()
