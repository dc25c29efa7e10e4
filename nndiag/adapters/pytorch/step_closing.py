"""The end of an optimizer's step: its row is written, and the next step is planned."""

from __future__ import annotations

import math
from time import perf_counter as _clock  # bound here: a script may patch time

from torch import Tensor

from nndiag.adapters.base import NAN, StepRow
from nndiag.adapters.pytorch.layer_row import LayerRow
from nndiag.adapters.pytorch.loss_taps import Backward, Clip, Scalar
from nndiag.adapters.pytorch.optimizer_hooks import Measured, StepObserver, ratio
from nndiag.adapters.pytorch.parts import Parts
from nndiag.adapters.pytorch.ranks import rank_and_world
from nndiag.adapters.pytorch.tensor_stats import norm_of_norms


class StepCloser:
    """Writes what a step has shown."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._calls: list[Backward] = []  # of the last step, for optimizers that share a loss
        self._clips: list[Clip] = []
        self._cost_told_s = 0.0
        self.backward_s: float | None = None  # when the first backward of this step began
        self.suspicious = False  # a row that arrived was not finite: look closer from now on

    def clips_of(self, parameters: list[Tensor]) -> list[Clip]:
        """The clipping calls that touched these parameters; of repeated ones the first.

        Without a new backward call this is another optimizer's step on the same gradients.
        """
        taps = self._parts.taps
        calls = taps.clips if taps.calls else [*self._clips, *taps.clips]
        found: list[Clip] = []
        for call in calls:
            if any(map(call.covers, parameters)) and not any(map(call.overlaps, found)):
                found.append(call)
        return found

    def forget(self) -> None:
        """The next step shares no loss with the last one."""
        self._calls, self._clips = [], []

    def close(
        self,
        observer: StepObserver,
        parameters: list[Tensor],
        measured: Measured,
        calls: list[Backward],
    ) -> None:
        """Write the row of this step, and its layers if it was a measured one."""
        taps, guard = self._parts.taps, self._parts.guard
        clips = self.clips_of(parameters)
        if calls:
            self._calls, self._clips = calls, taps.clips
        else:  # a second optimizer that steps on the same loss
            calls = self._calls
            self._clips += taps.clips
        taps.clear()
        now = _clock()
        row: dict[str, Scalar] = {
            "loss": taps.loss_of(calls, observer.index) if calls else NAN,
            "grad_norm": measured.grad_norm,
            "clip_threshold": NAN,
            "loss_scale": taps.scale() or NAN,
            "step_time_s": NAN if observer.last_end_s is None else now - observer.last_end_s,
            "nndiag_time_s": guard.cost_s - self._cost_told_s,
            "update_gradient_cosine": (
                observer.cosine_with_last_update(parameters)
                if measured.cosine is None
                else measured.cosine
            ),
            "update_ratio": NAN,
            "time_to_backward_s": observer.seconds_until(self.backward_s),
        }
        self.backward_s = None
        if clips:
            row["clip_threshold"], row["grad_norm"] = taps.clip_of(clips)
        sizes: list[Scalar] = []
        moves: list[Scalar] = []
        if measured.before:
            sizes, moves = observer.updates(parameters, measured.before)
            row["update_ratio"] = ratio(norm_of_norms(moves), norm_of_norms(sizes))
        if observer.due and parameters:
            undone = clips if measured.clipped else []
            self._send_layers(observer, parameters, measured, (sizes, moves), undone)
        self._cost_told_s = guard.cost_s
        self._send_row(observer, row, len(calls))
        if observer.due and parameters:
            self._parts.facts.end_step(observer, parameters)
        observer.steps += 1
        observer.last_end_s = now
        self._plan(observer)
        if observer.steps in (1, 10, 100) or observer.steps % 1000 == 0:
            self._parts.tell_structure()

    def _send_layers(
        self,
        observer: StepObserver,
        parameters: list[Tensor],
        measured: Measured,
        sizes_and_moves: tuple[list[Scalar], list[Scalar]],
        clips: list[Clip],
    ) -> None:
        parts = self._parts
        parts.learn_names()
        models = parts.discovery.models_of(parameters)
        parts.passes.end_step({key for model in models for key in model.modules})
        parts.stats.settle()
        row = LayerRow()
        named = zip(parts.discovery.names_of(parameters), parameters, strict=True)
        row.add_parameters(named, measured, *sizes_and_moves, clips)
        row.take_units(parts.units, models)
        row.take_calls(parts.stats, models)
        step, index, owner = observer.steps, observer.index, observer.owner

        def deliver(numbers: list[float]) -> None:
            parts.sink.layers(index, owner, step, row.named(numbers))

        values = row.values()
        if values:  # loose tensors, looked at for the first time, have nothing to show
            parts.transfer.send(values, deliver)

    def _send_row(self, observer: StepObserver, row: dict[str, Scalar], calls: int) -> None:
        names, rates = list(row), observer.learning_rates_of_step or []
        step, index, owner = observer.steps, observer.index, observer.owner

        def deliver(numbers: list[float]) -> None:
            found = dict(zip(names, numbers, strict=False))
            self.suspicious |= calls > 0 and not math.isfinite(found["loss"])
            lrs = numbers[len(names) :]
            told = StepRow(backward_calls=calls, lrs=lrs, **found)
            self._parts.sink.step(index, owner, step, told)

        self._parts.transfer.send([*row.values(), *rates], deliver)

    def _plan(self, observer: StepObserver) -> None:
        """Decide whether the next step of this optimizer is measured, and switch the hook."""
        parts = self._parts
        step, cost_s, plan, shared = observer.steps, parts.guard.cost_s, parts.schedule, _shared()
        if observer.due:
            observer.last_due = observer.last_update = step - 1
            observer.measured_steps += 1
        elif observer.follows_update:
            observer.last_update = step - 1
        observer.due = self.is_due(observer)
        observer.follows_update = plan.wants_update(
            step, observer.last_update, cost_s=cost_s, shared=shared
        )
        observer.norm_due = observer.due or plan.wants_norm(
            step, cost_s=cost_s, elapsed_s=parts.guard.elapsed_s, shared=shared
        )
        in_use = parts.observers.stepped(observer)
        recording = any(o.due for o in in_use)
        # What is left then belongs to nobody, or in a first step to an optimizer not yet known.
        if not recording or (len(in_use) == 1 and observer.steps > 1):
            parts.clear()
        fewest = min((o.measured_steps for o in in_use), default=0)
        parts.walks = parts.outputs.wants_walk(fewest, observer.measured_steps)
        if recording != parts.forward.recording:
            parts.forward.set(recording)

    def is_due(self, observer: StepObserver, ahead: int = 0) -> bool:
        """Whether the next step of this optimizer is measured; `ahead`: before this one is done."""
        last = observer.steps if ahead and observer.due else observer.last_due
        guard = self._parts.guard
        step, cost_s, elapsed_s = observer.steps + ahead, guard.cost_s, guard.elapsed_s
        return self._parts.schedule.wants(
            step, last, cost_s=cost_s, elapsed_s=elapsed_s, shared=_shared()
        )


def _shared() -> bool:
    """Whether several ranks train: they must measure the same steps."""
    place = rank_and_world()
    return place is not None and place[1] > 1
