"""The models and optimizers of the process as plain data, for process.json."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from nndiag.adapters.base import Structure
from nndiag.adapters.pytorch.discovery import Discovery, Model
from nndiag.adapters.pytorch.optimizer_hooks import StepObserver

MAX_NAME = 200  # characters; generated names can be megabytes


def describe(
    discovery: Discovery,
    watched: Iterable[tuple[StepObserver, Any]],
    relus: Mapping[int, str],
) -> Structure:
    """What is known now.

    `watched`: pairs of observer and living optimizer. `relus`: graph node's name by module id.
    """
    structure = Structure()
    held: dict[int, tuple[str, float | None]] = {}
    for observer, optimizer in watched:
        models = discovery.models_of(observer.parameters(optimizer))
        structure.optimizers.append(
            {
                "owner": observer.owner,
                "kind": observer.kind,
                "model": models[0].name if models else "",
                "settings": observer.settings(optimizer),
            }
        )
        for group in optimizer.param_groups:
            lr = group.get("lr")
            for parameter in group["params"]:
                held[id(parameter)] = (observer.owner, lr if isinstance(lr, (int, float)) else None)
    for model in discovery.alive():
        structure.models.append(_model(model, held))
    device = next((str(p.device) for m in discovery.alive() for p in m.live_parameters()), "")
    structure.device = device
    for key, spelling in relus.items():
        name = next((m.modules[key] for m in discovery.alive() if key in m.modules), None)
        if name is not None:
            structure.relus.append({"name": name[:MAX_NAME], "spelling": spelling})
    return structure


def _model(model: Model, held: Mapping[int, tuple[str, float | None]]) -> Mapping[str, object]:
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
            _parameter(p, model, *held.get(id(p), (None, None)))
            for p in parameters
            if id(p) in model.parameters
        ],
    }


def _parameter(
    parameter: Tensor, model: Model, optimizer: str | None, lr: float | None
) -> Mapping[str, object]:
    return {
        "name": model.parameters[id(parameter)][:MAX_NAME],
        "shape": list(parameter.shape),
        "requires_grad": parameter.requires_grad,
        "optimizer": optimizer,
        "layer": model.layer_of[id(parameter)][:MAX_NAME],
        "lr": float(lr) if lr is not None else None,
    }
