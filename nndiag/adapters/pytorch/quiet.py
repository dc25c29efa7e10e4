"""How we compute inside somebody's training: unseen by autograd, by modes and by compilers.

A statistic that runs under the user's dispatch modes is not neutral: selective activation
checkpointing would cache our operations and give wrong gradients, a FLOP counter would count them.
So every one of ours runs in `unseen()`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

import torch
import torch.utils._python_dispatch as python_dispatch

Function = TypeVar("Function", bound=Callable[..., Any])

# A private name: without it we do not measure under modes.
_disable_current_modes = getattr(python_dispatch, "_disable_current_modes", None)


class unseen:
    """`with unseen() as allowed:` around our own tensor operations.

    `allowed` is False where we must not compute at all. Autocast is off too: it would cast our
    statistics, and keep the casts. So is the `__torch_function__` of the user's own tensors: it is
    asked for each attribute that we read.
    """

    __slots__ = ("_grad", "_own_tensors", "_stack")

    def __enter__(self) -> bool:
        self._grad = torch.is_grad_enabled()
        self._stack: contextlib.ExitStack | None = None
        modes = torch._C._len_torch_dispatch_stack() > 0
        functions = torch._C._len_torch_function_stack() > 0
        allowed = True
        if modes or functions or torch._C._is_any_autocast_enabled():  # seldom: keep it cheap
            allowed = self._set_aside(modes, functions)
        self._own_tensors = torch._C.DisableTorchFunctionSubclass()
        self._own_tensors.__enter__()
        torch._C._set_grad_enabled(False)  # last: `__exit__` does not run if this method raises
        return allowed

    def _set_aside(self, modes: bool, functions: bool) -> bool:
        """Switch the user's modes off until `__exit__`; False if we cannot."""
        if modes and _disable_current_modes is None:
            return False
        with contextlib.ExitStack() as stack:
            if modes and _disable_current_modes is not None:
                stack.enter_context(_disable_current_modes())
            if functions:
                stack.enter_context(torch._C.DisableTorchFunction())
            stack.enter_context(torch._C._DisableAutocast())
            self._stack = stack.pop_all()
        return True

    def __exit__(self, *error: object) -> None:
        torch._C._set_grad_enabled(self._grad)
        self._own_tensors.__exit__(None, None, None)
        if self._stack is not None:
            self._stack.close()


def leave_to_python(function: Function) -> Function:
    """Have torch.compile run `function`, and all that it calls, as they are.

    Inside a compiled region that fell back to Python, torch tries to compile each function that is
    called, ours too: graphs, warnings and even endless recursion would be the user's.
    """
    frames: Any = getattr(torch._C._dynamo, "eval_frame", None)
    if hasattr(frames, "set_code_exec_strategy"):  # private; torch >= 2.7
        skip = frames._FrameAction.SKIP
        strategy = frames._FrameExecStrategy(skip, skip)  # itself, and what it calls
        frames.set_code_exec_strategy(function.__code__, strategy)
    return function


def is_captured() -> bool:
    """Whether a CUDA graph records what runs now: reading a number would spoil the user's graph."""
    initialized = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    return bool(initialized and torch.cuda.is_current_stream_capturing())


def in_backward() -> bool:
    """Whether autograd is running: a forward seen now is a recomputation (checkpointing)."""
    return bool(torch._C._current_graph_task_id() != -1)


def saved_tensor_hooks_are_active() -> bool:
    """Whether saved tensors are packed now, so that reading one later would recompute a forward."""
    return torch._C._autograd._top_saved_tensors_default_hooks(True) is not None
