"""Numbers of one tensor, kept on its device until the whole step is fetched at once.

Shapes: N samples (first dimension), C units or channels, S positions, E elements in all.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn.parameter import UninitializedBuffer, UninitializedParameter

Scalar = float | Tensor  # a number, or one that is still on its device

TORCHS_OWN = (Tensor, torch.nn.Parameter)
ELEMENTS = 1 << 15  # a statistic reads at most about so many elements of a tensor
UNIT_ELEMENTS = 1 << 20  # the search for dead units wants many samples, and costs one comparison
NARROW = frozenset((torch.float16, torch.bfloat16))
RUN = 64  # neighbours that are kept together where a tensor is thinned
LONG_RUN = 256  # in what lies in memory, cold: the processor fetches ahead only along a run
CHUNK = 1 << 16  # elements that are stacked at once: a core has room for them beside the caches
SMALL = 1 << 14  # elements; of smaller tensors the call costs more than the arithmetic
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

MERGED = (  # what becomes of them in the journal
    "activation_count",
    "activation_mean",
    "activation_variance",
    "activation_sample_variance",
    "activation_abs_max",
    "activation_zero_fraction",
    "activation_nonfinite",
)


def is_freed(tensor: Tensor) -> bool:
    """Whether its memory was given back while it lives on; reading it would end the process.

    FSDP does so with the parameters that it has gathered, as soon as a module has run.
    """
    return tensor.numel() > 0 and tensor.untyped_storage().nbytes() == 0


def _holds_numbers(kind: type[Tensor]) -> bool:
    """Whether a class of the user's own overrides no operation of torch."""
    own = kind.__torch_dispatch__ is Tensor.__torch_dispatch__
    return own and not issubclass(kind, (UninitializedParameter, UninitializedBuffer))


