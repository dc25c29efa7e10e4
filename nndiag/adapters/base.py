"""What the watcher asks of a framework, and what a framework's adapter tells the watcher.

An adapter knows its framework and nothing of files; the sink knows files and no framework. Both
run inside the training process: standard library only, besides the adapter's own framework.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

NAN = float("nan")
NO_GRADIENT = -1.0  # a norm where there was no gradient: norms are never negative


@dataclass(slots=True)
class StepRow:
    """What is recorded of every optimizer step, named as in the journal. NaN: not measured."""

    loss: float = NAN
    backward_calls: int = 0
    lrs: Sequence[float] = ()  # of each parameter group
    grad_norm: float = NAN  # before clipping
    clip_threshold: float = NAN
    loss_scale: float = NAN
    step_time_s: float = NAN
    nndiag_time_s: float = NAN
    update_gradient_cosine: float = NAN
    update_ratio: float = NAN
    time_to_backward_s: float = NAN  # from the end of the step before: data and forward


@dataclass(slots=True)
class Structure:
    """The models and optimizers of a process, as process.json shows them."""

    optimizers: list[Mapping[str, object]] = field(default_factory=list)
    models: list[Mapping[str, object]] = field(default_factory=list)
    relus: list[Mapping[str, object]] = field(default_factory=list)
    device: str = ""


@dataclass(frozen=True, slots=True)
class NamedTensor:
    """A tensor to be written down. Its bytes are fetched one tensor at a time: models are large."""

    name: str
    dtype: str  # as `journal.tensors` calls it: "F32"
    shape: tuple[int, ...]
    content: Callable[[], memoryview]  # C order, little-endian


@dataclass(frozen=True, slots=True)
class Capture:
    """A batch of the training, with what it takes to go over it again; see docs/attribution.md."""

    name: str  # "step-612", or "end"
    told: Mapping[str, object]  # capture.json, without its schema
    batch: Sequence[NamedTensor]
    weights: Sequence[NamedTensor]  # parameters and buffers; none where they were too large


class Sink(Protocol):
    """Where an adapter's measurements go."""

    def step(self, optimizer: int, owner: str, step: int, row: StepRow) -> None:
        """One optimizer step."""

    def layers(self, optimizer: int, owner: str, step: int, values: Mapping[Column, float]) -> None:
        """The layer statistics of one recorded step."""

    def structure(self, structure: Structure) -> None:
        """Models and optimizers as they are now known."""

    def nonfinite(self, **origin: object) -> None:
        """The first tensor that went bad: the fields of `records.NonfiniteOrigin`."""

    def fact(self, **fields: object) -> None:
        """Something of the code or the data: the fields of `records.Fact`, numbers by name."""

    def note(self, text: str) -> None:
        """Something the reader of the report should know."""

    def capture(self, capture: Capture, replaces: str = "") -> None:
        """A batch to keep, in place of the one that it `replaces`."""


Column = tuple[str, str]  # metric, where


class Adapter(Protocol):
    """A framework under observation."""

    def attach(self) -> None:
        """Put the hooks on. Called once, right after the framework was imported."""

    def adopt(self, models: Iterable[Any] = ()) -> None:
        """Learn of models made before `attach`; without `models`, of all that there are."""

    def detach(self) -> None:
        """Take the hooks off; never called from inside one."""

    def exempt(self, function: Callable[..., Any], /) -> Callable[..., Any]:
        """Have the framework's compilers leave a function of ours alone."""

    def switch_off(self) -> None:
        """End the observation, also from inside a hook; the hooks may stay but do nothing."""

    def settle(self) -> None:
        """Hand over what is measured but held back, though the training may go on; may wait."""

    def finish(self) -> None:
        """The process ends: hand over what is still held."""
