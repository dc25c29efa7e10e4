"""Batches kept for attribution, on request only: the one of a spike, and the last measured one.

A batch whose loss leaps is known for what it is when backward is called: then the inputs are still
there, the parameters are those that made the loss, and the graph holds the loss of each sample. So
inputs, losses and parameters are written down at that moment. Nothing runs the model again here.

Unlike all else, this waits for the loss of each step on the host.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nndiag.adapters.base import Capture
from nndiag.adapters.pytorch.call_tree import NotKept, Tree, tree_of
from nndiag.adapters.pytorch.discovery import WRAPPERS
from nndiag.adapters.pytorch.leaps import Leaps
from nndiag.adapters.pytorch.loss_taps import Scalar
from nndiag.adapters.pytorch.loss_terms import Output, Terms, outputs_of, terms_of
from nndiag.adapters.pytorch.parts import Parts
from nndiag.adapters.pytorch.quiet import in_backward
from nndiag.adapters.pytorch.ranks import flat_shards, is_distributed, kind_of
from nndiag.adapters.pytorch.raw_tensors import can_be_written, named
from nndiag.adapters.pytorch.sample_losses import element_losses
from nndiag.adapters.pytorch.shortlist import Shortlist

IDLE = 20  # measured backward calls without the model that is followed: another trains by now

ROWS = 16  # of the last measured batch
BATCH_BYTES = 256 << 20
WEIGHT_BYTES = 2 << 30  # of a model whose parameters are kept


@dataclass(frozen=True, slots=True)
class Call:
    """A call of the model, as the script made it."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outputs: tuple[Output, ...]


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of a batch: tensors of its first rows."""

    step: int
    loss: float
    tree: Tree
    made_of: Mapping[str, object]  # kind of the loss, its numbers
    of_loss: Mapping[str, Tensor]  # "samples" (B,), "elements" (R, ...), "targets", "weight"


class Captures:
    """Follows the calls of one model, the largest of the process, and keeps batches of it."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        # Held on to: what a function of the script made is gone when the script ends.
        self._model: nn.Module | None = None
        self._idle = 0  # measured backward calls since it was called last
        self._call: Call | None = None
        self._is_old = False  # a step has ended since that call
        self._leaps = Leaps()
        self._shortlist = Shortlist()
        self._newest: Kept | None = None
        self._told: set[str] = set()

    @property
    def model(self) -> nn.Module | None:
        """The model whose batches are kept, freed of its wrappers."""
        return None if self._model is None else bare(self._model)

    # -- from the hooks

    def follows(self, module: nn.Module) -> bool:
        """Whether a call of this module is wanted: asked at each call of any."""
        return module is self._model

    def saw_call(self, args: Any, kwargs: Any, output: Any) -> None:
        """Remember the call; nothing is copied."""
        if torch.is_grad_enabled() and not in_backward():
            self._call = Call(args, kwargs, outputs_of(output))
            self._idle, self._is_old = 0, False

    def saw_backward(self, losses: Iterable[Tensor], value: Scalar) -> None:
        """Keep the batch if its loss leaps; else its first rows, if the step is measured."""
        recording = self._parts.forward.recording
        call, loss = self._call, float(value)
        if call is None:
            self._idle += recording
            if recording and (self._model is None or self._idle > IDLE):
                self._choose(self._parts.stats.modules.values())
            return
        terms = terms_of(losses, call.outputs)
        if not terms.any:
            return  # of another model: a discriminator, say, that was shown a detached output
        self._call = None  # the batch is let go of before the backward pass
        score = self._leaps.score(loss)
        if not score:
            self._shortlist.saw_usual()
        if score and self._shortlist.wants(self._parts.observers.steps, score):
            self._keep(call, terms, loss, score)
        elif recording and math.isfinite(loss):
            self._newest = self._rows_of(call, terms, loss, ROWS) or self._newest
        self._leaps.add(loss)

    def end_step(self) -> None:
        """Let go of a batch that no backward pass came for.

        Not at the first step after it: that may be of a discriminator, before the generator's own.
        """
        if self._is_old:
            self._call = None
        self._is_old = True

    def end(self) -> None:
        """The training is over: keep the last measured batch, and the parameters as they are now.

        Of a run that was stopped by an exception too: it may be what the exception is about.
        """
        kept, self._newest, self._call = self._newest, None, None
        if kept is not None and self.model is not None:
            self._write("end", kept, "end", {})

    # -- which model

    def _choose(self, called: Iterable[nn.Module]) -> None:
        """Take the largest of the modules that no other called one holds."""
        modules = list(called)
        held = {id(part) for m in modules for part in _parts_of(m) if part is not m}
        sizes = [(_size(module), module) for module in modules if id(module) not in held]
        size, module = max(sizes, key=lambda pair: pair[0], default=(0, None))
        if module is None or not size:
            return
        if module is not self._model:
            self._leaps.clear()
            self._newest = None
        self._model, self._idle = module, 0

    # -- which batch

    def _keep(self, call: Call, terms: Terms, loss: float, score: float) -> None:
        kept = self._rows_of(call, terms, loss, rows=None)
        if kept is None:
            return
        name = f"step-{kept.step}"
        why = "nonfinite" if math.isinf(score) else "spike"
        told = {"score": score, "before": self._leaps.usual}
        self._write(name, kept, why, told, self._shortlist.take(name, kept.step, score))

    def _rows_of(self, call: Call, terms: Terms, loss: float, rows: int | None) -> Kept | None:
        """The batch of a call, or its first rows, as copies; None where it cannot be kept."""
        try:
            tree = tree_of(call.args, call.kwargs, rows=rows, most_bytes=BATCH_BYTES)
        except NotKept as reason:
            self._tell(f"the batch could not be kept for attributions: {reason}")
            return None
        found = element_losses(terms)
        if found is None:
            return Kept(self._parts.observers.steps, loss, tree, {}, {})
        held = {
            **found.tensors,
            "samples": found.per_sample(tree.samples),
            "targets": found.targets_of(tree.rows, tree.samples),
            "elements": found.elements_of(tree.rows, tree.samples),
        }
        copies = {k: t.detach().clone() for k, t in held.items() if t is not None}
        of_loss = {k: t for k, t in copies.items() if can_be_written(t)}
        return Kept(self._parts.observers.steps, loss, tree, found.described(), of_loss)

    # -- writing

    def _write(
        self, name: str, kept: Kept, why: str, told: dict[str, Any], replaced: str = ""
    ) -> None:
        model = self.model
        if model is None:
            return
        weights = list(_state(model))
        missing = _why_not(model, weights)
        if missing:
            self._tell(f"parameters were not kept for attributions: {missing}")
        tree = kept.tree
        batch = [named(f"input/{key}", tensor) for key, tensor in tree.tensors.items()]
        batch += [named(f"loss/{key}", tensor) for key, tensor in kept.of_loss.items()]
        described = {
            "step": kept.step,
            "why": why,
            "loss": kept.loss,
            **told,
            "model": kind_of(model),
            "samples": tree.samples,
            "rows": tree.rows,
            "call": tree.described,
            "batched": tree.batched,
            "loss_made_of": kept.made_of,
            "weights": not missing,
            "no_weights_because": missing,
        }
        written = [] if missing else [named(key, tensor) for key, tensor in weights]
        try:
            self._parts.sink.capture(Capture(name, described, batch, written), replaced)
        except OSError as error:
            self._tell(f"a batch could not be kept for attributions: {error.strerror or error}")

    def _tell(self, text: str) -> None:
        if text not in self._told:
            self._told.add(text)
            self._parts.sink.note(text)


