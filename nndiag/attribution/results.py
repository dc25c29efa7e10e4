"""Attributions on disk: `rank-K/attributions/<capture>-<method>.json` and `.safetensors`."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from nndiag.attribution.attribute import OfSample, Result
from nndiag.attribution.captured import DTYPES, Captured
from nndiag.attribution.odd_inputs import odd_inputs
from nndiag.errors import NndiagError
from nndiag.journal.format import ATTRIBUTION_SCHEMA
from nndiag.journal.tensors import write_tensors
from nndiag.journal.writer import make_real_directory, write_json
from nndiag.vocabulary.methods import AUTO

_NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True, slots=True)
class _Named:
    """A tensor under a name, as a tensor file wants it."""

    name: str
    tensor: Tensor

    @property
    def dtype(self) -> str:
        return _NAMES[self.tensor.dtype]

    @property
    def shape(self) -> Sequence[int]:
        return tuple(self.tensor.shape)

    @property
    def content(self) -> Callable[[], memoryview]:
        flat = self.tensor.detach().cpu().contiguous().reshape(-1)
        return lambda: memoryview(flat.view(torch.uint8).numpy().data).cast("B")


def write(folder: str, result: Result) -> str:
    """Write a result, in place of an older one of the same batch and method; path of its JSON."""
    make_real_directory(folder)
    tensors = list(_tensors(result))
    told: dict[str, object] = {
        **_of_batch(result.captured, result.method.name),
        "of": result.of,
        "layer": result.layer,
        "inputs": [{"name": f.name, "kind": f.kind} for f in result.features],
        "samples": [_sample(one) for one in result.samples],
        "relative_delta": result.relative_delta,
        "integral_steps": max((one.found.steps for one in result.samples), default=0),
        "seconds": round(result.seconds, 3),
        "notes": list(result.notes),
        "differs_at_rest": result.differs_at_rest,
    }
    _drop(folder, f"{result.captured.name}-{AUTO}")  # an earlier failure to choose a method
    return _write(folder, f"{result.captured.name}-{result.method.name}", told, tensors)


def write_failure(folder: str, captured: Captured, method: str, error: NndiagError) -> str:
    """Write down why there is no result: the losses of the batch may tell enough."""
    told = {
        **_of_batch(captured, method),
        "failed": f"{error.where}: {error.what}",
        "do": error.do,
    }
    return _write(folder, f"{captured.name}-{method}", told, list(_losses(captured)))


def _of_batch(captured: Captured, method: str) -> dict[str, object]:
    return {
        "schema": ATTRIBUTION_SCHEMA,
        "step": captured.step,
        "owner": captured.owner,
        "why": captured.why,
        "model": captured.model,
        "method": method,
        "batch_size": captured.samples,
        "loss": captured.loss,
        "before": captured.before,
        "odd_inputs": [asdict(one) for one in odd_inputs(captured)],
    }


def _sample(one: OfSample) -> dict[str, object]:
    return {
        "row": one.row,
        "loss": one.loss,
        "what": one.words,
        "at_sample": one.found.at_sample,
        "at_baseline": one.found.at_baseline,
        "delta": one.found.delta,
    }


def _tensors(result: Result) -> Iterator[_Named]:
    yield from _losses(result.captured)
    rows = [one.row for one in result.samples]
    for i, feature in enumerate(result.features):
        yield _Named(f"values/{feature.name}", feature.values[rows])
        if not result.layer:
            each = torch.cat([one.found.values[i] for one in result.samples])
            yield _Named(f"attributions/{feature.name}", each.float())
        if feature.embedding is None:
            yield _Named(f"baseline/{feature.name}", feature.baseline()[0].float())
    if (elements := result.captured.elements) is not None:
        yield _Named("elements", elements[rows].float())
    if result.layer:
        yield _Named("units", torch.cat([one.found.values[0] for one in result.samples]).float())


def _losses(captured: Captured) -> Iterator[_Named]:
    if captured.per_sample is not None:
        yield _Named("losses", captured.per_sample.float())


def _drop(folder: str, name: str) -> None:
    for ending in (".json", ".safetensors"):
        with contextlib.suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, name + ending))


def _write(folder: str, name: str, told: Mapping[str, object], tensors: Sequence[_Named]) -> str:
    """The tensors first: where the JSON stands, all of it is there."""
    make_real_directory(folder)
    path = os.path.join(folder, f"{name}.json")
    unfinished = os.path.join(folder, f".{name}.{os.getpid()}")
    write_tensors(unfinished, tensors)
    os.replace(unfinished, os.path.join(folder, f"{name}.safetensors"))
    write_json(path, told)
    return path
