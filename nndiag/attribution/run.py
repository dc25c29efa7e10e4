"""All captured batches of one process of a run: what `watch` and `attribute` ask for."""

from __future__ import annotations

import contextlib
import io
import os
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from nndiag.attribution import results
from nndiag.attribution.attribute import DependentSamples, Request, attribute
from nndiag.attribution.captured import Captured, read_capture
from nndiag.attribution.model_call import CannotAttribute, shapes_of
from nndiag.errors import NndiagError, UnreadableLog
from nndiag.journal.format import ATTRIBUTIONS_FOLDER, CAPTURES_FOLDER

SHARDED = "sharded"  # in the reason why weights were not kept: then no process can run the model


@dataclass(frozen=True, slots=True)
class Batches:
    """Captured batches to attribute."""

    rank_directory: str
    request: Request
    names: tuple[str, ...] = ()  # of captures; (): all of them
    is_trained: bool = False  # whether the model is as it was at the end of the training


def captures_of(rank_directory: str) -> list[str]:
    """Folders of the captured batches of a rank, spikes first, in the order of their steps."""
    folder = os.path.join(rank_directory, CAPTURES_FOLDER)
    try:
        names = [name for name in os.listdir(folder) if not name.startswith(".")]
    except OSError:
        return []
    return [os.path.join(folder, name) for name in sorted(names, key=_place)]


def attribute_all(
    model: nn.Module, batches: Batches, say: Callable[[str], None] = lambda text: None
) -> Sequence[str]:
    """Attribute each batch and write down what came of it; the paths of what was written.

    All together in the time of the request, but one sample of each batch at least. Works inside of
    `torch.inference_mode`, too: the script may call its model there first. What the model prints
    is dropped: it is called many times.
    """
    folder = os.path.join(batches.rank_directory, ATTRIBUTIONS_FOLDER)
    deadline = time.monotonic() + batches.request.seconds
    written = []
    for path in captures_of(batches.rank_directory):
        name = os.path.basename(path)
        if not is_of(path, batches.names):
            continue
        say(f"attributions by {batches.request.method}: {name.replace('-', ' ')}")
        left = max(0.0, deadline - time.monotonic())
        request = replace(batches.request, seconds=left)
        with torch.inference_mode(False), contextlib.redirect_stdout(_Nowhere()):
            try:
                captured = read_capture(path)
            except UnreadableLog as error:
                say(f"left out {error.where}: {error.what}")
                continue
            written.append(_one(model, captured, folder, request, batches.is_trained))
    return written


class _Nowhere(io.TextIOBase):
    """Where text is lost."""

    def write(self, text: str) -> int:
        return len(text)


class Looking:
    """Looks for the model of the captured batches among the modules that a script calls."""

    def __init__(self, asked: Mapping[str, Any]) -> None:
        self._asked = asked
        # id(module) -> itself and its size when it was asked for. Ids are reused: a search for the
        # right width makes models and throws them away. Weakly by hand: not each has a hash.
        self._seen: dict[int, tuple[weakref.ref[nn.Module], int]] = {}
        self._largest: tuple[int, str] = (0, "")  # parameters, class: to say what was there
        self._names: list[str] = []
        self._shapes: list[dict[str, tuple[int, ...]]] = []
        for path in self._captures():
            captured = read_capture(path)
            self._names.append(captured.model)
            shapes = captured.shapes()
            if shapes is not None:
                self._shapes.append(shapes)

    def _captures(self) -> list[str]:
        """Those that were asked for, of all ranks."""
        asked, folders = self._asked["names"], self._asked["rank_directories"]
        return [path for folder in folders for path in captures_of(folder) if is_of(path, asked)]

    def is_it(self, module: nn.Module) -> bool:
        """Whether this module has the parameters and buffers of a captured one."""
        size = _size(module)
        ref, known = self._seen.get(id(module), (None, 0))
        if ref is not None and ref() is module and known == size:  # a layer may grow when called
            return False
        self._seen[id(module)] = weakref.ref(module), size
        own = shapes_of(module)
        self._largest = max(self._largest, (len(own), type(module).__name__))
        return own in self._shapes if self._shapes else type(module).__name__ in self._names

    def attribute(self, module: nn.Module, say: Callable[[str], None]) -> None:
        asked = dict(self._asked)
        directories, names = asked.pop("rank_directories"), tuple(asked.pop("names"))
        request = Request(**asked)
        deadline = time.monotonic() + request.seconds
        for directory in directories:
            left = max(0.0, deadline - time.monotonic())
            attribute_all(module, Batches(directory, replace(request, seconds=left), names), say)

    def why_not(self) -> str:
        wanted = " or ".join(dict.fromkeys(self._names)) or "the model"
        count, kind = self._largest
        other = f": the largest is {kind}, of {count} tensors" if kind else ": there is none"
        return f"no model is {wanted} with the captured parameters{other}"


def _one(
    model: nn.Module, captured: Captured, folder: str, asked: Request, is_trained: bool
) -> str:
    """`is_trained`: the model is as it was when the last batch was kept."""
    try:
        is_as_captured = is_trained and captured.why == "end"
        if captured.no_weights_because and not (
            is_as_captured and SHARDED not in captured.no_weights_because
        ):
            raise CannotAttribute(
                where=captured.model,
                what=f"its parameters at step {captured.step} were not kept: "
                f"{captured.no_weights_because}",
            )
        weights = None if is_as_captured else captured.weights()
        return results.write(folder, attribute(model, captured, weights, asked))
    except DependentSamples as error:
        return results.write_failure(
            folder, replace(captured, per_sample=None), asked.method, error
        )
    except NndiagError as error:
        return results.write_failure(folder, captured, asked.method, error)


def _size(module: nn.Module) -> int:
    """Tensors and numbers in it, to see that it has changed. Calls no method of a module."""
    size, seen, stack = 0, set(), [module]
    while stack:
        part = stack.pop()
        if id(part) not in seen:
            seen.add(id(part))
            held = (*part._parameters.values(), *part._buffers.values())
            size += sum(1 + t.numel() for t in held if t is not None and not is_lazy(t))
            stack += [child for child in part._modules.values() if child is not None]
    return size


def is_of(path: str, names: Sequence[str]) -> bool:
    """Whether a capture was asked for; no names: all are.

    "step-80-2" is another batch of step 80, of another model say.
    """
    name = os.path.basename(path)
    return not names or name in names or "-".join(name.split("-")[:2]) in names


def _place(name: str) -> tuple[bool, int, int, str]:
    numbers = [int(one) if one.isdecimal() else 0 for one in name.split("-")[1:]]
    step, again, *_ = [*numbers, 0, 0]
    return name == "end", step, again, name
