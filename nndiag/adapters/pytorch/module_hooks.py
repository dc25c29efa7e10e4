"""Statistics of what modules put out, taken in the forward pass of measured steps only.

One global hook, no hook on any module: saving, copying and pickling a model give what they gave
before. Between measured steps the hook is taken off, so that a module call costs what it always
did. Once torch.compile has traced something it stays as
it is, since a change would make the compiler start again.
"""

from __future__ import annotations

import sys
import weakref
from collections.abc import Callable, Mapping
from sys import _getframe as _frame
from types import FrameType
from typing import Any

import torch
from torch import Tensor, nn

from nndiag.adapters.pytorch.quiet import in_backward, is_captured, leave_to_python
from nndiag.adapters.pytorch.replaced import Undo, replace
from nndiag.adapters.pytorch.tensor_stats import (
    CHUNK,
    SMALL,
    activation_stats,
    batch_stats,
    is_measurable,
    tensors_in,
)
from nndiag.adapters.pytorch.tracebacks import CALL

OTHER_GLOBAL_HOOKS = (
    "_global_backward_pre_hooks",
    "_global_backward_hooks",
    "_global_forward_pre_hooks",
)
MAX_CALLS = 8  # of one module in one step; a recurrent cell runs hundreds of times


class ModuleStats:
    """The statistics of one measured step, per module, still on their devices."""

    def __init__(self, see_all: Callable[[list[nn.Module], Tensor], None]) -> None:
        """`see_all` is shown the small outputs of one shape at once: (K, ...)."""
        self._see_all = see_all
        self.training: dict[int, list[list[Any]]] = {}  # id(module) -> one entry a call
        self.evaluation: dict[int, list[list[Any]]] = {}  # of modules in eval mode
        self.modules: dict[int, nn.Module] = {}  # in the order they were first called
        self.skipped = 0  # outputs of a kind that is not measured
        # The newest output: its id and its first tensor, which would hold a whole graph if kept.
        self._last: tuple[int, weakref.ref[Tensor] | None] = (0, None)
        # Small outputs wait, as copies, for others of their shape; the list takes the statistics.
        self._small: dict[Any, tuple[list[Tensor], list[list[Any]], list[nn.Module]]] = {}

    def clear(self) -> None:
        self.__init__(self._see_all)  # type: ignore[misc]

    def add(self, module: nn.Module, output: object) -> list[Any] | None:
        """Measure one output, unless a container hands on what its last child gave; its statistics.

        Reentrant checkpointing runs its first forward without gradients and a second one inside
        backward; the second is measured only where there was no first.
        """
        key = id(module)
        seen, self.modules[key] = key in self.modules, module
        tensor = output if type(output) is Tensor else next(tensors_in(output), None)
        if (module._modules and self._is_last(output, tensor)) or (seen and in_backward()):
            return None
        self._last = id(output), tensor if tensor is None else weakref.ref(tensor)
        calls = (self.training if module.training else self.evaluation).setdefault(key, [])
        if len(calls) >= MAX_CALLS:
            return None
        if tensor is None or not is_measurable(tensor):
            self.skipped += tensor is None or tensor.is_floating_point()
            return None
        small = tensor.numel() <= SMALL
        row = self._later(module, tensor) if small else activation_stats(tensor)
        calls.append(row)
        return row

    def _is_last(self, output: object, tensor: Tensor | None) -> bool:
        """Whether the newest call gave this very output."""
        name, first = self._last
        return name == id(output) and (first() if first is not None else None) is tensor

    def _later(self, module: nn.Module, tensor: Tensor) -> list[Any]:
        """Copy a small output, and give the list that its statistics will be written to."""
        kind = tensor.shape, tensor.dtype, tensor.device
        group = self._small.get(kind)
        if group is None:
            group = self._small[kind] = [], [], []
        row: list[Any] = []
        group[0].append(tensor.clone())
        group[1].append(row)
        group[2].append(module)
        if len(group[0]) * tensor.numel() >= CHUNK:
            self._settle(*self._small.pop(kind))
        return row

    def settle(self) -> None:
        """Measure the small outputs that wait, all of one shape at once."""
        while self._small:
            _, group = self._small.popitem()
            self._settle(*group)

    def _settle(
        self, outputs: list[Tensor], rows: list[list[Any]], modules: list[nn.Module]
    ) -> None:
        stacked = torch.stack(outputs)
        self._see_all(modules, stacked)
        table = batch_stats(stacked)
        found = table.tolist() if table.is_cpu else [row.unbind() for row in table.unbind()]
        for row, numbers in zip(rows, found, strict=True):
            row.extend(numbers)

    def drop(self, rows: list[list[Any]]) -> None:
        """Let go of calls that turned out to be no training."""
        gone = set(map(id, rows))
        for calls in self.training.values():
            calls[:] = [row for row in calls if id(row) not in gone]
        for kind, (outputs, waiting, modules) in list(self._small.items()):
            kept = [i for i, row in enumerate(waiting) if id(row) not in gone]
            if kept:
                self._small[kind] = (
                    [outputs[i] for i in kept],
                    [waiting[i] for i in kept],
                    [modules[i] for i in kept],
                )
            else:
                del self._small[kind]

    def forget(self, key: int) -> None:
        """Let go of a module whose statistics were handed on."""
        for calls in (self.training, self.evaluation, self.modules):
            calls.pop(key, None)

    def calls(self) -> Mapping[int, list[list[Any]]]:
        """Per module the calls in training mode; those in eval mode where there are no others."""
        self.settle()
        return {
            key: self.training.get(key) or self.evaluation[key]
            for key in self.modules
            if self.training.get(key) or self.evaluation.get(key)
        }


