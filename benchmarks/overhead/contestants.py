"""What is put on a training: nothing, nndiag, wandb.watch or a rival; each has its own process.

A contestant is prepared before the model exists (`begin`), told of the training (`attach`), and
gives the function that makes one step, with the calls that its documentation asks for.
"""

from __future__ import annotations

import math
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from workloads import Training

Step = Callable[[], Any]


class Unwatched:
    """What a contestant does at its turns: nothing, and it knows nothing of its cost."""

    def waited(self, seconds: float) -> None:
        """Others had their turn for so long."""

    def cost_s(self) -> float:
        """What it says that it has taken so far."""
        return math.nan


class Watched(Unwatched):
    """nndiag, attached as `nndiag watch` does it: right after the import of torch."""

    def __init__(self, settings: dict[str, Any]) -> None:
        import torch

        from nndiag.watcher.session import Session

        run_dir = tempfile.mkdtemp(prefix="nndiag-overhead-")
        os.environ["NNDIAG_RUN"] = run_dir
        session = Session(torch, run_dir, settings)
        session.start({})
        self._guard = session._guard

    def waited(self, seconds: float) -> None:
        self._guard._began_s += seconds  # the training stood still: no time for the budget

    def cost_s(self) -> float:
        return self._guard.cost_s


@dataclass(frozen=True)
class Contestant:
    """One line of the table."""

    name: str
    module: str  # that has to be installed; "" for none
    attach: Callable[[Training], Step]
    begin: Callable[[], Unwatched] = Unwatched
    period: int = 1  # steps between two of its measurements
    rival: bool = True  # fewer rounds are enough: its ratio need not be exact
    on: tuple[str, ...] = ("mlp", "cnn", "gpt", "deep")


def bare(training: Training) -> Step:
    return training.step


def nndiag(**settings: Any) -> Callable[[], Unwatched]:
    return lambda: Watched(settings)


def empty_hooks(training: Training) -> Step:
    """A forward hook on every module that does nothing: the least that any watcher can cost."""
    for module in training.model.modules():
        module.register_forward_hook(lambda module, inputs, output: None)
    return training.step


def naive(training: Training) -> Step:
    """What people write by hand: a hook on every module and a loop over gradients, with .item()."""
    found: dict[str, float] = {}

    def hook(name: str) -> Callable[..., None]:
        def measure(module: Any, inputs: Any, output: Any) -> None:
            found[f"{name} variance"] = output.var().item()
            found[f"{name} zeros"] = (output == 0).float().mean().item()

        return measure

    for name, module in training.model.named_modules():
        module.register_forward_hook(hook(name))

    def step() -> Any:
        loss = training.step()
        for name, parameter in training.model.named_parameters():
            if parameter.grad is not None:
                found[name] = parameter.grad.norm().item()
        return loss

    return step


def wandb_watch(log: str, log_freq: int) -> Callable[[Training], Step]:
    def attach(training: Training) -> Step:
        os.environ["WANDB_SILENT"] = "true"
        import wandb

        run = wandb.init(mode="offline", dir=tempfile.mkdtemp(prefix="wandb-overhead-"))
        run.watch(training.model, log=log, log_freq=log_freq)

        def step() -> Any:
            loss = training.step()
            run.log({"loss": loss.item()})
            return loss

        return step

    return attach


def torchmortem(training: Training) -> Step:
    from torchmortem import Autopsy

    autopsy = Autopsy(training.model, optimizer=training.optimizer)
    autopsy.__enter__()

    def step() -> Any:
        loss = training.step()
        autopsy.step(loss=loss.item())
        return loss

    return step


def torch_audit(every: int) -> Callable[[Training], Step]:
    def attach(training: Training) -> Step:
        from torch_audit import autopatch

        autopatch(training.model, optimizer=training.optimizer, every_n_steps=every, reporters=[])
        return training.step

    return attach


def neuraldbg(training: Training) -> Step:
    from neuraldbg import NeuralDbg

    debugger = NeuralDbg(training.model)
    debugger.__enter__()

    def step() -> Any:
        loss = training.step()
        debugger.record_loss(loss.item())
        debugger.step += 1
        return loss

    return step


def cockpit(every: int) -> Callable[[Training], Step]:
    """Cockpit's economy configuration. BackPACK follows plain sequences of layers only."""

    def attach(training: Training) -> Step:
        from backpack import extend
        from cockpit import Cockpit
        from cockpit.utils import schedules
        from cockpit.utils.configuration import configuration
        from torch import nn

        model = extend(training.model)
        mean, each = extend(nn.CrossEntropyLoss()), nn.CrossEntropyLoss(reduction="none")
        quantities = configuration("economy", track_schedule=schedules.linear(every))
        watcher = Cockpit(model.parameters(), quantities=quantities)
        count = 0

        def step() -> Any:
            nonlocal count
            training.optimizer.zero_grad()
            outputs = model(training.inputs)
            loss = mean(outputs, training.targets)
            info = {
                "batch_size": len(training.inputs),
                "individual_losses": each(outputs, training.targets),
                "loss": loss,
                "optimizer": training.optimizer,
            }
            with watcher(count, info=info):
                loss.backward(create_graph=watcher.create_graph(count))
            training.optimizer.step()
            count += 1
            return loss

        return step

    return attach


CONTESTANTS: list[Contestant] = [
    Contestant("bare", "", bare, rival=False),
    Contestant("bare, again", "", bare, rival=False),  # how far the ratios can be trusted
    Contestant("nndiag, default", "", bare, nndiag(), period=10, rival=False),
    Contestant("nndiag, every step", "", bare, nndiag(every=1), rival=False),
    Contestant("nndiag, loss only", "", bare, nndiag(every=10**9), rival=False),
    Contestant("empty hooks", "", empty_hooks),
    Contestant("naive .item() hooks", "", naive),
    Contestant("wandb.watch gradients, 1", "wandb", wandb_watch("gradients", 1)),
    Contestant("wandb.watch gradients, 10", "wandb", wandb_watch("gradients", 10), period=10),
    Contestant("wandb.watch all, 1", "wandb", wandb_watch("all", 1)),
    Contestant("wandb.watch all, 10", "wandb", wandb_watch("all", 10), period=10),
    Contestant("torchmortem", "torchmortem", torchmortem),
    Contestant("torch-audit, 1", "torch_audit", torch_audit(1)),
    Contestant("torch-audit, 10", "torch_audit", torch_audit(10), period=10),
    Contestant("neuraldbg", "neuraldbg", neuraldbg),
    Contestant("cockpit economy, 1", "cockpit", cockpit(1), on=("mlp", "deep")),
    Contestant("cockpit economy, 10", "cockpit", cockpit(10), period=10, on=("mlp", "deep")),
]
