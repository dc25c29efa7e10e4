"""The loss of each sample as the graph tells it is `reduction="none"`, or nothing is told."""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nndiag.adapters.pytorch.loss_terms import HELD_BYTES, outputs_of, terms_of
from nndiag.adapters.pytorch.sample_losses import ElementLosses, element_losses


def told(out: object, *losses: Tensor) -> ElementLosses | None:
    outputs = outputs_of(out)
    with torch.no_grad():
        return element_losses(terms_of(losses, outputs))


@st.composite
def classifications(draw: st.DrawFn) -> tuple[Tensor, Tensor, dict, tuple[int, ...]]:
    """Scores (B, C, ...), labels (B, ...), the options of `cross_entropy`, and the shape."""
    seed = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    batch, classes = draw(st.integers(1, 6)), draw(st.integers(2, 5))
    places = tuple(draw(st.lists(st.integers(1, 3), max_size=2)))
    scores = torch.randn(batch, classes, *places, generator=seed, requires_grad=True)
    labels = torch.randint(classes, (batch, *places), generator=seed)
    options: dict = {"label_smoothing": draw(st.sampled_from([0.0, 0.0, 0.1, 0.7]))}
    if draw(st.booleans()):
        options["weight"] = torch.rand(classes, generator=seed) + 0.1
    if draw(st.booleans()):
        options["ignore_index"] = draw(st.sampled_from([0, -1]))
        if options["ignore_index"] < 0:
            labels[torch.rand(labels.shape, generator=seed) < 0.3] = -1
    return scores, labels, options, (batch, *places)


@settings(max_examples=150, deadline=None)
@given(classifications(), st.sampled_from(["mean", "sum"]))
def test_of_cross_entropy_with_all_its_options(given, reduction: str) -> None:
    scores, labels, options, shape = given
    out = scores * 1
    loss = F.cross_entropy(out, labels, reduction=reduction, **options)
    each = F.cross_entropy(out, labels, reduction="none", **options).detach()
    if not bool(torch.isfinite(loss)):  # all are ignored
        return

    found = told(out, loss)

    assert found is not None
    assert torch.allclose(found.elements.reshape(shape), each, rtol=1e-5, atol=1e-6)
    counted = (labels != options.get("ignore_index", -100)).reshape(shape[0], -1)
    mean = each.reshape(shape[0], -1).sum(1) / counted.sum(1).clamp(min=1)
    assert torch.allclose(found.per_sample(shape[0]), mean, rtol=1e-5, atol=1e-6)
    assert found.output == () and found.terms == 1
    elements = found.elements_of(shape[0], shape[0])
    if each.numel() == shape[0]:
        assert elements is None  # one element a sample: its loss says it all
    else:
        assert elements is not None
        assert elements.shape == (shape[0], *(size for size in shape[1:] if size != 1))
        ignored = labels == options.get("ignore_index", -100)
        assert torch.equal(elements.isnan().reshape(shape), ignored)
        assert torch.allclose(elements.nan_to_num().reshape(shape), each, rtol=1e-5, atol=1e-6)


POINTWISE = {
    "mse": F.mse_loss,
    "l1": F.l1_loss,
    "smooth l1": lambda x, y, reduction: F.smooth_l1_loss(x, y, reduction=reduction, beta=0.4),
    "huber": lambda x, y, reduction: F.huber_loss(x, y, reduction=reduction, delta=0.4),
    "logits": lambda x, y, reduction: F.binary_cross_entropy_with_logits(
        x, y.sigmoid(), reduction=reduction, pos_weight=torch.tensor(3.0)
    ),
    "weighted logits": lambda x, y, reduction: F.binary_cross_entropy_with_logits(
        x, y.sigmoid(), torch.tensor(0.3).expand_as(x), reduction=reduction
    ),
    "probabilities": lambda x, y, reduction: F.binary_cross_entropy(
        x.sigmoid(), y.sigmoid(), reduction=reduction
    ),
    "by hand": lambda x, y, reduction: {
        "none": (x - y) ** 2, "mean": (y - x).pow(2).mean(), "sum": ((x - y) ** 2).sum()
    }[reduction],
}  # fmt: skip