class ForwardHook:
    """The global forward hook: on for measured steps, off between them."""

    def __init__(
        self,
        observe: Callable[[nn.Module, Any, Any], None],
        failed: Callable[[nn.Module, FrameType], None],
    ) -> None:
        """`failed` is told of a module that raised, with the frame that called its forward."""
        self._observe = observe
        self._failed = failed
        self._handle: Any = None
        self._fixed = False  # once compiled code has been made with or without the hook
        self._follower: Any = None  # handle of the hook of `follow`
        self.trace: Callable[[nn.Module, Any], None] | None = None  # what compilers take in
        self.recording = False

    def install(self) -> list[Undo]:
        undo = _hide_from_compile_warning(self)
        self.recording = True
        if self._handle is None:  # also where something was compiled before: that is left alone
            self._register()
        return [*undo, self._remove]

    def _remove(self) -> None:
        if self._handle is not None:
            self._handle.remove()
            self._handle = None

    def follow(
        self, wants: Callable[[nn.Module], bool], saw: Callable[[Any, Any, Any], None]
    ) -> list[Undo]:
        """Show `saw` arguments and output of each call of the modules that `wants` names."""

        def nndiag_hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if torch.compiler.is_compiling():  # first: anything else would be traced
                return
            if wants(module):
                saw(args, kwargs, output)

        register = nn.modules.module.register_module_forward_hook
        self._follower = register(leave_to_python(nndiag_hook), with_kwargs=True)
        return [self._unfollow]

    def _unfollow(self) -> None:
        if self._follower is not None:
            self._follower.remove()
            self._follower = None

    def set(self, recording: bool) -> None:
        """Switch measuring on or off. Never called from inside a forward."""
        self.recording = recording
        self._fixed = self._fixed or compiler_has_run()
        if recording == (self._handle is not None) or self._fixed:
            return
        if recording:
            self._register()
        else:
            self._remove()

    def _register(self) -> None:
        register = nn.modules.module.register_module_forward_hook
        self._handle = register(leave_to_python(self._made()), always_call=True)

    def _made(self) -> Callable[[nn.Module, Any, Any], None]:
        observe, failed, state, trace = self._observe, self._failed, self, self.trace

        def nndiag_hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if torch.compiler.is_compiling():  # first: anything else would be traced
                return
            caller = _frame(1)
            if caller.f_code is CALL:  # not from the function within it: forward has raised
                failed(module, caller)
            elif state.recording:
                observe(module, inputs, output)

        if trace is None:
            return nndiag_hook

        def tracing_hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if torch.compiler.is_compiling():
                trace(module, output)
                return
            caller = _frame(1)
            if caller.f_code is CALL:
                failed(module, caller)
            elif state.recording:
                observe(module, inputs, output)

        return tracing_hook

    def stay(self) -> None:
        """Stay on between measured steps, too."""
        self.set(True)
        self._fixed = True

    @property
    def installed(self) -> int:
        """How many hooks of ours there are."""
        return (self._handle is not None) + self.with_kwargs

    @property
    def with_kwargs(self) -> int:
        """How many of them are shown keyword arguments."""
        return int(self._follower is not None)


def compiler_has_run() -> bool:
    """Whether torch.compile has traced anything in this process."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    if dynamo is None:
        return False
    return bool(dynamo.counters.get("frames") or dynamo.counters.get("stats"))  # or fullgraph=True


def should_measure() -> bool:
    """A forward of training: with gradients, and recorded by no tracer."""
    return torch.is_grad_enabled() and not torch._C._get_tracing_state() and not is_captured()


def _hide_from_compile_warning(hook: ForwardHook) -> list[Undo]:
    """Keep torch from warning the user of global hooks that the user did not set.

    `torch.compile(module)` warns of any global hook, because it would run once more for the
    wrapper; ours ignores the wrapper. Under `-W error` the warning would end the training.
    """
    place = nn.modules.module
    name = "_has_any_global_hook"
    original = getattr(place, name, None)
    if original is None:
        return []

    def has_any_global_hook() -> Any:
        if hook.installed and len(place._global_forward_hooks) == hook.installed:
            others = any(getattr(place, name, None) for name in OTHER_GLOBAL_HOOKS)
            return others or len(place._global_forward_hooks_with_kwargs) > hook.with_kwargs
        return original()

    return [replace(place, name, has_any_global_hook)]
