"""Which observer follows which optimizer, whatever the script does with its optimizers."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from nndiag.adapters.pytorch.discovery import Discovery
from nndiag.adapters.pytorch.optimizer_hooks import StepObserver

MAX_OPTIMIZERS = 16  # followed apart; an optimizer per parameter (optimizer-in-backward) is more
RESTING_STEPS = 200  # of other optimizers, after which one that made no step does not count


class Observers:
    """The observers of a process, in the order of their first steps."""

    def __init__(self, discovery: Discovery, note: Callable[[str], None]) -> None:
        self._discovery = discovery
        self._note = note
        self._all: list[StepObserver] = []
        self._by_id: dict[int, tuple[weakref.ref[Any], StepObserver]] = {}  # of the optimizer
        self._clock = 0  # steps of all optimizers together
        self._is_full = False

    def __bool__(self) -> bool:
        return bool(self._all)

    @property
    def steps(self) -> int:
        """Number of the step under way, of the optimizer that is furthest."""
        return max((o.steps for o in self._all), default=0)

    def alive(self) -> list[tuple[StepObserver, Any]]:
        """Each optimizer that still exists, with its observer."""
        return [(o, optimizer) for ref, o in self._by_id.values() if (optimizer := ref())]

    def of(self, optimizer: Any, seen: Iterable[nn.Module]) -> StepObserver | None:
        """The observer of this optimizer; None where there are too many.

        `seen`: modules that ran, from which the models of a new optimizer are learnt.
        """
        known = self._by_id.get(id(optimizer))
        if known is not None and known[0]() is optimizer:  # ids are reused
            return known[1]
        observer = self._successor(optimizer) or self._new(optimizer, seen)
        if observer is not None:
            self._by_id[id(optimizer)] = (weakref.ref(optimizer), observer)
        return observer

    def of_parameters(self, parameters: Iterable[Tensor]) -> StepObserver | None:
        """Who follows the optimizer of these parameters; None before its first step.

        Of several in use the one that holds most of them; one that was put aside is not in use.
        """
        held = {id(p): p for p in parameters}
        holders = [(o, count) for o in self._all if (count := o.count_of(held))]
        newest = max((o.newest for o, _ in holders), default=0)
        in_use = [(count, o) for o, count in holders if newest - o.newest <= MAX_OPTIMIZERS]
        return max(in_use, key=lambda pair: pair[0], default=(0, None))[1]

    def stepped(self, observer: StepObserver) -> list[StepObserver]:
        """Note one step; the observers in use.

        An optimizer that rests, after a warm-up phase say, must not keep the measuring on.
        """
        self._clock += 1
        observer.newest = self._clock
        return [o for o in self._all if self._clock - o.newest < RESTING_STEPS]

    def _successor(self, optimizer: Any) -> StepObserver | None:
        """The observer of an optimizer that this one takes the place of.

        A script that makes its optimizer anew for each epoch still is one training.
        """
        observer = next((o for o in self._all if o.is_for(optimizer)), None)
        if observer is not None:
            observer.forget_update()
        return observer

    def _new(self, optimizer: Any, seen: Iterable[nn.Module]) -> StepObserver | None:
        if len(self._all) >= MAX_OPTIMIZERS:
            if not self._is_full:
                self._note(f"only the first {MAX_OPTIMIZERS} optimizers are followed")
            self._is_full = True
            return None
        observer = StepObserver(optimizer, len(self._all))
        observer.owner = self._owner(observer, optimizer, seen)
        self._all.append(observer)
        return observer

    def _owner(self, observer: StepObserver, optimizer: Any, seen: Iterable[nn.Module]) -> str:
        """A name of its own: "Adam(Net)", "Adam(Net)#2"."""
        parameters = observer.parameters(optimizer)
        self._discovery.learn(seen)
        self._discovery.learn_holders(parameters)
        models = self._discovery.models_of(parameters)
        self._discovery.tell_apart(models)
        name = f"{observer.kind}({models[0].name})" if models else observer.kind
        taken = {o.owner for o in self._all}
        names = [name, *(f"{name}#{i}" for i in range(2, MAX_OPTIMIZERS + 1))]
        return next(free for free in names if free not in taken)
