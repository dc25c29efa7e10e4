"""Statistics of what modules put out, taken in the forward pass of measured steps only.

One global hook, no hook on any module: saving, copying and pickling a model give what they gave
before. Between measured steps the hook is taken off, so that a module call costs what it always
did and a traceback holds what it always held. Once torch.compile has traced something it stays as
it is, since a change would make the compiler start again.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from nndiag.adapters.pytorch.quiet import in_backward, is_captured, leave_to_python
from nndiag.adapters.pytorch.tensor_stats import activation_stats, is_measurable, tensors_in

OTHER_GLOBAL_HOOKS = (
    "_global_backward_pre_hooks",
    "_global_backward_hooks",
    "_global_forward_pre_hooks",
    "_global_forward_hooks_always_called",
    "_global_forward_hooks_with_kwargs",
)
MAX_CALLS = 8  # of one module in one step; a recurrent cell runs hundreds of times


class ModuleStats:
    """The statistics of one measured step, per module, still on their devices."""

    def __init__(self) -> None:
        self.training: dict[int, list[list[Any]]] = {}  # id(module) -> one entry a call
        self.evaluation: dict[int, list[list[Any]]] = {}  # of modules in eval mode
        self.modules: dict[int, nn.Module] = {}  # in the order they were first called
        self.skipped = 0  # outputs of a kind that is not measured
        self._last: Any = None

    def clear(self) -> None:
        self.__init__()  # type: ignore[misc]

    def add(self, module: nn.Module, output: object) -> None:
        """Measure one output, unless a container hands on what its last child gave.

        Reentrant checkpointing runs its first forward without gradients and a second one inside
        backward; the second is measured only where there was no first.
        """
        key = id(module)
        seen, self.modules[key] = key in self.modules, module
        if (module._modules and output is self._last) or (seen and in_backward()):
            return
        self._last = output
        calls = (self.training if module.training else self.evaluation).setdefault(key, [])
        if len(calls) >= MAX_CALLS:
            return
        tensor = next(tensors_in(output), None)
        if tensor is None or not is_measurable(tensor):
            self.skipped += tensor is None or tensor.is_floating_point()
            return
        calls.append(activation_stats(tensor))

    def forget(self, key: int) -> None:
        """Let go of a module whose statistics were handed on."""
        for calls in (self.training, self.evaluation, self.modules):
            calls.pop(key, None)

    def calls(self) -> Mapping[int, list[list[Any]]]:
        """Per module the calls in training mode; those in eval mode where there are no others."""
        return {
            key: self.training.get(key) or self.evaluation[key]
            for key in self.modules
            if self.training.get(key) or self.evaluation.get(key)
        }


class ForwardHook:
    """The global forward hook: on for measured steps, off between them."""

    def __init__(self, observe: Callable[[nn.Module, Any, Any], None]) -> None:
        self._observe = observe
        self._handle: Any = None
        self._fixed = False  # once compiled code has been made with or without the hook
        self.recording = False

    def install(self) -> None:
        _hide_from_compile_warning(self)
        self.set(True)

    def set(self, recording: bool) -> None:
        """Switch measuring on or off. Never called from inside a forward."""
        self.recording = recording
        self._fixed = self._fixed or compiler_has_run()
        if recording == (self._handle is not None) or self._fixed:
            return
        if recording:
            observe, state = self._observe, self

            def nndiag_hook(module: nn.Module, inputs: Any, output: Any) -> None:
                if torch.compiler.is_compiling():  # first: anything else would be traced
                    return
                if state.recording:
                    observe(module, inputs, output)

            register = nn.modules.module.register_module_forward_hook
            self._handle = register(leave_to_python(nndiag_hook))
        else:
            self._handle.remove()
            self._handle = None

    @property
    def installed(self) -> bool:
        return self._handle is not None


def compiler_has_run() -> bool:
    """Whether torch.compile has traced anything in this process."""
    dynamo = sys.modules.get("torch._dynamo.utils")
    return dynamo is not None and bool(dynamo.counters.get("frames"))


def should_measure() -> bool:
    """A forward of training: with gradients, and recorded by no tracer."""
    return torch.is_grad_enabled() and not torch._C._get_tracing_state() and not is_captured()


def _hide_from_compile_warning(hook: ForwardHook) -> None:
    """Keep torch from warning the user of global hooks that the user did not set.

    `torch.compile(module)` warns of any global hook, because it would run once more for the
    wrapper; ours ignores the wrapper. Under `-W error` the warning would end the training.
    """
    place = nn.modules.module
    original = getattr(place, "_has_any_global_hook", None)
    if original is None:
        return

    def has_any_global_hook() -> Any:
        if hook.installed and len(place._global_forward_hooks) == 1:
            return any(getattr(place, name, None) for name in OTHER_GLOBAL_HOOKS)
        return original()

    place._has_any_global_hook = has_any_global_hook
