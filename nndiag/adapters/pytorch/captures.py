"""Batches kept for attribution, on request only: the one of a spike, and the last measured one.

A batch whose loss leaps is known for what it is when backward is called: then the inputs are still
there, the parameters are those that made the loss, and the graph holds the loss of each sample. So
inputs, losses and parameters are written down at that moment. Nothing runs the model again here.

Unlike all else, this waits for the loss of each step on the host.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from nndiag.adapters.base import Capture
from nndiag.adapters.pytorch.call_tree import NotKept, Tree, tree_of
from nndiag.adapters.pytorch.discovery import bare
from nndiag.adapters.pytorch.leaps import Leaps
from nndiag.adapters.pytorch.loss_taps import Scalar
from nndiag.adapters.pytorch.loss_terms import Output, Terms, outputs_of, terms_of
from nndiag.adapters.pytorch.parts import Parts
from nndiag.adapters.pytorch.quiet import in_backward, unseen
from nndiag.adapters.pytorch.ranks import flat_shards, is_distributed, kind_of
from nndiag.adapters.pytorch.raw_tensors import can_be_written, named
from nndiag.adapters.pytorch.sample_losses import element_losses
from nndiag.adapters.pytorch.shortlist import Room, Shortlist
from nndiag.vocabulary.methods import NOT_KEPT

IDLE = 20  # backward calls without the model that is followed: another trains by now

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

    step: int  # of the optimizer that holds the parameters of the model
    owner: str  # the name of that optimizer
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
        self._among = 0  # models that were called, when it was chosen
        self._idle = 0  # backward calls since it was called last
        self._called: dict[int, nn.Module] | None = None  # while another one is looked for
        self._call: Call | None = None
        self._is_old = False  # a step has ended since that call
        self._leaps = Leaps()
        self._room = Room()
        self._shortlist = Shortlist(self._room)
        self._shortlists: dict[int, tuple[weakref.ref[nn.Module], Shortlist]] = {}  # by id(model)
        self._names: set[str] = set()  # of all that was kept, dropped ones included
        self._newest: Kept | None = None
        self._told: set[str] = set()

    @property
    def model(self) -> nn.Module | None:
        """The model whose batches are kept, freed of its wrappers."""
        return None if self._model is None else bare(self._model)

    # -- from the hooks

    def follows(self, module: nn.Module) -> bool:
        """Whether a call of this module is wanted: asked at each call of any."""
        if self._called is not None:
            self._called[id(module)] = module
        return module is self._model

    def saw_call(self, args: Any, kwargs: Any, output: Any) -> None:
        """Remember the call; nothing is copied."""
        if torch.is_grad_enabled() and not in_backward():
            self._call = None  # first: what it held is free for this one
            with unseen() as allowed:
                self._call = Call(args, kwargs, outputs_of(output) if allowed else ())
            self._idle, self._is_old, self._called = 0, False, None

    def saw_backward(self, losses: Iterable[Tensor], value: Scalar) -> None:
        """Keep the batch if its loss leaps; else its first rows, if the step is measured."""
        recording = self._parts.forward.recording
        call, loss = self._call, float(value)
        if call is None:
            self._idle += 1
            if recording and self._model is None:
                self._choose(self._parts.stats.modules.values())
            elif self._idle > IDLE:
                self._look_for_another()
            return
        terms = terms_of(losses, call.outputs)
        if not terms.any:
            return  # of another model: a discriminator, say, that was shown a detached output
        self._call = None  # the batch is let go of before the backward pass
        score = self._leaps.score(loss)
        if not score:
            self._shortlist.saw_usual()
        if score and self._shortlist.wants(self._place()[0], score):
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

    def _look_for_another(self) -> None:
        """Choose among what is called from one backward call to the next.

        What was measured before may still be of a model that is no longer trained.
        """
        called, self._called = self._called, {}
        if called:
            self._called = None
            self._choose(called.values())

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
            self._shortlist = self._shortlist_of(module)
        self._model, self._idle = module, 0
        self._among = sum(size > 0 for size, _ in sizes)

    def _shortlist_of(self, model: nn.Module) -> Shortlist:
        """Each model has one of its own; two may train by turns."""
        ref, known = self._shortlists.get(id(model), (None, None))
        if ref is None or known is None or ref() is not model:  # ids are reused
            known = Shortlist(self._room)
            self._shortlists[id(model)] = weakref.ref(model), known
        return known

    def _place(self) -> tuple[int, str]:
        """The step under way of the followed model, and the optimizer that counts it.

        Of parameters that no optimizer is known to hold (copies of them are trained), the step of
        the optimizer that is furthest.
        """
        observers = self._parts.observers
        observer = None if self._model is None else observers.of_parameters(_own(self._model))
        return (observers.steps, "") if observer is None else (observer.steps, observer.owner)

    # -- which batch

    def _keep(self, call: Call, terms: Terms, loss: float, score: float) -> None:
        kept = self._rows_of(call, terms, loss, rows=None)
        if kept is None:
            return
        name = self._name_for(kept.step)
        why = "nonfinite" if math.isinf(score) else "spike"
        told = {"score": score, "before": self._leaps.usual}
        self._write(name, kept, why, told, self._shortlist.take(name, kept.step, score))

    def _name_for(self, step: int) -> str:
        """ "step-80"; "step-80-2" where there is one of that step: of the first fold, say."""
        first = f"step-{step}"
        names = (first, *(f"{first}-{i}" for i in range(2, len(self._names) + 3)))
        name = next(free for free in names if free not in self._names)
        self._names.add(name)
        return name

    def _rows_of(self, call: Call, terms: Terms, loss: float, rows: int | None) -> Kept | None:
        """The batch of a call, or its first rows, as copies; None where it cannot be kept."""
        try:
            tree = tree_of(call.args, call.kwargs, rows=rows, most_bytes=BATCH_BYTES)
        except NotKept as reason:
            self._tell(f"{NOT_KEPT[0]}{reason}")
            return None
        found = element_losses(terms)
        if found is None:
            return Kept(*self._place(), loss, tree, {}, {})
        held = {
            **found.tensors,
            "samples": found.per_sample(tree.samples),
            "targets": found.targets_of(tree.rows, tree.samples),
            "elements": found.elements_of(tree.rows, tree.samples),
        }
        copies = {k: t.detach().clone() for k, t in held.items() if t is not None}
        of_loss = {k: t for k, t in copies.items() if can_be_written(t)}
        return Kept(*self._place(), loss, tree, found.described(), of_loss)

    # -- writing

    def _write(
        self, name: str, kept: Kept, why: str, told: dict[str, Any], replaced: str = ""
    ) -> None:
        model = self.model
        if model is None:
            return
        self._tell_which(model)
        weights = list(_state(model))
        missing = _why_not(model, weights)
        if missing:
            self._tell(f"parameters were not kept for attributions: {missing}")
        tree = kept.tree
        batch = [named(f"input/{key}", tensor) for key, tensor in tree.tensors.items()]
        batch += [named(f"loss/{key}", tensor) for key, tensor in kept.of_loss.items()]
        described = {
            "step": kept.step,
            "owner": kept.owner,
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
            self._tell(f"{NOT_KEPT[1]}{error.strerror or error}")

    def _tell_which(self, model: nn.Module) -> None:
        """Of a generator and a discriminator, say: names are known by the first batch."""
        if self._among > 1:
            known = self._parts.discovery.place(model)
            called = kind_of(model) if known is None else known[0].name
            self._tell(f"batches are kept of {called} alone, the largest of {self._among} models")

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


def _own(module: nn.Module) -> list[Tensor]:
    """Its parameters, each once."""
    held = {id(p): p for part in _parts_of(module) for p in part._parameters.values()}
    return [p for p in held.values() if p is not None]


def _size(module: nn.Module) -> int:
    """Numbers in its parameters."""
    return sum(p.numel() for p in _own(module) if not nn.parameter.is_lazy(p))


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
