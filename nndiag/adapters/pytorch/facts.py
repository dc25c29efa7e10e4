"""What is seen of the user's code and data, as facts for the journal: see docs/journal.md.

One object for all kinds, so that the hooks have one place to call. Everything here runs in measured
steps only, reads what is there anyway, and waits for no device.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from nndiag.adapters.base import Sink
from nndiag.adapters.pytorch.call_facts import CallFacts
from nndiag.adapters.pytorch.discovery import Discovery
from nndiag.adapters.pytorch.loss_facts import LossFacts
from nndiag.adapters.pytorch.loss_taps import Start
from nndiag.adapters.pytorch.optimizer_hooks import StepObserver
from nndiag.adapters.pytorch.stale_gradients import StaleGradients
from nndiag.adapters.pytorch.transfer import Transfer
from nndiag.adapters.pytorch.weight_facts import WeightFacts

FIRST = 3  # times that a fact is told at one place before it must have changed
MOST = 12  # times, changes included
MOST_IN_ALL = 400  # facts of one process
MOST_NAME = 200  # characters; generated names can be megabytes


@dataclass(slots=True)
class Told:
    """What was told of one kind at one place."""

    times: int = 0
    state: object = None
    times_of_state: int = 0


class Teller:
    """Tells the sink each fact in the first few steps, and again when it has changed."""

    def __init__(self, sink: Sink) -> None:
        self._sink = sink
        self._told: dict[tuple[object, ...], Told] = {}
        self._count = 0

    def tell(
        self,
        kind: str,
        step: int,
        where: str,
        owner: str,
        numbers: dict[str, object],
        *,
        state: object = None,
        variant: object = None,
    ) -> None:
        """`state`: what makes it another fact when it changes; `variant`: one of several there."""
        told = self._told.setdefault((kind, where, owner, variant), Told())
        if told.state != state:
            told.state, told.times_of_state = state, 0
        if told.times_of_state >= FIRST or told.times >= MOST or self._count >= MOST_IN_ALL:
            return
        told.times += 1
        told.times_of_state += 1
        self._count += 1
        where = where[:MOST_NAME]
        self._sink.fact(kind=kind, step=step, where=where, owner=owner, **numbers)


class Facts:
    """All that sees facts."""

    def __init__(self, sink: Sink, discovery: Discovery, transfer: Transfer) -> None:
        self._discovery = discovery
        self._teller = Teller(sink)
        self._calls = CallFacts(self._teller.tell, transfer)
        self._losses = LossFacts(self._teller.tell)
        self._stale = StaleGradients(self._teller.tell, transfer)
        self._weights = WeightFacts(self._teller.tell, transfer)
        self._skipped = 0

    def clear(self) -> None:
        """Let go of all that the step under way has shown."""
        self._calls.clear()
        self._losses.clear()

    def saw_call(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """A module was called in the forward pass of a measured step."""
        self._calls.saw(module, inputs, output)

    def saw_backward(self, start: Start, recording: bool, outputs: dict[Any, Any]) -> None:
        """A backward call begins. `outputs`: module calls by the graph nodes of their outputs."""
        self._stale.saw_backward(start)
        if recording:
            self._calls.saw_backward(start.losses)
            self._losses.saw_backward(start.losses, outputs)

    def before_step(self, observer: StepObserver) -> None:
        """The optimizer has all its gradients."""
        self._stale.before_step(observer)

    def after_step(self, observer: StepObserver, parameters: list[Tensor]) -> None:
        """The gradients are as the step leaves them, and whether the next is measured is known."""
        self._stale.after_step(observer, parameters)

    def end_step(self, observer: StepObserver, parameters: list[Tensor]) -> None:
        """A measured step is over: tell what was seen in it."""
        models = self._discovery.models_of(parameters)
        self._calls.tell_step(observer, models, parameters)
        self._losses.tell_step(observer, models)
        if self._weights.is_new(observer):
            names = self._discovery.names_of(parameters)
            self._weights.look_first(observer, list(zip(names, parameters, strict=True)), models)
        else:
            self._weights.look_again(observer)

    def skipped(self, steps: int, owners: Iterable[str]) -> None:
        """The gradient scaler has left out a step; `steps` of its optimizer were made."""
        self._skipped += 1
        if self._skipped & (self._skipped - 1) == 0:  # 1, 2, 4, 8, ...
            named = list(owners)
            owner = named[0] if len(named) == 1 else ""
            count: dict[str, object] = {"count": self._skipped}
            self._teller.tell("skipped-steps", steps, "", owner, count, state=self._skipped)
