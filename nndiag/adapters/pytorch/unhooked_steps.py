"""Steps that no hook tells of in time: inside of backward, by hand, or of a compiled optimizer."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from nndiag.adapters.pytorch.loss_taps import Backward, Start
from nndiag.adapters.pytorch.optimizer_hooks import learning_rates
from nndiag.adapters.pytorch.parts import Parts
from nndiag.adapters.pytorch.quiet import unseen
from nndiag.adapters.pytorch.step_closing import StepCloser
from nndiag.adapters.pytorch.steps_in_backward import StepsInBackward
from nndiag.adapters.pytorch.unseen_steps import (
    PATIENCE,
    Quiet,
    UnseenSteps,
    compiled_autograd_is_on,
    leaves_of,
    nothing_measured,
)

Entry = Callable[[Callable[..., None]], Callable[..., None]]


class UnhookedSteps:
    """Finds such steps, and closes them as the others are closed."""

    def __init__(
        self, parts: Parts, closer: StepCloser, entry: Entry, max_steps: int | None
    ) -> None:
        """`entry` makes a callback of ours safe to be called by torch."""
        self._parts = parts
        self._closer = closer
        self._entry = entry
        self._max_steps = max_steps
        self._unseen = UnseenSteps()
        self._in_backward = StepsInBackward()

    def __bool__(self) -> bool:
        return bool(self._unseen)

    @property
    def asks(self) -> bool:
        """Whether a backward call was made since parameters were last compared."""
        return self._unseen.asks

    @property
    def any_steps(self) -> bool:
        """Whether an optimizer steps that no hook tells of."""
        return bool(self._unseen.measured_ones())

    def made(self, optimizer: Any) -> None:
        self._unseen.made(optimizer)

    def hooked(self, optimizer: Any) -> None:
        elsewhere = self._unseen.hooked(optimizer)
        if elsewhere:
            self._parts.taps.keep(elsewhere)

    def join(self, optimizer: Any) -> None:
        """An optimizer steps inside of backward: its gradients are gone when backward is done."""
        if not self._in_backward.under_way:
            at_end = self._entry(self._after_steps_in_backward)
            torch.autograd.Variable._execution_engine.queue_callback(at_end)
        self._in_backward.add(optimizer)

    def _after_steps_in_backward(self) -> None:
        with unseen():
            for step in self._in_backward.take():
                observer = self._parts.observer_of(step.optimizer)
                if observer is None:
                    continue
                step.optimizer.stepped(observer, len(step.parameters))
                observer.learning_rates_of_step = learning_rates(step.optimizer)
                observer.forget_update()  # there is no moment for its cosine with the gradients
                self._closer.close(
                    observer, step.parameters, step.measured(), self._parts.taps.calls
                )
                self._end_after(observer.steps)

    def expect(self, start: Start) -> None:
        """Note how parameters are now, and look at their gradients when this backward is done."""
        if self._unseen.wants_leaves:
            self._unseen.found(leaves_of(start.losses))
        if not self._unseen:
            return
        self._unseen.mark()
        node = start.losses[0].grad_fn
        if self._unseen.measured_ones() and start.accumulates and node is not None:
            if compiled_autograd_is_on():
                return
            at_end = self._entry(self._after_backward)

            def begin(gradients: Any) -> None:
                handle.remove()
                torch.autograd.Variable._execution_engine.queue_callback(at_end)

            handle = node.register_prehook(self._entry(begin))

    def _after_backward(self) -> None:
        """Backward is done: the gradients of a step that no hook will tell of."""
        with unseen():
            for quiet, optimizer in self._unseen.measured_ones():
                observer = self._parts.observer_of(optimizer)
                if observer is None:
                    continue
                parameters = observer.parameters(optimizer)
                scale = self._parts.taps.scale()
                measured = observer.gradients(
                    parameters,
                    each=observer.due,
                    total=True,
                    unscale=1.0 if scale is None else scale,
                )
                measured.clipped = False
                if measured.cosine is None:
                    measured.cosine = observer.cosine_with_last_update(parameters)
                if observer.due or observer.follows_update:
                    measured.before = observer.remember(parameters)
                quiet.measured = measured
                self._parts.forward.set(
                    self._parts.forward.recording or self._closer.is_due(observer, ahead=1)
                )

    def close(self, *, final: bool = False) -> None:
        """Write the steps that were made since the last backward call though no hook told of them.

        At the end of the process the parameters may be gone, and with them what would tell.
        """
        self._unseen.asks = False
        if not self._parts.taps.calls:
            return
        self._unseen.look_for_wrappers(len(self._parts.taps.calls))
        moved = self._unseen.moved() + self._unseen.ended()
        if not moved and not final and len(self._parts.taps.calls) < PATIENCE:
            return
        if not final and self._await_second(moved):
            return
        if not moved and not self._parts.observers:
            self._count_each_backward()
        calls = self._parts.taps.calls
        for quiet in moved:
            first, quiet.suspected = quiet.suspected, 0
            if 0 < first < len(calls):
                self._close_quiet(quiet, calls[:first])
            self._close_quiet(quiet, calls[first if first < len(calls) else 0 :])

    def _await_second(self, moved: list[Quiet]) -> bool:
        """Whether to wait: where two hold the same parameters, one may wrap the other (SAM).

        Then the first change may have moved them for a second backward call, and a hook tells next
        of the step itself.
        """
        calls = len(self._parts.taps.calls)
        new = [q for q in moved if q.suspected in (0, calls) and not (q.steps or q.is_assumed)]
        if len(new) < len(moved) or not any(q.overlaps(other) for q in new for other in new):
            return False
        for quiet in new:
            quiet.suspected = calls
        return True

    def _count_each_backward(self) -> None:
        """Nothing has ever stepped: then each backward call counts as a step."""
        calls = self._parts.taps.calls
        self._parts.sink.note(
            f"no step of an optimizer was seen in {len(calls)} backward calls, nor did a parameter "
            "change: each backward call counts as a step"
        )
        quiet = self._unseen.assume()
        for call in calls:
            self._close_quiet(quiet, [call])

    def _close_quiet(self, quiet: Quiet, calls: list[Backward]) -> None:
        optimizer = quiet.optimizer()
        if quiet.observer is None and optimizer is not None:
            quiet.observer = self._parts.observer_of(optimizer)
            if quiet.observer is not None and not quiet.is_assumed:
                self._parts.sink.note(
                    f"{quiet.observer.owner}: its steps call no hooks, as a compiled step or one "
                    "by hand; they were told from parameters that had changed"
                )
        observer = quiet.observer
        if observer is None:
            return
        parameters = observer.parameters(optimizer) if optimizer is not None else []
        measured, quiet.measured = quiet.measured, nothing_measured()
        if len(measured.before) > len(parameters):
            measured.before = []
        observer.learning_rates_of_step = quiet.rates
        quiet.steps += 1
        self._closer.close(observer, parameters, measured, calls)
        self._end_after(observer.steps)

    def _end_after(self, steps: int) -> None:
        """End the script after `--max-steps` where no hook of the optimizer can."""
        if self._max_steps is not None and steps >= self._max_steps:
            raise SystemExit(0)
