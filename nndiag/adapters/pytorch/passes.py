"""Which forward passes a backward call goes through: the others are no training.

A script may validate in training mode, gradients and all. Such a pass looks like training until the
loss comes that does not depend on it. Torch numbers the nodes of the graph as they are made, so a
pass is a range of numbers, and nothing of its graph has to be kept.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from nndiag.adapters.pytorch.tensor_stats import tensors_in

MAX_OPEN = 4  # passes of one part that no backward has gone through yet: a triplet loss has three
MAX_NODES = 20_000

MAX_ROWS = 10_000  # of one pass
MAX_DONE = 64  # passes, also of models that no optimizer holds

Row = list[Any]  # the statistics of one module call


@dataclass(slots=True, eq=False)
class Pass:
    """One forward pass of a model, or of a part that the script calls by itself."""

    part: int = 0  # id of the module that was called first
    first: int | None = None  # number of the first node with a gradient; None: there is none
    last: int = 0
    rows: list[Row] = field(default_factory=list)
    is_training: bool = False

    def holds(self, number: int) -> bool:
        return self.first is not None and self.first <= number <= self.last


class Passes:
    """The forward passes of the step under way. Only measured steps have any."""

    def __init__(self, drop: Callable[[list[Row]], None]) -> None:
        """`drop` is given the statistics of a pass that was no training."""
        self._drop = drop
        self._done: list[Pass] = []
        self._under_way = Pass()

    def clear(self) -> None:
        self._done, self._under_way = [], Pass()

    def note(self, module: nn.Module, output: object, row: Row | None, *, is_root: bool) -> None:
        """One module was called. `is_root`: nothing holds it, so a pass ends with it."""
        current = self._under_way
        if not current.part:
            current.part = id(module)
        if row is not None and len(current.rows) < MAX_ROWS:
            current.rows.append(row)
        if current.first is None:
            current.first = _number(output)
        if is_root and (module._modules or module._parameters):  # not a loss
            number = _number(output)
            if number is not None:
                current.last = number
                self._done.append(current)
            self._under_way = Pass()
            waiting = [o for o in self._done if o.part == current.part and not o.is_training]
            if len(waiting) > MAX_OPEN:
                self._remove(waiting[:1])

    def saw_backward(self, losses: Iterable[Tensor]) -> None:
        """A backward call has begun: the passes that it goes through are training."""
        waiting = [one for one in self._done if not one.is_training]
        if len(waiting) == 1:
            waiting[0].is_training = True
        elif waiting:
            _mark(waiting, losses)

    def end_step(self, modules: Container[int]) -> None:
        """A step of the optimizer that holds these modules ends: drop what was no training."""
        ours = [one for one in self._done if one.part in modules]
        idle = [one for one in ours if not one.is_training]
        if len(idle) < len(ours):
            self._remove(idle)
        self._done = [one for one in self._done if one not in ours][-MAX_DONE:]
        if self._under_way.part in modules:
            self._under_way = Pass()

    def _remove(self, passes: list[Pass]) -> None:
        if passes:
            self._drop([row for one in passes for row in one.rows])
            self._done = [one for one in self._done if one not in passes]


def _number(output: object) -> int | None:
    """The number of the graph node behind a module's output."""
    for tensor in tensors_in(output):
        if tensor.grad_fn is not None:
            return int(tensor.grad_fn._sequence_nr())
    return None


def _mark(waiting: list[Pass], losses: Iterable[Tensor]) -> None:
    """Walk back from the losses, newest nodes first, until each pass was met or passed by."""
    count, seen = 0, set()
    heap: list[tuple[int, int, Any]] = []
    for loss in losses:
        if loss.grad_fn is not None:
            heap.append((-loss.grad_fn._sequence_nr(), len(heap), loss.grad_fn))
    heapq.heapify(heap)
    # Passes follow one another, so their ranges do not overlap.
    by_first = sorted((one.first, i) for i, one in enumerate(waiting) if one.first is not None)
    if not by_first:
        return
    firsts = [first for first, _ in by_first]
    oldest, unmet = firsts[0], len(firsts)
    while heap and count < MAX_NODES:
        number, _, node = heapq.heappop(heap)
        if -number < oldest:
            return
        if node in seen:
            continue
        seen.add(node)
        count += 1
        place = bisect_right(firsts, -number) - 1
        one = waiting[by_first[place][1]]
        if one.holds(-number) and not one.is_training:
            one.is_training = True
            unmet -= 1
            if not unmet:
                return
        for child, _ in node.next_functions:
            if child is not None and not hasattr(child, "variable"):
                heapq.heappush(heap, (-child._sequence_nr(), count + len(heap), child))
    if heap:  # too large a graph to tell
        for one in waiting:
            one.is_training = True
