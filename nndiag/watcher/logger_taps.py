"""Reads the metrics that a script hands to its loggers: TensorBoard, wandb, MLflow, trainers.

Nothing is imported for it. When the script imports one of these libraries, the one function that
takes metrics is wrapped: it does what it did, and we see what it was given.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Mapping
from numbers import Real
from typing import Any

from nndiag.vocabulary import canonical

KEPT = ("val_loss", "val_accuracy", "accuracy")  # the training loss is seen where it is made
MAX_METRICS = 200  # of one call

Pairs = Iterator[tuple[str, Any]]
Guarded = Callable[[Callable[..., None]], Callable[..., None]]
Report = Callable[[str, str, float], None]  # source, name, value


def _one(name: str, value: Any) -> Pairs:
    yield str(name), value


def _many(metrics: Any) -> Pairs:
    if isinstance(metrics, Mapping):
        yield from list(metrics.items())[:MAX_METRICS]


# module -> (class or "", function, what its arguments hold; `self` of a method is left out)
LOGGERS: dict[str, tuple[str, str, Callable[..., Pairs]]] = {
    "torch.utils.tensorboard.writer": (
        "SummaryWriter", "add_scalar", lambda tag, scalar_value, *a, **k: _one(tag, scalar_value),
    ),
    "tensorboardX.writer": (
        "SummaryWriter", "add_scalar", lambda tag, scalar_value, *a, **k: _one(tag, scalar_value),
    ),
    "wandb.sdk.wandb_run": ("Run", "log", lambda data, *a, **k: _many(data)),
    "mlflow.tracking.fluent": ("", "log_metric", lambda key, value, *a, **k: _one(key, value)),
    "transformers.trainer": ("Trainer", "log", lambda logs, *a, **k: _many(logs)),
    "lightning.pytorch.trainer.connectors.logger_connector.logger_connector": (
        "_LoggerConnector", "log_metrics", lambda metrics, *a, **k: _many(metrics),
    ),
    "pytorch_lightning.trainer.connectors.logger_connector.logger_connector": (
        "_LoggerConnector", "log_metrics", lambda metrics, *a, **k: _many(metrics),
    ),
}  # fmt: skip


def await_loggers(
    awaited: dict[str, Callable[[Any], None]], guard: Guarded, report: Report
) -> None:
    """Have each logger tapped when it is imported."""
    for module, (owner, function, pairs) in LOGGERS.items():
        tell = guard(functools.partial(_report_all, module.split(".")[0], pairs, report))
        awaited[module] = functools.partial(_tap, owner, function, tell)


def rebind_wandb_log() -> None:
    """`wandb.log` is a method of the run that `wandb.init` made: of one made before now, anew."""
    wandb = sys.modules.get("wandb")
    run, log = getattr(wandb, "run", None), getattr(wandb, "log", None)
    if run is not None and getattr(log, "__self__", None) is run:
        wandb.log = run.log  # type: ignore[union-attr]


def _tap(owner: str, function: str, tell: Callable[..., None], module: Any) -> None:
    place = getattr(module, owner) if owner else module
    original = getattr(place, function)
    is_method = bool(owner)

    @functools.wraps(original)
    def tapped(*args: Any, **kwargs: Any) -> Any:
        tell(*(args[1:] if is_method else args), **kwargs)
        return original(*args, **kwargs)

    setattr(place, function, tapped)


def _report_all(
    source: str, pairs: Callable[..., Pairs], report: Report, *args: Any, **kwargs: Any
) -> None:
    try:
        given = list(pairs(*args, **kwargs))
    except TypeError:  # not the arguments that we know: the library has its own word on them
        return
    for name, value in given:
        number = _number(value)
        if number is not None and canonical(str(name)) in KEPT:
            report(source, str(name), number)


def _number(value: Any) -> float | None:
    """A plain number, or a CPU tensor of one element; a GPU tensor is not waited for."""
    if isinstance(value, Real):
        return float(value)
    device = getattr(value, "device", None)
    if getattr(device, "type", "") == "cpu" and value.numel() == 1:
        return float(value.detach())  # torch warns of a tensor that requires a gradient
    return None
