"""What the hooks of one process share: the state of the step under way, and where it is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from torch import nn

from nndiag.adapters.base import Sink
from nndiag.adapters.pytorch.autograd_graph import ForwardMap
from nndiag.adapters.pytorch.discovery import Discovery
from nndiag.adapters.pytorch.facts import Facts
from nndiag.adapters.pytorch.loss_taps import LossTaps
from nndiag.adapters.pytorch.module_hooks import ForwardHook, ModuleStats
from nndiag.adapters.pytorch.observers import Observers
from nndiag.adapters.pytorch.one_thread import OneThread
from nndiag.adapters.pytorch.optimizer_hooks import StepObserver
from nndiag.adapters.pytorch.output_activations import OutputActivations
from nndiag.adapters.pytorch.passes import Passes
from nndiag.adapters.pytorch.structure import Register
from nndiag.adapters.pytorch.tracebacks import without_hook_path
from nndiag.adapters.pytorch.transfer import Transfer
from nndiag.adapters.pytorch.unit_activity import UnitActivity


class Schedule(Protocol):
    """Which steps get layer statistics. `shared`: several ranks train, and must agree on them."""

    def wants(
        self, step: int, last: int, *, cost_s: float, elapsed_s: float, shared: bool
    ) -> bool: ...
    def wants_update(self, step: int, last: int, *, cost_s: float, shared: bool) -> bool: ...
    def wants_norm(self, step: int, *, cost_s: float, elapsed_s: float, shared: bool) -> bool: ...
    def force(self, steps: int = 1) -> None: ...


class Guard(Protocol):
    """Runs our code inside the training: catches what it raises, and knows what it cost."""

    cost_s: float

    @property
    def elapsed_s(self) -> float: ...
    def __call__(self, function: Callable[..., None], /) -> Callable[..., None]: ...


class Parts:
    """The parts of an adapter. Each is used by several of its hooks."""

    def __init__(
        self,
        sink: Sink,
        schedule: Schedule,
        guard: Guard,
        on_forward: Callable[[nn.Module, Any, Any], None],
    ) -> None:
        self.sink = sink
        self.schedule = schedule
        self.guard = guard
        self.thread = OneThread(guard)
        observe = self.thread.only(guard(on_forward))
        self.forward = ForwardHook(observe, guard(without_hook_path))
        self.taps = LossTaps()
        self.discovery = Discovery()
        self.observers = Observers(self.discovery, sink.note)
        self.graph = ForwardMap()
        self.units = UnitActivity()
        self.outputs = OutputActivations(self.units)
        self.stats = ModuleStats(self._see_outputs)
        self.passes = Passes(self.stats.drop)
        self.transfer = Transfer()
        self.facts = Facts(sink, self.discovery, self.transfer)
        self.walks = True  # whether the graph of the step under way is walked
        self._register = Register()

    def _see_outputs(self, modules: list[nn.Module], outputs: Any) -> None:
        if not self.walks:
            self.outputs.see_all(modules, outputs)

    def observer_of(self, optimizer: Any) -> StepObserver | None:
        return self.observers.of(optimizer, self.stats.modules.values())

    def learn_names(self) -> None:
        self.discovery.learn(self.stats.modules.values())

    def tell_structure(self) -> None:
        for model in self.discovery.alive():
            model.refresh()
        alive = self.observers.alive()
        self.sink.structure(self._register.describe(self.discovery, alive, self.units.spellings))

    def clear(self) -> None:
        """Let go of all that the step under way has shown."""
        self.graph.clear()
        self.stats.clear()
        self.passes.clear()
        self.facts.clear()
