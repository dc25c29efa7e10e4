"""The models and optimizers of the process as plain data, for process.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from nndiag.adapters.base import Structure
from nndiag.adapters.pytorch.discovery import Discovery, Model
from nndiag.adapters.pytorch.optimizer_hooks import StepObserver
from nndiag.adapters.pytorch.ranks import is_partial, shards_of

MAX_NAME = 200  # characters; generated names can be megabytes


class Register:
    """What is known of models and optimizers; of those that are gone, what was known last.

    When a script ends, its training function has often returned and nothing of it is alive.
    """

    def __init__(self) -> None:
        self._optimizers: dict[str, Mapping[str, object]] = {}  # by owner
        self._models: dict[str, Mapping[str, object]] = {}  # by name
        self._held: dict[tuple[str, str], tuple[str, float | None]] = {}  # (model, parameter)
        self._relus: dict[str, str] = {}  # name of a module -> graph node's name
        self._device = ""

    def describe(
        self,
        discovery: Discovery,
        watched: Iterable[tuple[StepObserver, Any]],
        relus: Mapping[int, str],
    ) -> Structure:
        """What is known now.

        `watched`: pairs of observer and living optimizer. `relus`: graph node's name by module id.
        """
        models = discovery.alive()
        for observer, optimizer in watched:
            self._learn_optimizer(observer, optimizer, discovery)
        for model in models:
            self._models[model.name] = _model(model, self._held)
        for key, spelling in relus.items():
            name = next((m.modules[key] for m in models if key in m.modules), None)
            if name is not None:
                self._relus[name[:MAX_NAME]] = spelling
        devices = (str(p.device) for m in models for p in m.live_parameters())
        self._device = next(devices, self._device)
        return Structure(
            optimizers=list(self._optimizers.values()),
            models=list(self._models.values()),
            relus=[{"name": name, "spelling": kind} for name, kind in self._relus.items()],
            device=self._device,
        )

    def _learn_optimizer(
        self, observer: StepObserver, optimizer: Any, discovery: Discovery
    ) -> None:
        models = discovery.models_of(observer.parameters(optimizer))
        self._optimizers[observer.owner] = {
            "owner": observer.owner,
            "kind": observer.kind,
            "model": models[0].name if models else "",
            "settings": observer.settings(optimizer),
            **({"sharded": True} if observer.sharded else {}),
        }
        for group in optimizer.param_groups:
            lr = group.get("lr")
            told = observer.owner, lr if isinstance(lr, (int, float)) else None
            for model in models:
                names = (model.parameters.get(id(p)) for p in group["params"])
                self._held |= {(model.name, name): told for name in names if name is not None}


def _model(
    model: Model, held: Mapping[tuple[str, str], tuple[str, float | None]]
) -> Mapping[str, object]:
    parameters = list(model.live_parameters())
    own: dict[str, list[str]] = {}
    for parameter in parameters:
        layer = model.layer_of.get(id(parameter))
        if layer is not None:
            own.setdefault(layer, []).append(model.parameters[id(parameter)][:MAX_NAME])
    layers = sorted(model.order, key=lambda name: model.order[name])
    return {
        "name": model.name,
        "layers": [
            {
                "name": name[:MAX_NAME],
                "kind": model.kinds.get(name, ""),
                "order": model.order[name],
                "parameters": own.get(name, []),
            }
            for name in layers
        ],
        "parameters": [
            _parameter(p, model, *held.get((model.name, model.parameters[id(p)]), (None, None)))
            for p in parameters
            if id(p) in model.parameters
        ],
        **({"shards": model.shards} if model.shards > 1 else {}),
    }


def _parameter(
    parameter: Tensor, model: Model, optimizer: str | None, lr: float | None
) -> Mapping[str, object]:
    shards = shards_of(parameter)
    return {
        "name": model.parameters[id(parameter)][:MAX_NAME],
        "shape": list(parameter.shape),
        "requires_grad": parameter.requires_grad,
        "has_grad": parameter.grad is not None,
        "optimizer": optimizer,
        "layer": model.layer_of[id(parameter)][:MAX_NAME],
        "lr": float(lr) if lr is not None else None,
        **({"shards": shards} if shards > 1 else {}),
        **({"partial_grad": True} if is_partial(parameter.grad) else {}),
    }
