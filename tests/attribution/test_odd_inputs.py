"""Samples that are unlike the others by their input, whatever their loss is."""

from __future__ import annotations

import math
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("captum", reason="attributions are Captum's")

from nndiag.attribution.attribute import Request, _rows  # noqa: E402
from nndiag.attribution.captured import Captured  # noqa: E402
from nndiag.attribution.odd_inputs import odd_inputs  # noqa: E402


def batch(values: Any, losses: Any = None, why: str = "spike") -> Captured:
    return Captured(
        path="x", name="step-9", step=9, why=why, model="Net", samples=len(values),
        rows=len(values), inputs={"0": values}, batched=frozenset({"0"}), args=[], kwargs={},
        per_sample=losses,
    )  # fmt: skip


def test_the_sample_with_the_large_number_is_named_with_its_place() -> None:
    torch.manual_seed(0)
    values = torch.randn(32, 3, 8, 8)
    values[25, 1, 2, 3] = -200.0

    [odd] = odd_inputs(batch(values))

    assert (odd.row, odd.index, odd.value) == (25, (1, 2, 3), -200.0)
    assert 1.5 < odd.usual < 4.5


def test_what_is_not_finite_is_the_oddest() -> None:
    values = torch.randn(16, 5)
    values[2, 1], values[9, 4] = 90.0, math.nan

    assert [one.row for one in odd_inputs(batch(values))] == [9, 2]


@pytest.mark.parametrize("shape", [(256, 4), (64, 3, 16, 16), (32, 20, 6), (16,)])
def test_normal_data_have_no_odd_sample(shape: tuple[int, ...]) -> None:
    for seed in range(50):
        torch.manual_seed(seed)
        assert odd_inputs(batch(torch.randn(shape) * 7 + 1)) == []


@pytest.mark.parametrize(
    "values",
    [torch.zeros(8, 3), torch.full((8, 3), math.nan), torch.randn(3, 4), torch.arange(8)[:, None]],
    ids=["zeros", "all NaN", "three samples", "whole numbers"],
)
def test_is_silent_about(values: Any) -> None:
    assert odd_inputs(batch(values)) == []


def test_the_samples_that_are_attributed_are_those_that_made_it() -> None:
    values = torch.randn(8, 3)
    even, odd = torch.full((8,), 1.0), torch.randn(8, 3)
    odd[5, 0] = 300.0
    high = even.clone()
    high[2], high[6] = 40.0, 1.9  # the second is above its even share, and ordinary all the same

    def rows(*given: Any) -> list[int]:
        return _rows(batch(*given), Request(samples=4))

    assert rows(values, high) == [2]
    assert rows(odd, even) == [5]  # of batch statistics: its loss does not stand out
    assert rows(odd, None) == [5]  # of a loss that nothing is known of
    assert rows(values, even) == [0]
    assert rows(values, None) == [0, 1, 2, 3]
    assert rows(odd, even, "end") == [0, 1, 2, 3]
