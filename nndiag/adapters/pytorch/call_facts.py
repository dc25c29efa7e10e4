"""What the module calls of a training pass show of code and data: modes, inputs, batch sizes.

Only calls of a few kinds of modules are noted: dropout and batch norm, and layers with weights that
data enter. A pass counts once a backward call goes through it: validating in eval mode, gradients
and all, is no training in eval mode.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from nndiag.adapters.pytorch.discovery import Model
from nndiag.adapters.pytorch.loss_taps import Scalar
from nndiag.adapters.pytorch.optimizer_hooks import StepObserver
from nndiag.adapters.pytorch.ranks import kind_of, rank_and_world
from nndiag.adapters.pytorch.tensor_stats import as_wide, is_measurable, tensors_in
from nndiag.adapters.pytorch.transfer import Transfer

DROPOUT, NORM, LAYER = "dropout", "norm", "layer"
DROPS = ("Dropout", "DropPath", "DropBlock", "StochasticDepth")
CONVOLUTIONS = nn.modules.conv._ConvNd

MAX_CALLS = 4  # of one module in one step
MAX_MODULES = 5_000  # of one step
MAX_NODES = 20_000
INPUT_STEPS = 3  # measured steps in which the input of a layer is looked at
INPUT_LAYERS = 8  # of one process
INPUT_ELEMENTS = 1 << 18


@dataclass(slots=True, eq=False)
class Mode:
    """The calls of one module in one mode. Numbers of graph nodes tell whether backward came by."""

    module: nn.Module
    kind: str
    numbers: list[int] = field(default_factory=list)
    reached: bool = False
    values: int = 0  # batch norm in training mode: per channel
    batch: int = 0


@dataclass(frozen=True, slots=True)
class Entered:
    """Data that entered a layer."""

    module: nn.Module
    values: list[Scalar]
    told: dict[str, object]


class CallFacts:
    """Collects what the calls between two steps show."""

    def __init__(self, tell: Callable[..., None], transfer: Transfer) -> None:
        self._tell = tell
        self._transfer = transfer
        self._kinds: dict[type, str] = {}  # a process has some dozens of them
        self._modes: dict[tuple[int, bool], Mode] = {}  # id(module), whether it was training
        self._evaluating = False  # whether one of them ran in eval mode
        self._entered: list[Entered] = []
        self._looked: dict[int, int] = {}  # id(module) -> times its input was looked at

    def clear(self) -> None:
        self._modes, self._entered, self._evaluating = {}, [], False

    def saw(self, module: nn.Module, inputs: Any, output: Any) -> None:
        """Note a call, if the module is of a kind that matters."""
        kind = self._kinds.get(type(module))
        if kind is None:
            kind = self._kinds[type(module)] = _kind_of(type(module))
        if not kind:
            return
        if kind == LAYER:
            self._see_input(module, inputs)
            if not module.__dict__.get("dropout"):  # recurrent nets and attention have one inside
                return
        self._note_mode(module, DROPOUT if kind == LAYER else kind, inputs, output)

    def _note_mode(self, module: nn.Module, kind: str, inputs: Any, output: Any) -> None:
        training = module.training
        if kind == NORM and module._buffers.get("running_mean") is None:
            training = True  # without running averages both modes are the same
        key = id(module), training
        mode = self._modes.get(key)
        if mode is None:
            if kind == DROPOUT and not _drops(module):
                return
            if len(self._modes) >= MAX_MODULES:
                return
            mode = self._modes[key] = Mode(module, kind)
        if not training:
            number = next((_number(t) for t in tensors_in(output) if t.grad_fn is not None), None)
            if number is not None:
                self._evaluating = True
                mode.numbers = [*mode.numbers[1 - MAX_CALLS :], number]
        elif kind == NORM:
            x = inputs[0] if isinstance(inputs, tuple) and inputs else None
            channels = getattr(module, "num_features", 0)
            if isinstance(x, Tensor) and x.ndim >= 2 and channels:
                values = x.numel() // channels
                if not mode.values or values < mode.values:
                    mode.values, mode.batch = values, x.shape[0]

    def _see_input(self, module: nn.Module, inputs: Any) -> None:
        """Measure what enters a layer, where that is data and no output of a layer that learns."""
        looked = self._looked.get(id(module), 0)
        if looked >= INPUT_STEPS or (not looked and len(self._looked) >= INPUT_LAYERS):
            return
        x = inputs[0] if isinstance(inputs, tuple) and inputs else None
        if not isinstance(x, Tensor) or x.requires_grad or not is_measurable(x) or x.ndim < 2:
            return
        weights = module._parameters.values()
        if not any(p is not None and p.requires_grad for p in weights):
            return
        if any(one.module is module for one in self._entered):
            return
        self._looked[id(module)] = looked + 1
        values, features = _input_stats(x, 1 if isinstance(module, CONVOLUTIONS) else -1)
        told = {
            "dtype": str(x.dtype).removeprefix("torch."),
            "samples": x.shape[0],
            "features": features,
            "module": kind_of(module),
        }
        self._entered.append(Entered(module, values, told))

    def saw_backward(self, losses: Iterable[Tensor]) -> None:
        """Find the calls in eval mode that this backward call goes through."""
        if not self._evaluating:
            return
        waiting = [mode for mode in self._modes.values() if mode.numbers and not mode.reached]
        if waiting:
            numbers = _numbers_behind(losses, min(min(mode.numbers) for mode in waiting))
            for mode in waiting:
                mode.reached = not numbers.isdisjoint(mode.numbers)

    def tell_step(
        self, observer: StepObserver, models: list[Model], parameters: list[Tensor]
    ) -> None:
        """Tell what was seen of these models, and let go of it."""
        trained = {id(p) for p in parameters if p.requires_grad}
        for model in models:
            ours = {key: mode for key, mode in self._modes.items() if key[0] in model.modules}
            for key in ours:
                del self._modes[key]
            self._tell_modes(observer, model, ours, trained)
            self._tell_batches(observer, model, ours)
            entered = [one for one in self._entered if id(one.module) in model.modules]
            self._entered = [one for one in self._entered if one not in entered]
            for one in entered:
                self._tell_input(observer, model, one)

    def _tell_modes(
        self,
        observer: StepObserver,
        model: Model,
        ours: dict[tuple[int, bool], Mode],
        trained: set[int],
    ) -> None:
        training = {key for key, is_training in ours if is_training}
        # One that ran in both modes was trained: an attack in eval mode comes before it.
        evaluated = [
            mode for (key, _), mode in ours.items() if mode.reached and key not in training
        ]
        kinds = [mode.kind for (_, is_training), mode in ours.items() if is_training]
        found = [mode.kind for mode in evaluated]
        if not kinds and not found:
            return
        root = model.root()
        learns = [
            mode
            for mode in evaluated
            if mode.kind == NORM
            and any(id(p) in trained for p in mode.module._parameters.values() if p is not None)
        ]
        told: dict[str, object] = {
            "training": root is None or root.training,
            "dropout": kinds.count(DROPOUT) + found.count(DROPOUT),
            "dropout_in_eval": found.count(DROPOUT),
            "norm": kinds.count(NORM) + found.count(NORM),
            "norm_in_eval": found.count(NORM),
            "norm_in_eval_trained": len(learns),
            "first": model.modules[id(evaluated[0].module)] if evaluated else "",
        }
        state = told["training"], found.count(DROPOUT) > 0, found.count(NORM) > 0
        self._tell("mode", observer.steps, model.name, observer.owner, told, state=state)

    def _tell_batches(
        self, observer: StepObserver, model: Model, ours: dict[tuple[int, bool], Mode]
    ) -> None:
        norms = [mode for mode in ours.values() if mode.values]
        if not norms:
            return
        least = min(norms, key=lambda mode: mode.values)
        values, world = least.values, 1
        if kind_of(least.module) == "SyncBatchNorm":
            _, world = rank_and_world() or (0, 1)
        told: dict[str, object] = {
            "values": values * world,
            "batch": least.batch * world,
            "modules": len(norms),
        }
        where = model.modules[id(least.module)]
        state = values.bit_length()
        self._tell("batch-statistics", observer.steps, where, observer.owner, told, state=state)

    def _tell_input(self, observer: StepObserver, model: Model, entered: Entered) -> None:
        step, owner, where = observer.steps, observer.owner, model.modules[id(entered.module)]

        def deliver(numbers: list[float]) -> None:
            names = ("mean", "std", "abs_max", "feature_std_min", "feature_std_max")
            told = {**dict(zip(names, numbers, strict=True)), **entered.told}
            self._tell("input", step, where, owner, told)

        self._transfer.send(entered.values, deliver)


def _kind_of(kind: type) -> str:
    """Which of the kinds that matter a class of modules is; "" for none."""
    if issubclass(kind, nn.modules.batchnorm._BatchNorm):
        return NORM
    if issubclass(kind, nn.modules.dropout._DropoutNd) or any(d in kind.__name__ for d in DROPS):
        return DROPOUT
    layers = (nn.Linear, CONVOLUTIONS, nn.RNNBase, nn.MultiheadAttention)
    return LAYER if issubclass(kind, layers) else ""


def _drops(module: nn.Module) -> bool:
    """Whether it drops anything at all."""
    for name in ("p", "drop_prob"):
        share = getattr(module, name, None)
        if isinstance(share, float | int):
            return share > 0
    return True


def _number(tensor: Tensor) -> int | None:
    """The number of the graph node that made a tensor; leaves have none of their own."""
    node = tensor.grad_fn
    return None if node is None else int(node._sequence_nr())


def _numbers_behind(losses: Iterable[Tensor], oldest: int) -> set[int]:
    """Numbers of the graph nodes that lead from the losses back to the oldest one asked for."""
    stack: list[Any] = [loss.grad_fn for loss in losses]
    seen: set[Any] = set()
    while stack and len(seen) < MAX_NODES:
        node = stack.pop()
        if node is None or node in seen or hasattr(node, "variable"):
            continue
        if node._sequence_nr() < oldest:
            continue
        seen.add(node)
        stack.extend(child for child, _ in node.next_functions)
    return {int(node._sequence_nr()) for node in seen}


def _input_stats(x: Tensor, feature_axis: int) -> tuple[list[Scalar], int]:
    """Mean, standard deviation and largest magnitude, the extremes over features, their number.

    Shapes: x (N, C, ...) or (N, ..., C); C features.
    """
    features = x.shape[feature_axis]
    samples = max(16, INPUT_ELEMENTS // max(1, x.numel() // max(1, x.shape[0])))
    x = x.detach()[:samples]
    if x.numel() > 4 * INPUT_ELEMENTS and x.ndim >= 4:
        x = x[..., ::3, ::3]  # images
    x = as_wide(x).movedim(feature_axis, -1).reshape(-1, features)
    spread = x.std(0, correction=0)
    return [x.mean(), x.std(correction=0), x.abs().amax(), spread.amin(), spread.amax()], features