def is_measurable(value: object) -> bool:
    """A dense, real floating-point tensor with something in it, whose memory holds the numbers.

    That includes the user's own classes that only override `__torch_function__`: in `unseen()` they
    are as torch's. Those that override `__torch_dispatch__` may stand for anything.
    """
    return (
        isinstance(value, Tensor)
        and (type(value) in TORCHS_OWN or _holds_numbers(type(value)))
        and value.layout is torch.strided
        and value.is_floating_point()
        and value.numel() > 0
        and value.device.type != "meta"
        and not torch._C._functorch.is_functorch_wrapped_tensor(value)
        and not is_freed(value)
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
    """The first samples of `x`, thinned along the rest if they are still too many: (n, ...).

    What is kept are runs of neighbours, since memory comes by the line; the way from one to the
    next is odd, so that they fall on other columns of an image in each of its rows.
    """
    x = first_samples(x, elements, SAMPLES)
    if x.numel() > 2 * elements:
        x = x.flatten(1)
        runs = x.shape[1] // RUN
        apart = math.ceil(x.numel() / elements) | 1
        x = x[:, : runs * RUN].view(x.shape[0], runs, RUN)[:, ::apart].flatten(1)
    return x


def as_wide(x: Tensor) -> Tensor:
    """`x` in float32 or float64: in a narrower kind a sum of squares would lose its meaning."""
    return x if x.dtype is torch.float32 or x.dtype is torch.float64 else x.float()


def activation_stats(output: Tensor) -> list[Tensor | float]:
    """The statistics named in ACTIVATION, each a number or a 0-dim tensor on the same device.

    The sample variance is taken over the first dimension for every element and then averaged: it
    is the part of the variance that depends on the input. A deep net with a bias can keep a pooled
    variance of 1e-3 while its sample variance is 1e-17 and nothing passes.
    """
    x = as_wide(subsample(output.detach()))
    # By hand: on the CPU torch.var over the first dimension takes sixty times as long.
    if x.ndim > 1 and x.shape[0] > 1:
        samples = x.shape[0]
        of_each = x.mean(0)
        mean = of_each.mean()
        across: Tensor | float = _mean_square(x - of_each)
        variance = across + _mean_square(of_each - mean)  # the law of total variance
    else:
        samples, across, mean = 1, float("nan"), x.mean()
        variance = _mean_square(x - mean)
    least, most = torch.aminmax(x)
    largest = torch.maximum(most, -least)
    return [
        float(x.numel()),
        float(samples),
        mean,
        variance,
        across,
        largest,
        _zeros(x),
        _nonfinite(x, largest),
    ]


def _zeros(x: Tensor) -> Tensor:
    """How many elements are 0; exact up to the 2**24 of float32, and a thinned tensor is smaller.

    As numbers: on the CPU counting truth values takes ten times as long.
    """
    return torch.eq(x, 0, out=torch.empty_like(x)).sum()


def _mean_square(x: Tensor) -> Tensor:
    flat = x.reshape(-1)
    return torch.dot(flat, flat) / flat.numel()


def batch_stats(x: Tensor) -> Tensor:
    """The statistics of ACTIVATION for each of K outputs of one shape at once: (K, 8).

    Shapes: `x` (K, samples, ...), or (K, elements) where the outputs have no dimension of samples.
    """
    x = as_wide(x)
    count, several = x[0].numel(), x.ndim > 2 and x.shape[1] > 1
    samples = x.shape[1] if several else 1
    x = x.reshape(x.shape[0], samples, -1)
    of_each = x.mean(1)
    mean = of_each.mean(1)
    within = torch.linalg.vector_norm(x - of_each.unsqueeze(1), dim=(1, 2)).square() / count
    between = torch.linalg.vector_norm(of_each - mean.unsqueeze(1), dim=1).square()
    largest = torch.maximum(x.amax((1, 2)), -x.amin((1, 2)))
    zeros = torch.empty_like(x)
    torch.eq(x, 0, out=zeros)  # as numbers: counting truth values takes five times as long
    bad = torch.zeros_like(mean)
    if not (largest.is_cpu and all(map(math.isfinite, largest.tolist()))):
        bad = torch.isfinite(x).logical_not().sum((1, 2)).to(mean.dtype)
    return torch.stack(
        [
            torch.full_like(mean, count),
            torch.full_like(mean, samples),
            mean,
            within + between / of_each.shape[1],
            within if several else torch.full_like(mean, float("nan")),
            largest,
            zeros.sum((1, 2)),
            bad,
        ],
        dim=1,
    )


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


def norms(tensors: Sequence[Tensor]) -> list[Scalar]:
    """Euclidean norm of each tensor; on the CPU as numbers. Shapes: any."""
    dense = [t if t.layout is torch.strided else t.coalesce().values() for t in tensors]
    found: list[Scalar] = [0.0] * len(dense)
    for alike in by_shape(dense).values():
        members = [dense[i] for i in alike]
        lengths = _norms_of_alike(members)
        for i, length in zip(alike, lengths, strict=True):
            found[i] = length
    return found


def by_shape(tensors: Sequence[Tensor]) -> dict[tuple[object, ...], list[int]]:
    """Places of the tensors that can be stacked: on the CPU those of one shape, else all alike."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for i, t in enumerate(tensors):
        key = (t.shape, t.dtype, t.is_cpu) if t.is_cpu else (t.dtype, t.device)
        group = groups.get(key)
        if group is None:
            groups[key] = [i]
        else:
            group.append(i)
    return groups


def _norms_of_alike(members: list[Tensor]) -> Sequence[Scalar]:
    """Norms of tensors that `by_shape` put together."""
    first = members[0]
    if first.is_cpu and first.numel() <= SMALL and len(members) > 1:
        # Two calls for many, where a kernel that takes a list still makes one for each.
        found: list[Scalar] = []
        at_once = CHUNK // first.numel() if first.numel() else len(members)
        for begin in range(0, len(members), at_once):
            some = torch.stack(members[begin : begin + at_once])
            lengths = torch.linalg.vector_norm(as_wide(some).reshape(len(some), -1), dim=1)
            found += lengths.tolist()
        return found
    if first.dtype in NARROW:  # in float16 a norm is infinite above 65504
        each = torch._foreach_norm(members, 2, torch.float32)
    else:
        each = torch._foreach_norm(members)
    return [n.item() for n in each] if first.is_cpu else each


def numbers_of(row: Tensor) -> Sequence[Scalar]:
    """The elements of a vector: numbers, or on a device one tensor each."""
    return row.tolist() if row.is_cpu else row.unbind()


def norm_of_norms(parts: Sequence[Scalar]) -> Scalar:
    """Euclidean norm of several norms, possibly of several devices."""
    tensors = [p for p in parts if isinstance(p, Tensor)]
    numbers = math.sqrt(sum(p * p for p in parts if not isinstance(p, Tensor)))
    if not tensors:
        return numbers
    device = tensors[0].device
    if any(t.device != device for t in tensors):
        tensors = [t.to(device) for t in tensors]
    length: Tensor = torch.linalg.vector_norm(torch.stack(tensors))  # of mixed kinds the widest
    return length if len(tensors) == len(parts) else (length.square() + numbers**2).sqrt()


def worst_value(tensor: Tensor) -> float:
    """A value that is not finite if the tensor holds one, else 0."""
    values = tensor if tensor.layout is torch.strided else tensor.coalesce().values()
    bad = values[~torch.isfinite(values)]
    return float(bad[0]) if bad.numel() else 0.0


def sample_of(tensor: Tensor, elements: int) -> Tensor:
    """Up to some `elements` coordinates of a tensor, always the same ones: (n,).

    Runs of neighbours, as in `subsample`.
    """
    flat = tensor.detach().reshape(-1)
    if flat.numel() <= elements:
        return flat
    run = max(16, min(LONG_RUN, elements // 32))
    runs = flat.numel() // run
    apart = math.ceil(flat.numel() / max(elements, run)) | 1
    return flat[: runs * run].view(runs, run)[::apart].reshape(-1)
