"""A traceback through a module call reads as it does without any forward hook.

Where there is a hook, torch calls `forward` from a function within `Module._call_impl`, and each
module in a traceback has a frame more. Torch calls hooks that ask for it while the exception
passes: that is when the frame is taken out. On Python 3.10 the line of `_call_impl` stays another.
"""

from __future__ import annotations

import dis
import itertools
import sys
from functools import lru_cache
from types import CodeType, FrameType, TracebackType

from torch import nn
from torch.nn.modules import module as place

CALL: CodeType = nn.Module._call_impl.__code__  # the script may replace it
OWN_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
GLOBAL_HOOKS = tuple(f"_global{name}" for name in OWN_HOOKS)


def without_hook_path(module: nn.Module, frame: FrameType) -> None:
    """Take torch's frame for hooks out of the exception that is passing through `frame`.

    `frame`: of `Module._call_impl`, in its `except` clause. Nothing is done where the script has
    hooks of its own: they bring the same frame.
    """
    error = sys.exc_info()[1]
    passing = error.__traceback__ if error is not None else None
    if error is None or passing is None or passing.tb_frame is not frame or _has_others(module):
        return
    inner = passing.tb_next
    if inner is None or inner.tb_next is None or inner.tb_frame.f_code.co_name != "inner":
        return
    plain = _plain_call()
    if plain is None:
        passing.tb_next = inner.tb_next
    else:
        error.__traceback__ = TracebackType(inner.tb_next, frame, *plain)


def _has_others(module: nn.Module) -> bool:
    hooks = [len(getattr(module, name, ())) for name in OWN_HOOKS]
    return sum(hooks) + sum(len(getattr(place, name, ())) for name in GLOBAL_HOOKS) > 1


@lru_cache(maxsize=1)
def _plain_call() -> tuple[int, int] | None:
    """Place of the call of `forward` in a module without hooks: instruction and line."""
    if sys.version_info < (3, 11):  # raises what the `except` clause began with, whatever we set
        return None
    line = 0
    steps = [step for step in dis.get_instructions(CALL) if step.opname != "CACHE"]
    for call, after in itertools.pairwise(steps):
        line = (call.positions and call.positions.lineno) or line
        if call.opname == "CALL_FUNCTION_EX" and after.opname == "RETURN_VALUE":
            return call.offset, line
    return None
