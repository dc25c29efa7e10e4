"""`assert_overfits` and `assert_all_parameters_move`: what passes, what fails, and what is said."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import nndiag
from nndiag.errors import BadUsage

torch = pytest.importorskip("torch")
from torch import nn  # noqa: E402

from nndiag.assertions import (  # noqa: E402
    CannotOverfit,
    IdleParameters,
    assert_all_parameters_move,
    assert_overfits,
)


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


def regression() -> tuple[nn.Module, tuple]:
    x = torch.randn(16, 8)
    return nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Dropout(), nn.Linear(32, 1)), (
        x,
        x[:, :1] * 2,
    )


class WithLoss(nn.Module):
    """As Hugging Face's models: takes the batch by name, gives an object with a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens, self.head = nn.Embedding(11, 16), nn.Linear(16, 11)

    def forward(self, input_ids: torch.Tensor, labels: torch.Tensor) -> SimpleNamespace:
        logits = self.head(self.tokens(input_ids))
        return SimpleNamespace(loss=nn.functional.cross_entropy(logits, labels))


class Part(nn.Module):
    """Calls only some of what it has."""

    def __init__(self, *, cut: bool = False, dead: bool = False) -> None:
        super().__init__()
        self.first, self.spare, self.last = nn.Linear(8, 8), nn.Linear(8, 8), nn.Linear(8, 1)
        self.cut = cut
        if dead:
            nn.init.constant_(self.first.bias, -1000.0)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = torch.relu(self.first(x))
        return self.last(h.detach() if self.cut else h)


def test_a_sound_model_overfits_and_all_its_parameters_move():
    model, batch = regression()
    assert_overfits(model, batch, nn.MSELoss())
    assert_all_parameters_move(model, batch, nn.MSELoss())


def test_a_batch_by_name_and_a_loss_of_model_and_batch():
    model, ids = WithLoss(), torch.arange(11)
    batch = {"input_ids": ids, "labels": ids.flip(0)}
    assert_overfits(model, batch)
    assert_all_parameters_move(model, batch)
    assert_overfits(model, [ids, ids, ids], lambda m, b: m(b[0], b[1]).loss)


def test_the_model_and_the_random_state_stay_as_they_are():
    model, batch = regression()
    model.eval()
    before = [p.clone() for p in model.parameters()]
    state = torch.get_rng_state()

    assert_overfits(model, batch, nn.MSELoss())
    assert_all_parameters_move(model, batch, nn.MSELoss())

    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    assert all(p.grad is None for p in model.parameters()) and not model.training
    assert torch.equal(state, torch.get_rng_state())
    assert model[2].p == 0.5


def test_shuffled_outputs_cannot_be_learnt():
    model = nn.Sequential(nn.Linear(8, 4), nn.Softmax(-1))
    batch = torch.randn(8, 8), torch.randint(4, (8,))

    with pytest.raises(CannotOverfit, match="softmax before the loss") as raised:
        assert_overfits(model, batch, nn.CrossEntropyLoss())
    assert "3 learning rates" in str(raised.value)
    assert_overfits(model, batch, nn.CrossEntropyLoss(), below=1.2)


def test_a_loss_that_never_moves_and_one_that_breaks_are_told_apart():
    model, batch = regression()

    with pytest.raises(CannotOverfit, match="did not move"):
        assert_overfits(model, batch, lambda out, y: (out - out.detach()).square().mean() + 1)
    with pytest.raises(CannotOverfit, match="became"):
        assert_overfits(model, batch, nn.MSELoss(), optimizer=lambda p: torch.optim.SGD(p, lr=1e30))
    with pytest.raises(CannotOverfit, match="loss of the first step is nan"):
        assert_overfits(model, batch, lambda out, y: (out * float("nan")).mean())
    with pytest.raises(CannotOverfit, match="graph is cut"):
        assert_overfits(model, batch, lambda out, y: (out.detach() - y).square().mean())


def test_parameters_that_do_not_move_are_named_with_the_reason():
    batch = torch.randn(16, 8), torch.randn(16, 1)

    with pytest.raises(IdleParameters) as raised:
        assert_all_parameters_move(Part(cut=True), batch, nn.MSELoss())
    assert "4 of 6" in str(raised.value) and "last" not in str(raised.value)
    assert "first.weight, first.bias, spare.weight, spare.bias: no gradient" in str(raised.value)
    assert_all_parameters_move(Part(cut=True), batch, nn.MSELoss(), ignore=["first.", "spare."])

    with pytest.raises(IdleParameters, match=r"first\.weight, first\.bias.*: .* exactly 0"):
        assert_all_parameters_move(Part(dead=True), batch, nn.MSELoss(), ignore=["spare", "last.w"])
    with pytest.raises(IdleParameters, match=r"last\.weight.*: the optimizer does not hold it"):
        assert_all_parameters_move(
            Part(),
            batch,
            nn.MSELoss(),
            optimizer=lambda p: torch.optim.Adam(p[:2]),
            ignore=["spare"],
        )
    with pytest.raises(IdleParameters, match="graph is cut"):
        assert_all_parameters_move(Part(), batch, lambda out, y: y.mean())


def test_frozen_parameters_need_not_move():
    model = Part(cut=True)
    model.first.requires_grad_(False)
    model.spare.requires_grad_(False)

    assert_all_parameters_move(model, (torch.randn(4, 8), torch.randn(4, 1)), nn.MSELoss())


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda m, b: assert_overfits(m, b), "is missing"),
        (lambda m, b: assert_overfits(m, b, lambda out, y: out - y), "one number"),
        (lambda m, b: assert_overfits(print, b, nn.MSELoss()), "nn.Module"),
        (lambda m, b: assert_overfits(m, b, nn.MSELoss(), steps=0), "1 or more"),
        (
            lambda m, b: assert_all_parameters_move(m.requires_grad_(False), b, nn.MSELoss()),
            "no trainable",
        ),
    ],
)
def test_wrong_use_is_told(call, what: str):
    with pytest.raises(BadUsage, match=what):
        call(*regression())


def test_they_are_public():
    assert nndiag.assert_overfits is assert_overfits
    assert nndiag.assert_all_parameters_move is assert_all_parameters_move
