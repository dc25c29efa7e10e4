"""The PyTorch adapter: puts the hooks together and tells the sink what each step showed.

The order of a step: forward hooks (measured steps only) -> backward tap -> clip tap -> optimizer
pre-hook -> the step itself -> optimizer post-hook, which writes. Every entry is guarded: a fault of
ours is noted and ends our observation, never the training.
"""

from __future__ import annotations

import gc
import math
from collections.abc import Callable, Iterable
from time import perf_counter as _clock  # bound here: a script may patch time
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import optimizer as torch_optimizer

from nndiag.adapters.base import NAN, Sink
from nndiag.adapters.pytorch.autograd_graph import ModuleCall
from nndiag.adapters.pytorch.captures import Captures
from nndiag.adapters.pytorch.compiled import regions_for
from nndiag.adapters.pytorch.loss_taps import Scalar, Start, tap_constructor
from nndiag.adapters.pytorch.module_hooks import compiler_has_run, should_measure
from nndiag.adapters.pytorch.optimizer_hooks import Measured, StepObserver, learning_rates
from nndiag.adapters.pytorch.origins import Origins
from nndiag.adapters.pytorch.parts import Guard, Parts, Schedule
from nndiag.adapters.pytorch.quiet import (
    in_backward,
    is_captured,
    leave_to_python,
    saved_tensor_hooks_are_active,
    unseen,
)
from nndiag.adapters.pytorch.replaced import Undo
from nndiag.adapters.pytorch.step_closing import StepCloser
from nndiag.adapters.pytorch.tensor_stats import tensors_in
from nndiag.adapters.pytorch.unhooked_steps import UnhookedSteps


