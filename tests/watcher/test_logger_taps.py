"""Metrics that a script hands to its loggers are seen, and handed on."""

from __future__ import annotations

import types
from collections.abc import Callable
from typing import Any

import pytest

from nndiag.watcher.logger_taps import LOGGERS, await_loggers
from nndiag.watcher.session import Guard

Reported = list[tuple[str, str, float]]


def imported(name: str) -> tuple[types.ModuleType, Reported, list[Any], Guard]:
    """A stand-in for the library `name`, tapped; what was reported, what it was called with."""
    owner, function, _ = LOGGERS[name]
    module, calls, reported, guard = types.ModuleType(name), [], [], Guard()

    def log(*args: Any, **kwargs: Any) -> str:
        """The library's own."""
        calls.append((args[1:] if owner else args, kwargs))
        return "returned"

    if owner:
        setattr(module, owner, type(owner, (), {function: log}))
    else:
        setattr(module, function, log)
    awaited: dict[str, Callable[[Any], None]] = {}
    await_loggers(awaited, guard, lambda *report: reported.append(report))
    awaited[name](module)
    return module, reported, calls, guard


def call(module: types.ModuleType, *args: Any, **kwargs: Any) -> Any:
    owner, function, _ = LOGGERS[module.__name__]
    place = getattr(module, owner)() if owner else module
    return getattr(place, function)(*args, **kwargs)


ONE = ["torch.utils.tensorboard.writer", "tensorboardX.writer", "mlflow.tracking.fluent"]
MANY = [name for name in LOGGERS if name not in ONE]


@pytest.mark.parametrize("name", ONE)
def test_a_logger_of_single_values_is_heard(name: str):
    module, reported, calls, guard = imported(name)

    assert call(module, "val/loss", 0.25, 3) == "returned"
    call(module, "learning_momentum", 0.9, 3)

    assert reported == [(name.split(".")[0], "val/loss", 0.25)]
    assert calls == [(("val/loss", 0.25, 3), {}), (("learning_momentum", 0.9, 3), {})]
    assert not guard.off


@pytest.mark.parametrize("name", MANY)
def test_a_logger_of_many_values_is_heard(name: str):
    module, reported, calls, _ = imported(name)
    metrics = {"val_loss": 0.25, "train_loss": 9.0, "val_acc": 1, "image": object(), "text": "0.5"}

    assert call(module, metrics, 7) == "returned"

    kind = name.split(".")[0]
    assert reported == [(kind, "val_loss", 0.25), (kind, "val_acc", 1.0)]
    assert calls == [((metrics, 7), {})] and calls[0][0][0] is metrics


def test_the_librarys_own_names_of_arguments_are_understood():
    for name, kwargs in {
        "torch.utils.tensorboard.writer": {
            "tag": "val_loss",
            "scalar_value": 0.5,
            "global_step": 1,
        },
        "mlflow.tracking.fluent": {"key": "val_loss", "value": 0.5, "step": 1},
        "wandb.sdk.wandb_run": {"data": {"val_loss": 0.5}, "commit": True},
        "transformers.trainer": {"logs": {"val_loss": 0.5}},
    }.items():
        module, reported, _, _ = imported(name)
        call(module, **kwargs)
        assert [value for _, _, value in reported] == [0.5], name


def test_a_call_that_the_library_refuses_is_the_librarys_to_refuse():
    module, reported, _, guard = imported("wandb.sdk.wandb_run")
    for _ in range(2):
        assert call(module) == "returned"
    assert reported == [] and not guard.off


def test_a_tensor_is_read_from_the_cpu_only():
    torch = pytest.importorskip("torch")
    module, reported, _, guard = imported("wandb.sdk.wandb_run")
    metrics = {"val_loss": torch.tensor(0.5, requires_grad=True), "val_acc": torch.ones(2),
               "accuracy": torch.ones((), device="meta")}  # fmt: skip

    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        call(module, metrics)

    assert [(name, value) for _, name, value in reported] == [("val_loss", 0.5)]
    assert not guard.off


def test_the_tapped_function_looks_like_the_librarys_own():
    module, *_ = imported("wandb.sdk.wandb_run")

    assert module.Run.log.__doc__ == "The library's own."
    assert module.Run.log.__name__ == "log"
