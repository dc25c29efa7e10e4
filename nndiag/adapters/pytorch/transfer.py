"""Brings numbers from devices to Python, once per step and without waiting for a GPU."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from nndiag.adapters.pytorch.loss_taps import Scalar

Deliver = Callable[[list[float]], None]
MAX_WAITING = 64  # transfers; a device that is further behind is waited for


class Transfer:
    """Delivers values in the order they were sent: at once from the CPU, later from a GPU."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[Any, Tensor, list[int], list[float], Deliver]] = deque()

    def send(self, values: Sequence[Scalar], deliver: Deliver) -> None:
        """Hand `values` to `deliver` as floats as soon as they can be had without blocking."""
        tensors = {i: value for i, value in enumerate(values) if isinstance(value, Tensor)}
        numbers = [0.0 if isinstance(value, Tensor) else value for value in values]
        first = next((t.device for t in tensors.values() if t.device.type != "cpu"), None)
        if first is None:  # reading one by one is quicker here than stacking
            for i, tensor in tensors.items():
                numbers[i] = tensor.item()
            self._queue(None, torch.empty(0), [], numbers, deliver)
            return
        at = list(tensors)
        stacked = torch.stack([t.to(first, torch.float64) for t in tensors.values()])
        if first.type != "cuda":
            self._queue(None, stacked, at, numbers, deliver)
            return
        pinned = torch.empty(stacked.shape, dtype=stacked.dtype, pin_memory=True, device="cpu")
        pinned.copy_(stacked, non_blocking=True)
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(first))
        self._queue(event, pinned, at, numbers, deliver)

    def _queue(
        self, event: Any, fetched: Tensor, at: list[int], numbers: list[float], deliver: Deliver
    ) -> None:
        self._waiting.append((event, fetched, at, numbers, deliver))
        self.drain(wait=len(self._waiting) > MAX_WAITING)

    def drain(self, *, wait: bool = False) -> None:
        """Deliver what has arrived; with `wait`, all of it."""
        while self._waiting:
            event, fetched, at, numbers, deliver = self._waiting[0]
            if event is not None and not event.query():
                if not wait:
                    return
                event.synchronize()
            self._waiting.popleft()
            for i, value in zip(at, fetched.tolist(), strict=True):
                numbers[i] = value
            deliver(numbers)
