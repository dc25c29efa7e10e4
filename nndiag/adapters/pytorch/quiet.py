"""How we compute inside somebody's training: unseen by autograd, by modes and by compilers.

A statistic that runs under the user's dispatch modes is not neutral: selective activation
checkpointing would cache our operations and give wrong gradients, a FLOP counter would count them.
So every one of ours runs in `unseen()`.
"""

from __future__ import annotations

import contextlib

import torch
import torch.utils._python_dispatch as python_dispatch

# A private name: without it we do not measure under modes.
_disable_current_modes = getattr(python_dispatch, "_disable_current_modes", None)


class unseen:
    """`with unseen() as allowed:` around our own tensor operations.

    `allowed` is False where we must not compute at all. Autocast is off too: it would cast our
    statistics, and keep the casts.
    """

    __slots__ = ("_grad", "_stack")

    def __enter__(self) -> bool:
        self._grad = torch.is_grad_enabled()
        self._stack: contextlib.ExitStack | None = None
        torch._C._set_grad_enabled(False)
        modes = torch._C._len_torch_dispatch_stack() > 0
        functions = torch._C._len_torch_function_stack() > 0
        if modes or functions or torch._C._is_any_autocast_enabled():  # seldom: keep it cheap
            if modes and _disable_current_modes is None:
                return False
            self._stack = contextlib.ExitStack()
            if modes and _disable_current_modes is not None:
                self._stack.enter_context(_disable_current_modes())
            if functions:
                self._stack.enter_context(torch._C.DisableTorchFunction())
            self._stack.enter_context(torch._C._DisableAutocast())
        return True

    def __exit__(self, *error: object) -> None:
        if self._stack is not None:
            self._stack.close()
        torch._C._set_grad_enabled(self._grad)


def in_backward() -> bool:
    """Whether autograd is running: a forward seen now is a recomputation (checkpointing)."""
    return bool(torch._C._current_graph_task_id() != -1)


def saved_tensor_hooks_are_active() -> bool:
    """Whether saved tensors are packed now, so that reading one later would recompute a forward."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
