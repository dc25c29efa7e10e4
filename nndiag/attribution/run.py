"""All captured batches of one process of a run: what `watch` and `attribute` ask for."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from nndiag.attribution import results
from nndiag.attribution.attribute import Request, attribute
from nndiag.attribution.captured import Captured, read_capture
from nndiag.attribution.model_call import CannotAttribute
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
    """Attribute each batch and write down what came of it; the paths of what was written."""
    folder = os.path.join(batches.rank_directory, ATTRIBUTIONS_FOLDER)
    written = []
    for path in captures_of(batches.rank_directory):
        name = os.path.basename(path)
        if batches.names and name not in batches.names:
            continue
        say(f"attributions by {batches.request.method}: {name.replace('-', ' ')}")
        try:
            captured = read_capture(path)
        except UnreadableLog as error:
            say(f"left out {error.where}: {error.what}")
            continue
        written.append(_one(model, captured, folder, batches))
    return written


class Looking:
    """Looks for the model of the captured batches among the modules that a script calls."""

    def __init__(self, asked: Mapping[str, Any]) -> None:
        self._asked = asked
        self._seen: set[int] = set()
        self._largest: tuple[int, str] = (0, "")  # parameters, class: to say what was there
        self._names: list[str] = []
        self._shapes: list[dict[str, tuple[int, ...]]] = []
        for path in captures_of(str(asked["rank_directory"])):
            if not asked["names"] or os.path.basename(path) in asked["names"]:
                captured = read_capture(path)
                self._names.append(captured.model)
                weights = captured.weights()
                if weights is not None:
                    self._shapes.append({name: tuple(t.shape) for name, t in weights.items()})

    def is_it(self, module: nn.Module) -> bool:
        """Whether this module has the parameters and buffers of a captured one."""
        if id(module) in self._seen:
            return False
        self._seen.add(id(module))
        own = {n: tuple(t.shape) for n, t in (*module.named_parameters(), *module.named_buffers())}
        self._largest = max(self._largest, (len(own), type(module).__name__))
        return own in self._shapes if self._shapes else type(module).__name__ in self._names

    def attribute(self, module: nn.Module, say: Callable[[str], None]) -> None:
        asked = dict(self._asked)
        directory, names = str(asked.pop("rank_directory")), tuple(asked.pop("names"))
        attribute_all(module, Batches(directory, Request(**asked), names), say)

    def why_not(self) -> str:
        wanted = " or ".join(dict.fromkeys(self._names)) or "the model"
        count, kind = self._largest
        other = f": the largest is {kind}, of {count} tensors" if kind else ": there is none"
        return f"no model is {wanted} with the captured parameters{other}"


def _one(model: nn.Module, captured: Captured, folder: str, batches: Batches) -> str:
    asked = batches.request
    try:
        is_as_captured = batches.is_trained and captured.why == "end"
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
    except NndiagError as error:
        return results.write_failure(folder, captured, asked.method, error)


def _place(name: str) -> tuple[bool, int, str]:
    number = name.removeprefix("step-")
    return name == "end", int(number) if number.isdigit() else 0, name
