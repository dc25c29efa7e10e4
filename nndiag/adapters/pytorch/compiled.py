"""What is done about regions that torch.compile has compiled: `--compiled hidden|eager|traced`.

By default nothing: hooks inside of them are not called, and the report says so. With `eager` the
measured steps run uncompiled, so that our hooks see all. With `traced` statistics are compiled into
the graphs, see `traced_hooks`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from nndiag.adapters.pytorch.discovery import Discovery
from nndiag.adapters.pytorch.module_hooks import ForwardHook, ModuleStats, compiler_has_run
from nndiag.adapters.pytorch.traced_hooks import TracedSums, trace
from nndiag.adapters.pytorch.unseen_steps import compiled_autograd_is_on

HIDDEN = (
    "torch.compile: what happens inside compiled regions was not observed; gradients, parameters "
    "and the loss were. To see the layers: nndiag watch --compiled eager, or --compiled traced; "
    "both change the last bits of the results"
)
Entry = Callable[[Callable[..., None]], Callable[..., None]]
UNHOOKED = "a compiled optimizer tells of its steps too late"


class CompiledRegions:
    """By default: they stay hidden."""

    def attach(self, forward: ForwardHook, entry: Entry) -> None:
        """Before the script has made anything. `entry` makes a callback of ours safe."""

    def after_step(self, *, recording: bool) -> None:
        """A step has ended that hooks told of. `recording`: whether the next one is measured."""

    def before_backward(self, stats: ModuleStats, *, recording: bool, unhooked: bool) -> None:
        """A backward call begins. `unhooked`: there are steps that hooks do not tell of."""

    def stop(self) -> None:
        """The observation ends."""

    def summary(self) -> str:
        """What the run's notes say at the end."""
        return HIDDEN


class EagerSteps(CompiledRegions):
    """Measured steps run as if torch.compile were not there, from one step's end to the next's.

    From the first step on that was compiled, so that nothing is compiled later than without us.
    What is compiled stays: it is only passed by.
    """

    def __init__(self, has_unhooked_steps: Callable[[], bool]) -> None:
        self._has_unhooked_steps = has_unhooked_steps
        self._ours: Any = None  # the stance that we have set, while it lasts
        self._before: Any = None
        self._has_compiled = False
        self._steps = 0
        self._reasons: set[str] = set()  # why a measured step was not

    def attach(self, forward: ForwardHook, entry: Entry) -> None:
        forward.stay()

    def after_step(self, *, recording: bool) -> None:
        self._steps += self._ours is not None
        self.stop()
        self._has_compiled = self._has_compiled or compiler_has_run()
        if not (recording and self._has_compiled):
            return
        reason = self._obstacle()
        if reason:
            self._reasons.add(reason)
            return
        stance = torch.compiler.set_stance("force_eager")
        self._ours, self._before = stance.stance, stance

    def before_backward(self, stats: ModuleStats, *, recording: bool, unhooked: bool) -> None:
        if recording and unhooked and self._has_unhooked_steps():
            self._reasons.add(UNHOOKED)

    def _obstacle(self) -> str:
        """Why the next step cannot be run uncompiled; empty if it can."""
        if not hasattr(torch.compiler, "set_stance"):
            return "torch 2.6 or newer is needed"
        if self._has_unhooked_steps():
            return UNHOOKED
        if compiled_autograd_is_on() or _config("compiled_autograd"):
            return "the backward pass is compiled, too"
        stance = _stance()
        if stance is None or stance.stance != "default" or stance.backend is not None:
            return "the script has set a stance of its own"
        if _inside_compiled_region():
            return "the optimizer's step is part of a compiled region"
        return ""

    def stop(self) -> None:
        """Back to compiled code, unless the script has changed the stance since."""
        if self._ours is not None and _stance() is self._ours and not _inside_compiled_region():
            self._before.__exit__(None, None, None)
            self._ours = self._before = None

    def summary(self) -> str:
        missed = f"; not those where {', '.join(sorted(self._reasons))}" if self._reasons else ""
        return (
            f"torch.compile: {self._steps} measured steps ran uncompiled (--compiled eager){missed}"
            ": their results differ in the last bits, and random numbers from then on; in other "
            "steps compiled regions were not observed"
        )


class TracedSteps(CompiledRegions):
    """Statistics are compiled into the graphs."""

    def __init__(self, discovery: Discovery) -> None:
        self._sums = TracedSums(discovery.all_modules)

    def attach(self, forward: ForwardHook, entry: Entry) -> None:
        self._sums.install()
        forward.trace = trace
        forward.stay()
        nn.modules.module.register_module_module_registration_hook(entry(self._registered))

    def _registered(self, parent: nn.Module, name: str, child: Any) -> None:
        """A model is being compiled: with sums it can share the graph of one of its kind."""
        if type(parent).__name__ == "OptimizedModule" and isinstance(child, nn.Module):
            self._sums.give(child.modules())

    def after_step(self, *, recording: bool) -> None:
        if recording:
            self._sums.zero()

    def before_backward(self, stats: ModuleStats, *, recording: bool, unhooked: bool) -> None:
        if recording:
            self._sums.take(stats)
        elif unhooked:  # whether its step is measured turns out when the next forward is over
            self._sums.zero()

    def summary(self) -> str:
        missed = f"; not seen: {', '.join(sorted(self._sums.hidden))}" if self._sums.hidden else ""
        if not self._sums.traced:
            return f"torch.compile: no statistics could be traced (--compiled traced){missed}"
        return (
            "torch.compile: statistics of layers were compiled into the graphs (--compiled traced)"
            f"{missed}; this changes the last bits of the results. Dead and saturated units are "
            "not counted inside compiled regions"
        )


def _stance() -> Any:
    from torch._dynamo import eval_frame

    return getattr(eval_frame, "_stance", None)


def _config(name: str) -> bool:
    from torch._dynamo import config

    return bool(getattr(config, name, False))


def _inside_compiled_region() -> bool:
    """Whether the frame that called us was reached from code under torch.compile."""
    current = getattr(torch._C._dynamo.eval_frame, "get_eval_frame_callback", None)
    return current is not None and current() not in (None, False)


def regions_for(
    option: str, discovery: Discovery, has_unhooked_steps: Callable[[], bool]
) -> CompiledRegions:
    """What `--compiled OPTION` asks for."""
    if option == "eager":
        return EagerSteps(has_unhooked_steps)
    if option == "traced":
        return TracedSteps(discovery)
    return CompiledRegions()