def _parts_of(module: nn.Module) -> Iterator[nn.Module]:
    """The module and all inside of it; no method of theirs is called, not even `__hash__`."""
    seen: set[int] = set()
    stack = [module]
    while stack:
        part = stack.pop()
        if id(part) not in seen:
            seen.add(id(part))
            yield part
            stack.extend(child for child in part._modules.values() if child is not None)


def _size(module: nn.Module) -> int:
    """Numbers in its parameters."""
    own = {id(p): p for part in _parts_of(module) for p in part._parameters.values()}
    return sum(p.numel() for p in own.values() if p is not None and not nn.parameter.is_lazy(p))


def bare(model: nn.Module) -> nn.Module:
    """The user's own model inside what wraps it for many devices, or for a compiler."""
    while attribute := WRAPPERS.get(type(model).__name__):
        inner = getattr(model, attribute, None)
        if not isinstance(inner, nn.Module):
            break
        model = inner
    return model


def _state(model: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers by name: what a forward pass depends on, saved or not."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def _why_not(model: nn.Module, weights: list[tuple[str, Tensor]]) -> str:
    """Why parameters cannot be written down; "" if they can."""
    if any(flat_shards(part) > 1 for part in model.modules()) or any(
        is_distributed(tensor) for _, tensor in weights
    ):
        return "they are sharded over several ranks"
    odd = next((name for name, tensor in weights if not can_be_written(tensor)), "")
    if odd:
        return f"{odd} is no plain array of numbers"
    size = sum(tensor.numel() * tensor.element_size() for _, tensor in weights)
    if size > WEIGHT_BYTES:
        return f"{size / 1e9:.1f} GB are more than {WEIGHT_BYTES / 1e9:.1f} GB"
    return ""
