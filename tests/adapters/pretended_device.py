"""A device that is not the CPU, as far as our code can tell; every wait for it is written down.

`begin()` is called by a training script, after which

- each tensor says that it lies on `far:0`: its `device`, `is_cpu` and what torch derives from them
  in Python. Tensors made with `device="cpu"`, and what is worked out from those alone, do not;
- each operation goes through a dispatch mode, also ours, which otherwise set such modes aside.
  Those that would make the host wait for a device are noted, with the frame of ours they come from;
- a copy to the host that does not block arrives late: only once its event has been asked a few
  times. Until then the host's memory holds NaN, so that reading too early would be seen.

The numbers are worked out on the CPU. What a real device's kernels do inside is not seen.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves, tree_map
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend

LATE = 3  # times that an event says no
READS = ("tolist", "numpy", "__array__", "cpu", "__dlpack__")  # of the host, without an operation
WAITING = {  # operations whose result has a shape, or is a number, that only the device knows
    "_local_scalar_dense",
    "item",
    "equal",
    "is_nonzero",
    "allclose",
    "nonzero",
    "nonzero_numpy",
    "masked_select",
    "unique_consecutive",
    "_unique2",
    "unique_dim",
    "repeat_interleave",
}


class Watch:
    """What was seen, and the copies that are under way."""

    def __init__(self) -> None:
        self.waits: list[str] = []  # by our code
        self.user_waits = 0
        self.operations: set[str] = set()  # of our code, on tensors of the device
        self.copies = 0
        self.late = 0  # events that were asked before they had come
        self._under_way: list[Callable[[], None]] = []

    def wait(self, what: str) -> None:
        frame = _our_frame()
        if frame:
            self.waits.append(f"{what} in {frame}")
        else:
            self.user_waits += 1

    def later(self, copy: Callable[[], None]) -> None:
        self.copies += 1
        self._under_way.append(copy)

    def taken(self) -> list[Callable[[], None]]:
        copies, self._under_way = self._under_way, []
        return copies


def _our_frame() -> str:
    """The innermost frame of nndiag; "" where the script itself asks."""
    frame: Any = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_name == "tapped":  # torch's own clipping, called through our tap
            return ""
        if "/nndiag/adapters/" in frame.f_code.co_filename:
            return f"{frame.f_code.co_filename.rpartition('/')[2]}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def is_far(tensor: Any) -> bool:
    return not getattr(tensor, "_near", False)


class Event:
    """Comes when events were asked LATE times since, and with it the copies begun before it."""

    watch: Watch
    asked = 0  # the clock of the device: how often any event was asked

    def record(self, stream: Any) -> None:
        assert stream == "stream of far:0"
        self._copies = self.watch.taken()
        self._began = Event.asked

    def query(self) -> bool:
        Event.asked += 1
        if Event.asked - self._began <= LATE:
            self.watch.late += 1
            return False
        self._arrive()
        return True

    def synchronize(self) -> None:
        self.watch.wait("synchronize")
        self._arrive()

    def _arrive(self) -> None:
        while self._copies:
            self._copies.pop()()


class Dispatch(TorchDispatchMode):
    """Runs each operation on the CPU, whatever device it names."""

    def __init__(self, watch: Watch) -> None:
        super().__init__()
        self._watch = watch

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        name = func.overloadpacket.__name__
        tensors = [x for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)]
        far = any(map(is_far, tensors))
        near = bool(tensors) and not far  # what comes of it
        if (to := kwargs.get("device")) is not None:
            near = to.type == "cpu"
            kwargs["device"] = torch.device("cpu")
        kwargs.pop("pin_memory", None)
        if far or not near:
            self._note(name, args, kwargs, near)
        if name == "copy_" and not is_far(args[0]) and far and _does_not_block(args, kwargs):
            target, source = args[0].fill_(math.nan), args[1].clone()
            self._watch.later(lambda: _now(target, source))
            return target
        out = func(*args, **kwargs)
        if near:
            tree_map(_put_near, out)
        return out

    def _note(self, name: str, args: Any, kwargs: Any, near: bool) -> None:
        """Write it down if the host waits for it."""
        if _our_frame():
            self._watch.operations.add(name)
        waits = name in WAITING
        if name in ("index", "index_put_"):  # by truth values: how many are true must be known
            waits = any(i is not None and i.dtype is torch.bool for i in args[1])
        if name == "_to_copy":  # to memory that is not pinned `non_blocking` is of no help
            waits = near or (not is_far(args[0]) and not kwargs.get("non_blocking"))
        if name == "copy_":
            waits = is_far(args[0]) != is_far(args[1]) and not _does_not_block(args, kwargs)
        if waits:
            self._watch.wait(name)


def _does_not_block(args: Any, kwargs: Any) -> bool:
    return bool(kwargs.get("non_blocking", args[2] if len(args) > 2 else False))


def _now(target: torch.Tensor, source: torch.Tensor) -> None:
    with _disable_current_modes():
        target.copy_(source)


def _put_near(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        value._near = True  # type: ignore[attr-defined]
    return value


def begin() -> Watch:
    """From now on everything is far away."""
    watch = Watch()
    Event.watch = watch
    module = SimpleNamespace(
        Event=Event,
        current_stream=lambda device: f"stream of {device}",
        is_initialized=lambda: True,
        is_available=lambda: True,
        current_device=lambda: 0,
        device_count=lambda: 1,
        _is_in_bad_fork=lambda: False,
        manual_seed_all=lambda seed: None,
        _lazy_init=lambda: None,
    )
    _setup_privateuseone_for_python_backend("far", backend_module=module)
    far, near = torch.device("far:0"), torch.device("cpu")
    tensor: Any = torch.Tensor
    tensor.is_cpu = property(lambda self: not is_far(self))
    tensor.device = property(lambda self: far if is_far(self) else near)
    for name in READS:
        setattr(tensor, name, _noting(watch, name, getattr(tensor, name)))
    tensor.to = _noting(watch, "to", tensor.to, if_told=_goes_to_host)
    mode = Dispatch(watch)
    mode.__enter__()
    torch._C._len_torch_dispatch_stack = lambda: 0  # ours would set the mode aside
    return watch


def _goes_to_host(*args: Any, **kwargs: Any) -> bool:
    """Whether `tensor.to` is told to: it would find that the tensor is there, and do nothing."""
    device = torch._C._nn._parse_to(*args, **kwargs)[0]
    return device is not None and device.type == "cpu"


def _noting(
    watch: Watch,
    name: str,
    original: Any,
    if_told: Callable[..., bool] = lambda *args, **kwargs: True,
) -> Any:
    def read(self: Any, *args: Any, **kwargs: Any) -> Any:
        if is_far(self) and if_told(*args, **kwargs):
            watch.wait(name)
        return original(self, *args, **kwargs)

    return read