class TorchAdapter:
    """Observes every optimizer and model of this process."""

    def __init__(
        self,
        sink: Sink,
        schedule: Schedule,
        guard: Guard,
        max_steps: int | None,
        compiled: str = "hidden",
        *,
        keeps_batches: bool = False,
    ) -> None:
        self._parts = parts = Parts(sink, schedule, guard, self._on_forward)
        self.captures = Captures(parts) if keeps_batches else None
        self._closer = StepCloser(parts)
        self._unhooked = UnhookedSteps(parts, self._closer, self._entry, max_steps)
        self._compiled = regions_for(compiled, parts.discovery, lambda: self._unhooked.any_steps)
        self._origins = Origins(sink, parts.discovery)
        self._max_steps = max_steps
        self._done: dict[int, int] = {}  # id(optimizer) -> steps, also when we observe no more
        self._undo: list[Undo] = []
        self._off = False

    # -- putting on and taking off

    def attach(self) -> None:
        guard = self._entry
        parts, thread = self._parts, self._parts.thread
        before = thread.only(guard(self._before_step), thread.leaves_out_step)
        after = thread.only(guard(self._after_step))
        self._undo += parts.discovery.install(guard)
        self._compiled.attach(parts.forward, guard)
        self._undo += parts.forward.install()
        self._undo += parts.taps.install(
            thread.only(guard(self._on_backward), thread.leaves_out_backward),
            thread.only(guard(self._on_clip)),
            thread.only(guard(self._on_scaler_update)),
        )
        if self.captures is not None:
            saw = thread.only(guard(self.captures.saw_call))
            self._undo += parts.forward.follow(self.captures.follows, saw)
        self._undo += tap_constructor(torch_optimizer.Optimizer, guard(self._unhooked.made))
        self._undo += [
            torch_optimizer.register_optimizer_step_pre_hook(before).remove,
            torch_optimizer.register_optimizer_step_post_hook(after).remove,
        ]
        if self._max_steps is not None:
            torch_optimizer.register_optimizer_step_post_hook(self._stop_when_done)

    def adopt(self, models: Iterable[Any] = ()) -> None:
        """Learn the names of models made before; without `models`, of all that there are."""
        roots = list(models) or [o for o in gc.get_objects() if issubclass(type(o), nn.Module)]
        self._parts.discovery.adopt(module for root in roots for module in root.modules())

    def detach(self) -> None:
        """Take everything off again. Not from inside a hook: torch cannot lose one there."""
        self.switch_off()
        while self._undo:
            self._undo.pop()()

    def _entry(self, function: Callable[..., None]) -> Callable[..., None]:
        """What the hooks call: guarded, and nothing at all where a compiler would take it in."""
        guarded = self._parts.guard(function)

        def entry(*args: Any, **kwargs: Any) -> None:
            if not torch.compiler.is_compiling():  # first: anything else would be traced
                guarded(*args, **kwargs)

        return leave_to_python(entry)

    def exempt(self, function: Callable[..., Any], /) -> Callable[..., Any]:
        return leave_to_python(function)

    def switch_off(self) -> None:
        """End the observation; handles stay, since torch cannot lose a hook while it runs them."""
        self._off = True
        self._parts.forward.recording = False
        self._parts.clear()
        self._compiled.stop()

    def settle(self) -> None:
        self._parts.transfer.drain(wait=True)
        if self._parts.observers:
            self._parts.tell_structure()

    def finish(self) -> None:
        with unseen():
            self._unhooked.close(final=True)
        self.settle()
        if self._parts.observers and compiler_has_run():
            self._parts.sink.note(self._compiled.summary())
        if self._parts.observers and self.captures is not None:
            with unseen():
                self.captures.end()

    # -- forward and backward

    def _on_forward(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._off or not should_measure():
            return
        with unseen() as allowed:
            if not allowed:
                return
            if self._unhooked.asks:
                self._unhooked.close()  # before anything of the next step is measured
            row = self._parts.stats.add(module, output)
            if in_backward():
                return
            self._parts.facts.saw_call(module, inputs, output)
            if module.training:
                is_root = not self._parts.discovery.has_parent(module)
                self._parts.passes.note(module, output, row, is_root=is_root)
            if not self._parts.walks:
                self._parts.outputs.see(module, output)
            elif not module._modules:
                call = ModuleCall(module, packed=saved_tensor_hooks_are_active())
                self._parts.graph.note(call, tensors_in(inputs), tensors_in(output))

    def _on_backward(self, place: Any) -> None:
        if self._off or in_backward() or is_captured():
            return
        with unseen():
            start = Start.seen_in(place)
        if start is None:
            return
        if not self._still_chosen():
            return
        with unseen() as allowed:
            if not allowed:
                return
            if self._unhooked:
                self._unhooked.close()
            call = self._parts.taps.saw_backward(start)
            if call is None:
                return
            self._unhooked.expect(start)
            recording = self._parts.forward.recording
            self._compiled.before_backward(
                self._parts.stats, recording=recording, unhooked=bool(self._unhooked)
            )
            if recording:
                self._parts.passes.saw_backward(start.losses)
            self._closer.backward_s = self._closer.backward_s or _clock()
            self._parts.facts.saw_backward(
                start, self._parts.forward.recording, self._parts.graph.outputs
            )
            if self.captures is not None:
                self.captures.saw_backward(start.losses, call.value)
            if self._is_bad(call.value) and self._look_closer():
                self._origins.of_loss(start.losses, float(call.value), self._parts.observers.steps)
            if self._parts.forward.recording and self._parts.walks:
                for activation in self._parts.graph.activations(start.losses):
                    self._parts.outputs.learn(activation)
                    self._parts.units.see(activation)

    def _on_clip(self, *args: Any, **kwargs: Any) -> None:
        if self._off or is_captured():
            return
        with unseen():
            self._parts.taps.saw_clip(*args, **kwargs)
            clipped = args[0] if args else kwargs.get("parameters")
            if self._parts.taps.clips and self._is_bad(self._parts.taps.clips[-1].norm):
                parameters = [clipped] if isinstance(clipped, Tensor) else clipped
                if isinstance(parameters, list | tuple):  # an iterator is the script's to consume
                    self._explain_gradients(list(parameters))

    def _on_scaler_update(self, scaler: Any) -> None:
        """The scaler ends a step. Backward calls that are left belong to one that it skipped."""
        if self._off or not self._parts.taps.calls or is_captured():
            return
        with unseen():
            self._unhooked.close()
            if self._parts.taps.calls:
                owners = (o.owner for o, _ in self._parts.observers.alive())
                self._parts.facts.skipped(self._parts.observers.steps, owners)
            self._parts.taps.clear()

    def _explain_gradients(self, parameters: list[Tensor]) -> None:
        losses = [float(call.value) for call in self._parts.taps.backwards]
        all_finite = bool(losses) and all(map(math.isfinite, losses))
        # A gradient scaler is there to overflow, and to skip those steps.
        if all_finite and not self._parts.taps.scale() and self._look_closer():
            self._origins.of_gradients(parameters, self._parts.observers.steps)

    def _look_closer(self) -> bool:
        """Whether an origin is still wanted; then the next step is measured and names are known."""
        if self._origins.wanted:
            self._parts.schedule.force()
            self._parts.learn_names()
        return self._origins.wanted

    def _is_bad(self, value: Scalar) -> bool:
        """NaN or infinite. A GPU is asked only once something that arrived from it was bad."""
        asked = self._closer.suspicious and self._origins.wanted
        if isinstance(value, Tensor) and value.device.type != "cpu" and not asked:
            return False
        return not math.isfinite(float(value)) and value is not NAN

    # -- the optimizer's step

    def _still_chosen(self) -> bool:
        """Whether this is still the chosen thread. If it was chosen just now, begin anew."""
        thread = self._parts.thread
        if thread.is_other():
            return False
        if thread.changed:
            self._parts.clear()
            self._parts.taps.clear()
            self._closer.forget()
        if thread.changed or thread.news:
            thread.changed, news, thread.news = False, thread.news, []
            for text in news:
                self._parts.sink.note(text)
        return True

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self._off or is_captured():
            return
        if not self._still_chosen():
            return
        self._unhooked.hooked(optimizer)
        if in_backward():
            with unseen():
                self._unhooked.join(optimizer)
            return
        observer = self._parts.observer_of(optimizer)
        if observer is None:
            return
        with unseen():
            observer.learning_rates_of_step = learning_rates(optimizer)
            observer.calls_before_step = len(self._parts.taps.calls)
            parameters = observer.parameters(optimizer)
            measured = Measured()
            if not _has_closure(args, kwargs):
                measured = self._measure(observer, optimizer, parameters)
                if self._is_bad(measured.grad_norm):
                    self._explain_gradients(parameters)
                self._parts.facts.before_step(observer)
            if observer.due or observer.follows_update:
                measured.before = observer.remember(parameters)
            observer.measured = measured

    def _measure(
        self, observer: StepObserver, optimizer: Any, parameters: list[Tensor]
    ) -> Measured:
        scale = getattr(optimizer, "grad_scale", None)  # fused steps unscale by themselves
        unscale = 1.0 if scale is None else scale
        told = self._closer.clips_of(parameters)  # clipping has computed the norm
        total = observer.norm_due and not told
        return observer.gradients(parameters, each=observer.due, total=total, unscale=unscale)

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self._off or is_captured() or in_backward():
            return
        observer = self._parts.observer_of(optimizer)
        if observer is None or observer.learning_rates_of_step is None:
            return
        with unseen():
            parameters = observer.parameters(optimizer)
            measured, observer.measured = observer.measured, Measured()
            calls = self._parts.taps.calls
            if _has_closure(args, kwargs):  # backward and clipping ran inside the step
                self._parts.facts.before_step(observer)
                before = measured.before
                measured = self._measure(observer, optimizer, parameters)
                measured.before = before
                before_step = observer.calls_before_step  # accumulated by closures called as such
                if len(calls) > before_step + 1:  # LBFGS tries several points
                    calls = calls[: before_step + 1]  # the first is where it stood
                    observer.forget_update()
                    measured.cosine = None
            self._closer.close(observer, parameters, measured, calls)
            self._parts.facts.after_step(observer, parameters)
            self._compiled.after_step(recording=self._parts.forward.recording)
            if self.captures is not None:
                self.captures.end_step()

    def _stop_when_done(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """End the script after `--max-steps`; not guarded, since ending it is the wish."""
        if torch.compiler.is_compiling():
            return
        if in_backward():  # the others of this step have not stepped yet
            return
        key = id(optimizer)
        self._done[key] = self._done.get(key, 0) + 1
        if self._max_steps is not None and self._done[key] >= self._max_steps:
            raise SystemExit(0)


def _has_closure(args: Any, kwargs: Any) -> bool:
    """Whether `step` was called with a closure; `args[0]` is the optimizer itself."""
    return (len(args) > 1 and callable(args[1])) or callable(kwargs.get("closure"))
