"""The PyTorch adapter: puts the hooks together and tells the sink what each step showed.

The order of a step: forward hooks (measured steps only) -> backward tap -> clip tap -> optimizer
pre-hook -> the step itself -> optimizer post-hook, which writes. Every entry is guarded: a fault of
ours is noted and ends our observation, never the training.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor, nn
from torch.optim import optimizer as torch_optimizer

from nndiag.adapters.base import NAN, Sink, StepRow
from nndiag.adapters.pytorch.autograd_graph import ForwardMap, ModuleCall
from nndiag.adapters.pytorch.discovery import Discovery
from nndiag.adapters.pytorch.layer_row import LayerRow
from nndiag.adapters.pytorch.loss_taps import Backward, Clip, LossTaps, Scalar
from nndiag.adapters.pytorch.module_hooks import (
    ForwardHook,
    ModuleStats,
    compiler_has_run,
    should_measure,
)
from nndiag.adapters.pytorch.observers import Observers
from nndiag.adapters.pytorch.optimizer_hooks import Measured, StepObserver, global_norm
from nndiag.adapters.pytorch.origins import Origins
from nndiag.adapters.pytorch.quiet import (
    in_backward,
    is_captured,
    leave_to_python,
    saved_tensor_hooks_are_active,
    unseen,
)
from nndiag.adapters.pytorch.structure import Register
from nndiag.adapters.pytorch.tensor_stats import is_measurable, tensors_in
from nndiag.adapters.pytorch.transfer import Transfer
from nndiag.adapters.pytorch.unit_activity import UnitActivity


class Schedule(Protocol):
    """Which steps get layer statistics."""

    def wants(self, step: int, last: int, *, cost_s: float, elapsed_s: float) -> bool: ...
    def wants_update(self, step: int, last: int, *, cost_s: float) -> bool: ...
    def force(self, steps: int = 1) -> None: ...


class Guard(Protocol):
    """Runs our code inside the training: catches what it raises, and knows what it cost."""

    cost_s: float

    @property
    def elapsed_s(self) -> float: ...
    def __call__(self, function: Callable[..., None], /) -> Callable[..., None]: ...


class TorchAdapter:
    """Observes every optimizer and model of this process."""

    def __init__(self, sink: Sink, schedule: Schedule, guard: Guard, max_steps: int | None) -> None:
        self._sink = sink
        self._schedule = schedule
        self._guard = guard
        self._max_steps = max_steps
        self._taps = LossTaps()
        self._discovery = Discovery()
        self._stats = ModuleStats()
        self._graph = ForwardMap()
        self._units = UnitActivity()
        self._transfer = Transfer()
        self._register = Register()
        self._forward = ForwardHook(guard(self._on_forward))
        self._observers = Observers(self._discovery, sink.note)
        self._origins = Origins(sink, self._discovery)
        self._calls: list[Backward] = []  # of the last step, for optimizers that share a loss
        self._clips: list[Clip] = []
        self._done: dict[int, int] = {}  # id(optimizer) -> steps, also when we observe no more
        self._suspicious = False  # a row that arrived was not finite: look closer from now on
        self._cost_told_s = 0.0
        self._off = False

    # -- putting on and taking off

    def attach(self) -> None:
        guard = self._entry
        self._discovery.install(guard)
        self._forward.install()
        self._taps.install(guard(self._on_backward), guard(self._on_clip))
        torch_optimizer.register_optimizer_step_pre_hook(guard(self._before_step))
        torch_optimizer.register_optimizer_step_post_hook(guard(self._after_step))
        if self._max_steps is not None:
            torch_optimizer.register_optimizer_step_post_hook(self._stop_when_done)

    def _entry(self, function: Callable[..., None]) -> Callable[..., None]:
        """What the hooks call: guarded, and nothing at all where a compiler would take it in."""
        guarded = self._guard(function)

        def entry(*args: Any, **kwargs: Any) -> None:
            if not torch.compiler.is_compiling():  # first: anything else would be traced
                guarded(*args, **kwargs)

        return leave_to_python(entry)

    def exempt(self, function: Callable[..., Any], /) -> Callable[..., Any]:
        return leave_to_python(function)

    def switch_off(self) -> None:
        """End the observation; handles stay, since torch cannot lose a hook while it runs them."""
        self._off = True
        self._forward.recording = False
        self._graph.clear()
        self._stats.clear()

    def finish(self) -> None:
        self._transfer.drain(wait=True)
        if self._observers:
            self._tell_structure()
            if compiler_has_run():
                self._sink.note(
                    "torch.compile: what happens inside compiled regions was not observed; "
                    "gradients, parameters and the loss were"
                )

    # -- forward and backward

    def _on_forward(self, module: nn.Module, inputs: Any, output: Any) -> None:
        if self._off or not should_measure():
            return
        with unseen() as allowed:
            if not allowed:
                return
            self._stats.add(module, output)
            if not module._modules and not in_backward():
                call = ModuleCall(module, packed=saved_tensor_hooks_are_active())
                self._graph.note(call, tensors_in(inputs), tensors_in(output))

    def _on_backward(self, loss: Tensor) -> None:
        if self._off or in_backward() or is_captured():
            return
        if not is_measurable(loss) or loss.numel() != 1 or loss.grad_fn is None:
            return
        with unseen() as allowed:
            if not allowed:
                return
            call = self._taps.saw_backward(loss)
            if self._is_bad(call.value) and self._look_closer():
                self._origins.of_loss(loss, float(call.value), self._observers.steps)
            if self._forward.recording:
                for activation in self._graph.activations(loss):
                    self._units.see(activation)

    def _on_clip(self, *args: Any, **kwargs: Any) -> None:
        if self._off or is_captured():
            return
        with unseen():
            self._taps.saw_clip(*args, **kwargs)
            clipped = args[0] if args else kwargs.get("parameters")
            if self._taps.clips and self._is_bad(self._taps.clips[-1].norm):
                parameters = [clipped] if isinstance(clipped, Tensor) else clipped
                if isinstance(parameters, list | tuple):  # an iterator is the script's to consume
                    self._explain_gradients(list(parameters))

    def _explain_gradients(self, parameters: list[Tensor]) -> None:
        losses = [float(call.value) for call in self._taps.backwards]
        all_finite = bool(losses) and all(map(math.isfinite, losses))
        # A gradient scaler is there to overflow, and to skip those steps.
        if all_finite and not self._taps.scale() and self._look_closer():
            self._origins.of_gradients(parameters, self._observers.steps)

    def _look_closer(self) -> bool:
        """Whether an origin is still wanted; then the next step is measured and names are known."""
        if self._origins.wanted:
            self._schedule.force()
            self._learn()
        return self._origins.wanted

    def _is_bad(self, value: Scalar) -> bool:
        """NaN or infinite. A GPU is asked only once something that arrived from it was bad."""
        asked = self._suspicious and self._origins.wanted
        if isinstance(value, Tensor) and value.device.type != "cpu" and not asked:
            return False
        return not math.isfinite(float(value)) and value is not NAN

    # -- the optimizer's step

    def _before_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self._off or is_captured():
            return
        observer = self._observers.of(optimizer, self._stats.modules.values())
        if observer is None:
            return
        with unseen():
            observer.learning_rates_of_step = observer.learning_rates(optimizer)
            parameters = observer.parameters(optimizer)
            measured = Measured()
            if not _has_closure(args, kwargs):
                measured = self._measure(observer, optimizer, parameters)
                if self._is_bad(measured.grad_norm):
                    self._explain_gradients(parameters)
            if observer.due or observer.follows_update:
                measured.before = observer.remember(parameters)
            observer.measured = measured

    def _measure(
        self, observer: StepObserver, optimizer: Any, parameters: list[Tensor]
    ) -> Measured:
        scale = getattr(optimizer, "grad_scale", None)  # fused steps unscale by themselves
        unscale = 1.0 if scale is None else scale
        total = not self._clips_of(parameters)  # clipping has told the norm already
        return observer.gradients(parameters, each=observer.due, total=total, unscale=unscale)

    def _after_step(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        if self._off or is_captured():
            return
        observer = self._observers.of(optimizer, self._stats.modules.values())
        if observer is None or observer.learning_rates_of_step is None:
            return
        with unseen():
            parameters = observer.parameters(optimizer)
            measured, observer.measured = observer.measured, Measured()
            calls = self._taps.backwards
            if _has_closure(args, kwargs):  # backward and clipping ran inside the step
                before = measured.before
                measured = self._measure(observer, optimizer, parameters)
                measured.before = before
                if len(calls) > 1:  # LBFGS tries several points: the first is where it stood
                    calls = calls[:1]
                    observer.forget_update()
            self._close_step(observer, parameters, measured, calls)

    def _clips_of(self, parameters: list[Tensor]) -> list[Clip]:
        """The clipping calls that touched these parameters; of repeated ones the first.

        Without a new backward call this is another optimizer's step on the same gradients.
        """
        calls = self._taps.clips if self._taps.backwards else [*self._clips, *self._taps.clips]
        found: list[Clip] = []
        for call in calls:
            if any(map(call.covers, parameters)) and not any(map(call.overlaps, found)):
                found.append(call)
        return found

    def _close_step(
        self,
        observer: StepObserver,
        parameters: list[Tensor],
        measured: Measured,
        calls: list[Backward],
    ) -> None:
        """Write the row of this step, and its layers if it was a measured one."""
        clips = self._clips_of(parameters)
        if calls:
            self._calls, self._clips = calls, self._taps.clips
        else:  # a second optimizer that steps on the same loss
            calls = self._calls
            self._clips += self._taps.clips
        self._taps.backwards, self._taps.clips = [], []
        now = time.perf_counter()
        row: dict[str, Scalar] = {
            "loss": self._taps.loss_of(calls, observer.index) if calls else NAN,
            "grad_norm": measured.grad_norm,
            "clip_threshold": NAN,
            "loss_scale": self._taps.scale() or NAN,
            "step_time_s": NAN if observer.last_end_s is None else now - observer.last_end_s,
            "nndiag_time_s": self._guard.cost_s - self._cost_told_s,
            "update_gradient_cosine": observer.cosine_with_last_update(parameters),
            "update_ratio": NAN,
        }
        if clips:
            row["clip_threshold"], row["grad_norm"] = self._taps.clip_of(clips)
        sizes: list[Tensor] = []
        moves: list[Tensor] = []
        if measured.before:
            sizes, moves = observer.updates(parameters, measured.before)
            row["update_ratio"] = global_norm(moves) / global_norm(sizes)
        if observer.due:
            self._send_layers(observer, parameters, measured, (sizes, moves), clips)
        self._cost_told_s = self._guard.cost_s
        self._send_row(observer, row, len(calls))
        observer.steps += 1
        observer.last_end_s = now
        self._plan(observer)
        if observer.steps in (1, 10, 100) or observer.steps % 1000 == 0:
            self._tell_structure()

    def _send_layers(
        self,
        observer: StepObserver,
        parameters: list[Tensor],
        measured: Measured,
        sizes_and_moves: tuple[list[Tensor], list[Tensor]],
        clips: list[Clip],
    ) -> None:
        self._learn()
        models = self._discovery.models_of(parameters)
        row = LayerRow()
        named = zip(self._discovery.names_of(parameters), parameters, strict=True)
        row.add_parameters(named, measured, *sizes_and_moves, clips)
        row.take_units(self._units, models)
        row.take_calls(self._stats, models)
        step, index, owner = observer.steps, observer.index, observer.owner

        def deliver(numbers: list[float]) -> None:
            self._sink.layers(index, owner, step, row.named(numbers))

        self._transfer.send(row.values(), deliver)

    def _send_row(self, observer: StepObserver, row: dict[str, Scalar], calls: int) -> None:
        names, rates = list(row), observer.learning_rates_of_step or []
        step, index, owner = observer.steps, observer.index, observer.owner

        def deliver(numbers: list[float]) -> None:
            found = dict(zip(names, numbers, strict=False))
            self._suspicious |= calls > 0 and not math.isfinite(found["loss"])
            lrs = numbers[len(names) :]
            self._sink.step(index, owner, step, StepRow(backward_calls=calls, lrs=lrs, **found))

        self._transfer.send([*row.values(), *rates], deliver)

    def _plan(self, observer: StepObserver) -> None:
        """Decide whether the next step of this optimizer is measured, and switch the hook."""
        step, cost_s, elapsed_s = observer.steps, self._guard.cost_s, self._guard.elapsed_s
        plan = self._schedule
        if observer.due:
            observer.last_due = observer.last_update = step - 1
        elif observer.follows_update:
            observer.last_update = step - 1
        observer.due = plan.wants(step, observer.last_due, cost_s=cost_s, elapsed_s=elapsed_s)
        observer.follows_update = plan.wants_update(step, observer.last_update, cost_s=cost_s)
        in_use = self._observers.stepped(observer)
        recording = any(o.due for o in in_use)
        # What is left then belongs to nobody, or in a first step to an optimizer not yet known.
        if not recording or (len(in_use) == 1 and observer.steps > 1):
            self._graph.clear()
            self._stats.clear()
        if recording != self._forward.recording:
            self._forward.set(recording)

    def _stop_when_done(self, optimizer: Any, args: Any, kwargs: Any) -> None:
        """End the script after `--max-steps`; not guarded, since ending it is the wish."""
        if torch.compiler.is_compiling():
            return
        key = id(optimizer)
        self._done[key] = self._done.get(key, 0) + 1
        if self._max_steps is not None and self._done[key] >= self._max_steps:
            raise SystemExit(0)

    # -- names

    def _learn(self) -> None:
        self._discovery.learn(self._stats.modules.values())

    def _tell_structure(self) -> None:
        for model in self._discovery.alive():
            model.refresh()
        alive = self._observers.alive()
        known = self._register.describe(self._discovery, alive, self._units.spellings)
        self._sink.structure(known)


def _has_closure(args: Any, kwargs: Any) -> bool:
    """Whether `step` was called with a closure; `args[0]` is the optimizer itself."""
    return (len(args) > 1 and callable(args[1])) or callable(kwargs.get("closure"))
