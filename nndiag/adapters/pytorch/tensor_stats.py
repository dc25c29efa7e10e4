"""Numbers of one tensor, kept on its device until the whole step is fetched at once.

Shapes: N samples (first dimension), C units or channels, S positions, E elements in all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

ELEMENTS = 1 << 15  # a statistic reads at most about so many elements of a tensor
UNIT_ELEMENTS = 1 << 20  # the search for dead units wants many samples, and costs one comparison
NARROW = frozenset((torch.float16, torch.bfloat16))
SAMPLES = 16  # and at least so many samples, where there are
UNIT_SAMPLES = 4

ACTIVATION = (
    "activation_count",
    "activation_samples",
    "activation_mean",
    "activation_variance",
    "activation_sample_variance",
    "activation_abs_max",
    "activation_zeros",
    "activation_nonfinite",
)


def is_measurable(value: object) -> bool:
    """A plain, dense, real floating-point tensor with something in it."""
    return (
        isinstance(value, Tensor)
        and type(value) in (Tensor, torch.nn.Parameter)
        and value.layout is torch.strided
        and value.is_floating_point()
        and value.numel() > 0
        and value.device.type != "meta"
        and not torch._C._functorch.is_functorch_wrapped_tensor(value)
    )


def tensors_in(output: object, depth: int = 3) -> Iterator[Tensor]:
    """The tensors of a module's output, at most a few levels and eight items deep."""
    if isinstance(output, Tensor):
        yield output
    elif depth and isinstance(output, tuple | list):
        for item in output[:8]:
            yield from tensors_in(item, depth - 1)
    elif depth and isinstance(output, dict):
        for item in list(output.values())[:8]:
            yield from tensors_in(item, depth - 1)


def first_samples(x: Tensor, elements: int, least: int) -> Tensor:
    """As many of the first samples of `x` as hold `elements`, but at least `least`: (n, ...)."""
    if x.numel() <= elements or x.ndim == 0:
        return x
    return x[: max(least, elements // (x.numel() // x.shape[0]))]


def subsample(x: Tensor, elements: int = ELEMENTS) -> Tensor:
    """The first samples of `x`, thinned along the rest if they are still too many: (n, ...)."""
    x = first_samples(x, elements, SAMPLES)
    if x.numel() > 2 * elements:
        x = x.flatten(1)[:, :: math.ceil(x.numel() / elements)]
    return x


def activation_stats(output: Tensor) -> list[Tensor | float]:
    """The statistics named in ACTIVATION, each a number or a 0-dim tensor on the same device.

    The sample variance is taken over the first dimension for every element and then averaged: it
    is the part of the variance that depends on the input. A deep net with a bias can keep a pooled
    variance of 1e-3 while its sample variance is 1e-17 and nothing passes.
    """
    x = subsample(output.detach())
    if x.dtype is not torch.float32 and x.dtype is not torch.float64:
        x = x.float()
    # Two passes by hand: on the CPU torch.var over the first dimension takes sixty times as long.
    mean = x.mean()
    samples = x.shape[0] if x.ndim > 1 else 1
    across = (x - x.mean(0)).square().mean() if samples > 1 else float("nan")
    largest = x.abs().amax()
    return [
        float(x.numel()),
        float(samples),
        mean,
        (x - mean).square().mean(),
        across,
        largest,
        x.numel() - torch.count_nonzero(x),
        _nonfinite(x, largest),
    ]


def _nonfinite(x: Tensor, largest: Tensor) -> Tensor | float:
    """How many elements are NaN or infinite. `largest` is, where any is; a GPU is not asked."""
    if largest.device.type == "cpu" and math.isfinite(largest.item()):
        return 0.0
    return torch.count_nonzero(x * 0)  # NaN and infinity times 0 are NaN, which is not zero


def merge_activation_stats(calls: list[list[float]]) -> dict[str, float]:
    """One set of statistics from several calls in a step (micro-batches, a reused module).

    Means and variances are merged exactly (Chan et al. 1979), weighted by element count.
    """
    count = sum(c[0] for c in calls)
    mean = sum(c[0] * c[2] for c in calls) / count
    variance = sum(c[0] * (c[3] + (c[2] - mean) ** 2) for c in calls) / count
    across = [(c[0], c[4]) for c in calls if c[1] > 1]
    weight = sum(w for w, _ in across)
    return {
        "activation_count": count,
        "activation_mean": mean,
        "activation_variance": variance,
        "activation_sample_variance": (
            sum(w * v for w, v in across) / weight if weight else float("nan")
        ),
        "activation_abs_max": _max(c[5] for c in calls),
        "activation_zero_fraction": sum(c[6] for c in calls) / count,
        "activation_nonfinite": sum(c[7] for c in calls),
    }


def _max(values: Iterator[float]) -> float:
    """The largest value; NaN if any is NaN (Python's max would depend on the order)."""
    found = list(values)
    return float("nan") if any(math.isnan(v) for v in found) else max(found)


def other_than(unit_axis: int, x: Tensor) -> tuple[int, ...]:
    """The dimensions of samples and positions: all but that of the units."""
    return tuple(i for i in range(x.ndim) if i != unit_axis % x.ndim)


def norms(tensors: list[Tensor]) -> list[Tensor]:
    """Euclidean norm of each tensor. Shapes: any; one fused kernel per device and dtype."""
    dense = [t for t in tensors if t.layout is torch.strided]
    found = iter(_dense_norms(dense)) if dense else iter(())
    return [
        next(found) if t.layout is torch.strided else _dense_norms([t.coalesce().values()])[0]
        for t in tensors
    ]


def _dense_norms(tensors: list[Tensor]) -> Sequence[Tensor]:
    kinds = {t.dtype for t in tensors}
    if kinds.isdisjoint(NARROW):
        return torch._foreach_norm(tensors)
    wide = torch.float64 if torch.float64 in kinds else torch.float32
    return torch._foreach_norm(tensors, 2, wide)  # in float16 a norm is infinite above 65504


def worst_value(tensor: Tensor) -> float:
    """A value that is not finite if the tensor holds one, else 0."""
    values = tensor if tensor.layout is torch.strided else tensor.coalesce().values()
    bad = values[~torch.isfinite(values)]
    return float(bad[0]) if bad.numel() else 0.0


def sample_of(tensor: Tensor, elements: int) -> Tensor:
    """Up to `elements` coordinates of a tensor, always the same ones: (n,)."""
    flat = tensor.detach().reshape(-1)
    stride = math.ceil(flat.numel() / elements) if elements else 1
    return flat[::stride] if stride > 1 else flat
