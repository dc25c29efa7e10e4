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
        self._waiting: deque[tuple[Any, Tensor | None, list[int], list[float], Deliver]] = deque()

    def send(self, values: Sequence[Scalar], deliver: Deliver) -> None:
        """Hand `values` to `deliver` as floats as soon as they can be had without blocking."""
        tensors = {i: v for i, v in enumerate(values) if isinstance(v, Tensor)}
        numbers: list[Any] = list(values)
        first = next((t.device for t in tensors.values() if t.device.type != "cpu"), None)
        if first is None:  # reading one by one is quicker here than stacking
            for i, tensor in tensors.items():
                numbers[i] = tensor.item()
            self._queue(None, None, [], numbers, deliver)
            return
        stacked, at = _stacked(tensors, first)
        streams = _with_events(first)
        if streams is None:  # it can only be waited for
            self._queue(None, stacked, at, numbers, deliver)
            return
        pinned = torch.empty(stacked.shape, dtype=stacked.dtype, pin_memory=True, device="cpu")
        pinned.copy_(stacked, non_blocking=True)
        event = streams.Event()
        event.record(streams.current_stream(first))
        self._queue(event, pinned, at, numbers, deliver)

    def _queue(
        self,
        event: Any,
        fetched: Tensor | None,
        at: list[int],
        numbers: list[float],
        deliver: Deliver,
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
            for i, value in zip(at, fetched.tolist() if fetched is not None else (), strict=True):
                numbers[i] = value
            deliver(numbers)


def _with_events(device: torch.device) -> Any:
    """The module of a device that tells when a copy has arrived: torch.cuda, torch.xpu, ..."""
    module = getattr(torch, device.type, None)
    return module if hasattr(module, "Event") and hasattr(module, "current_stream") else None


def _stacked(tensors: dict[int, Tensor], device: torch.device) -> tuple[Tensor, list[int]]:
    """The numbers in one tensor on one device, and which they are; a few kernels, not one each."""
    alike: dict[Any, list[int]] = {}
    for i, tensor in tensors.items():
        alike.setdefault((tensor.dtype, tensor.device), []).append(i)
    widest = torch.float32 if device.type == "mps" else torch.float64  # it has no float64
    parts = [
        torch.stack([tensors[i].reshape(()) for i in places]).to(
            device=device, dtype=widest, non_blocking=True
        )
        for places in alike.values()
    ]
    return torch.cat(parts), [i for places in alike.values() for i in places]
