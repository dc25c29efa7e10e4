"""What is worked out for many tensors at once is what the obvious loop gives."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from nndiag.adapters.pytorch import samples
from nndiag.adapters.pytorch.global_norm import GlobalNorm
from nndiag.adapters.pytorch.tensor_stats import (
    ELEMENTS,
    activation_stats,
    as_wide,
    batch_stats,
    norms,
    sample_of,
    subsample,
)


def tensors(*shapes: tuple[int, ...], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


MIXES = {
    "small ones of few shapes": tensors(*[(8, 8), (8,)] * 40),
    "more of one shape than are stacked at once": tensors(*[(64, 64)] * 40),
    "large and small": tensors((300, 300), (5,), (5,), (200, 100)),
    "scalars and empty ones": tensors((), (), (0,), (3, 0), (2,)),
    "bfloat16": tensors((8, 8), (8, 8), (3,), dtype=torch.bfloat16),
    "float16 whose square is beyond float16": [torch.full((4,), 6e4, dtype=torch.float16)] * 2,
    "not contiguous": [x.t() for x in tensors((6, 4), (6, 4), (9, 2))],
    "mixed kinds": tensors((4,), (4,)) + tensors((4,), (4,), dtype=torch.float64),
    "infinite": [torch.tensor([math.inf, 1.0]), torch.tensor([1.0, 2.0])],
    "not a number": [torch.tensor([math.nan, 1.0]), torch.tensor([1.0, 2.0])],
}


def length(mixed: list[Tensor]) -> float:
    return math.sqrt(sum(float((x.double() ** 2).sum()) for x in mixed))


@pytest.mark.parametrize("mixed", MIXES.values(), ids=MIXES)
def test_norms_of_many_tensors_are_those_of_each(mixed):
    wanted = [length([x]) for x in mixed]

    assert [float(n) for n in norms(mixed)] == pytest.approx(wanted, rel=1e-5, nan_ok=True)


@pytest.mark.parametrize("mixed", MIXES.values(), ids=MIXES)
def test_the_global_norm_is_that_of_all_values(mixed):
    assert float(GlobalNorm().of(mixed)) == pytest.approx(length(mixed), rel=1e-5, nan_ok=True)


def test_the_global_norm_is_right_when_the_tensors_are_others_than_before():
    norm = GlobalNorm()
    first = tensors((4, 4), (4, 4), (3,), (3,))
    sparse = torch.sparse_coo_tensor([[0, 2]], [3.0, 4.0], (5,))
    for mixed in (first, tensors((4, 4), (3,), (4, 4), (3,)), first[:3], [*first[:3], sparse]):
        wanted = length([x.to_dense() if x.is_sparse else x for x in mixed])
        assert float(norm.of(mixed)) == pytest.approx(wanted, rel=1e-5)


OUTPUTS = {
    "samples and features": (16, 12),
    "images": (4, 3, 5, 5),
    "one sample": (1, 7),
    "no dimension of samples": (9,),
    "a number": (),
}


@pytest.mark.parametrize("shape", OUTPUTS.values(), ids=OUTPUTS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_outputs_measured_together_are_measured_as_one_by_one(shape, dtype):
    outputs = [x.relu() for x in tensors(shape, shape, shape, dtype=dtype)]

    table = batch_stats(torch.stack(outputs)).tolist()

    for row, output in zip(table, outputs, strict=True):
        alone = [float(v) for v in activation_stats(output)]
        assert row == pytest.approx(alone, rel=1e-4, abs=1e-6, nan_ok=True)


def test_bad_values_are_counted_in_each_output():
    outputs = torch.zeros(3, 4, 5)
    outputs[1, 0, 0], outputs[1, 2, 2], outputs[2, 0, 1] = math.nan, math.inf, -math.inf

    rows = batch_stats(outputs).tolist()

    assert [row[-1] for row in rows] == [0, 2, 1]
    assert math.isnan(rows[1][5]) and rows[2][5] == math.inf


def test_a_thinned_tensor_keeps_its_samples_and_is_taken_from_all_over():
    sample = 8 * 224 * 224
    x = torch.arange(20 * sample, dtype=torch.float64).reshape(20, 8, 224, 224)

    kept = subsample(x)

    assert kept.shape[0] == 16 and ELEMENTS // 2 <= kept.numel() <= 2 * ELEMENTS
    columns = kept[0].long() % 224
    assert columns.unique().tolist() == list(range(224))
    assert kept[3, 0] == 3 * sample
    assert kept.mean() == pytest.approx(float(x[:16].mean()), rel=0.01)


@pytest.mark.parametrize("elements", [5, 100, 1000, 65_537, 300_000])
def test_a_sample_is_always_the_same_and_has_about_the_size_asked_for(elements):
    x = torch.arange(elements, dtype=torch.float32)

    kept = sample_of(x, 1000)

    assert torch.equal(kept, sample_of(x.clone(), 1000))
    assert min(elements, 900) <= kept.numel() <= 1050
    assert kept[-1] >= 0.9 * (elements - 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_how_far_parameters_moved_is_known_for_each(dtype):
    before = tensors(*[(64, 64)] * 20, (7,), (300, 300), (7,), dtype=dtype)
    after = [x + 0.5 * (i + 1) for i, x in enumerate(before)]
    found: dict[int, float] = {}

    for group in samples.samples_of(before, limit=5000):
        members = [after[place] for place in group.places]
        now = group.moved_to([samples.sample(x, 5000) for x in members])
        for place, moved, x in zip(group.places, group.values, now, strict=True):
            found[place] = float(moved.mean())
            assert torch.equal(x, as_wide(samples.sample(after[place], 5000)).reshape(-1))

    wanted = {
        i: float((a.float() - b.float()).mean())
        for i, (a, b) in enumerate(zip(after, before, strict=True))
    }
    assert found == pytest.approx(wanted, rel=0.02)


def test_parameters_that_changed_their_shape_are_not_compared():
    [group] = samples.samples_of(tensors((4, 4)), limit=100)

    assert group.moved_to(tensors((5, 4))) is None


def test_the_cosine_of_pieces_is_that_of_the_whole():
    a, b = tensors((3, 10), (2, 5)), tensors((3, 10), (2, 5))
    b = [x + 0.3 for x in b]
    flat_a, flat_b = (torch.cat([x.flatten() for x in parts]) for parts in (a, b))

    parts = [samples.products(x, y) for x, y in zip(a, b, strict=True)]

    wanted = float(torch.nn.functional.cosine_similarity(flat_a, flat_b, dim=0))
    assert samples.cosine_of([p for p in parts if p is not None]) == pytest.approx(wanted)
    assert samples.products(torch.zeros(2, 3), torch.zeros(2, 4)) is None
    assert math.isnan(float(samples.cosine_of([])))
    assert math.isnan(float(samples.cosine_of([torch.zeros(3, dtype=torch.float64)])))