@pytest.mark.parametrize("loss", POINTWISE.values(), ids=POINTWISE)
@pytest.mark.parametrize("shape", [(4,), (4, 1), (4, 3), (4, 2, 3, 2)])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("factor", [1.0, 1 / 8, 2.0**14])  # accumulation, a gradient scaler
def test_of_losses_of_numbers(loss, shape, reduction, factor) -> None:
    out, target = torch.randn(shape, requires_grad=True) * 1, torch.randn(shape)

    found = told(out, loss(out, target, reduction=reduction) * factor)

    each = loss(out, target, reduction="none").detach()
    assert torch.equal(found.elements, each)
    assert torch.allclose(found.per_sample(4), each.reshape(4, -1).mean(1))


def test_a_language_model_is_told_apart_by_samples_and_in_no_other_order() -> None:
    out_BTC = torch.randn(3, 5, 7, requires_grad=True) * 1
    labels_BT = torch.randint(7, (3, 5))
    each = F.cross_entropy(out_BTC.flatten(0, 1), labels_BT.flatten(), reduction="none")

    in_order = told(out_BTC, F.cross_entropy(out_BTC.flatten(0, 1), labels_BT.flatten()))
    turned = told(
        out_BTC,
        F.cross_entropy(out_BTC.transpose(0, 1).flatten(0, 1), labels_BT.t().flatten()),
    )
    kept = torch.rand(3, 5) < 2
    chosen = told(out_BTC, F.cross_entropy(out_BTC[kept], labels_BT[kept]))

    assert torch.equal(in_order.per_sample(3), each.reshape(3, 5).mean(1).detach())
    assert turned.per_sample(3) is None and turned.output is None
    assert chosen.per_sample(3) is None and chosen.output is None
    assert in_order.per_sample(5) is None  # of a call of other samples


def test_of_two_calls_before_one_backward_the_newer_one_counts() -> None:
    critic = nn.Linear(4, 1)
    real, fake = critic(torch.randn(6, 4)), critic(torch.randn(6, 4))
    of_real = F.binary_cross_entropy_with_logits(real * 50, torch.ones(6, 1))
    of_fake = F.binary_cross_entropy_with_logits(fake, torch.zeros(6, 1))

    found = told(fake, of_real + of_fake)

    assert found.terms == 2
    expected = F.binary_cross_entropy_with_logits(fake, torch.zeros(6, 1), reduction="none")
    assert torch.equal(found.per_sample(6), expected[:, 0].detach())
    assert told(fake, of_real) is None


PAIRS = {
    "mse": F.mse_loss,
    "smooth l1": F.smooth_l1_loss,
    "by hand": lambda a, b: ((a - b) ** 2).mean(),
}


@pytest.mark.parametrize("loss", PAIRS.values(), ids=PAIRS)
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize("of_a_pair", [False, True])
def test_the_target_is_what_the_output_is_compared_with(loss, turned: bool, of_a_pair: bool):
    """Whichever comes first, and also where it comes from an earlier call of the same model."""
    net = nn.Linear(4, 3)
    other = net(torch.randn(6, 4)) if of_a_pair else torch.randn(6, 3)
    out = net(torch.randn(6, 4))

    found = told(out, loss(other, out) if turned else loss(out, other))

    assert found.output == ()
    assert torch.allclose(found.targets, other.detach(), atol=1e-6)


def test_a_penalty_on_parameters_is_no_term_of_the_samples() -> None:
    net = nn.Linear(4, 3)
    out, labels = net(torch.randn(6, 4)), torch.arange(6) % 3
    penalty = sum((p - 1).pow(2).sum() for p in net.parameters())

    found = told(out, F.cross_entropy(out, labels) + 100 * penalty)

    assert found.kind == "cross-entropy" and found.output == ()


def test_what_saved_tensor_hooks_have_packed_is_not_unpacked() -> None:
    unpacked = []
    out = torch.randn(4, 3, requires_grad=True) * 1
    with torch.autograd.graph.saved_tensors_hooks(lambda x: x, lambda x: unpacked.append(1) or x):
        loss = F.cross_entropy(out, torch.arange(4) % 3)

    assert told(out, loss) is None
    assert unpacked == []


@pytest.mark.parametrize("rows", [4, HELD_BYTES // 12 + 1], ids=["small", "large"])
def test_what_is_told_of_an_output_keeps_no_graph_and_no_large_memory(rows: int) -> None:
    import weakref

    out = torch.randn(rows, 3, requires_grad=True) * 1
    alive, outputs = weakref.ref(out), outputs_of({"a": [out, None, "x"]})
    numbers = out.detach().clone()
    del out

    assert alive() is None and outputs[0].path == ("a", 0)
    value = outputs[0].value()
    if rows == 4:
        assert value is not None and value.grad_fn is None and torch.equal(value, numbers)
    else:
        assert value is None
