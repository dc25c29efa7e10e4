"""process.json and events of a run directory as records: optimizers, layers, parameters, origins.

Whatever does not have the form that the journal promises is left out: one odd entry costs itself.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from nndiag.readers.run_series import number
from nndiag.records import Fact, Layer, NonfiniteOrigin, Optimizer, Parameter

JsonObject = Mapping[str, Any]

TEXT_LENGTH = 200  # characters of a version or a device

LONGEST_TEXT = 200  # characters of a fact
FIELDS = frozenset({"event", "kind", "step", "where", "owner"})  # of a fact; the rest is numbers


def optimizers(process: JsonObject, steps: Mapping[str, int]) -> tuple[Optimizer, ...]:
    """The optimizers that made steps. `steps` has their number for each owner."""
    told = {text(entry, "owner"): entry for entry in objects(process, "optimizers")}
    found = []
    for owner, count in steps.items():
        entry = told.get(owner, {})
        kind = text(entry, "kind") or re.split(r"\W", owner)[0]  # "Adam(Net)" is an Adam
        listed = entry.get("settings")
        settings = listed.items() if isinstance(listed, dict) else ()
        numbers = ((name, number(value)) for name, value in settings)
        kept = tuple((name, value) for name, value in numbers if value is not None)
        found.append(Optimizer(owner, kind, count, kept))
    return tuple(found)


def layers(process: JsonObject) -> tuple[Layer, ...]:
    return tuple(
        Layer(
            name=text(layer, "name"),
            kind=text(layer, "kind"),
            order=whole(layer, "order"),
            model=text(model, "name"),
            parameters=tuple(name for name in items(layer, "parameters") if isinstance(name, str)),
        )
        for model in objects(process, "models")
        for layer in objects(model, "layers")
    )


def parameters(process: JsonObject) -> tuple[Parameter, ...]:
    return tuple(
        Parameter(
            name=text(parameter, "name"),
            shape=tuple(items_of_shape(parameter)),
            requires_grad=parameter.get("requires_grad") is not False,
            optimizer=text(parameter, "optimizer") or None,
            model=text(model, "name"),
            layer=text(parameter, "layer"),
            lr=number(parameter.get("lr")),
            has_grad=has_grad if isinstance(has_grad := parameter.get("has_grad"), bool) else None,
        )
        for model in objects(process, "models")
        for parameter in objects(model, "parameters")
    )


def environment(manifest: JsonObject, process: JsonObject) -> tuple[tuple[str, str], ...]:
    """What ran the script, by name. Its arguments and variables are not in it: secrets may be."""
    told = [(name, process.get(name)) for name in ("torch", "python", "device", "world_size")]
    told = [("script", manifest.get("script")), *told, ("nndiag", manifest.get("nndiag"))]
    return tuple(
        (name, str(value)[:TEXT_LENGTH])
        for name, value in told
        if isinstance(value, str | int) and not isinstance(value, bool)
    )


def origins(events: Iterable[JsonObject]) -> Iterator[NonfiniteOrigin]:
    """The tensors that went bad, in the order in which it was seen."""
    for event in events:
        value = number(event.get("value"))
        if event.get("event") == "nonfinite" and isinstance(event.get("step"), int):
            yield NonfiniteOrigin(
                step=event["step"],
                kind=text(event, "kind"),
                where=text(event, "where"),
                value=float("nan") if value is None else value,
                loss_finite=event.get("loss_finite") is True,
                detail=text(event, "detail"),
            )


def facts(events: Iterable[JsonObject]) -> Iterator[Fact]:
    """What was seen of code and data, in the order in which it was seen."""
    for event in events:
        step, kind = event.get("step"), text(event, "kind")
        if event.get("event") != "fact" or not kind or not isinstance(step, int):
            continue
        yield Fact(
            kind=kind,
            step=step,
            where=text(event, "where"),
            owner=text(event, "owner"),
            numbers=tuple(
                (name, found)
                for name, value in event.items()
                if name not in FIELDS and (found := _number_or_text(value)) is not None
            ),
        )


def _number_or_text(value: object) -> int | float | str | bool | None:
    """A value of a fact as it was told; a count stays whole."""
    if isinstance(value, bool) or (isinstance(value, int) and abs(value) < 2**53):
        return value
    found = number(value)
    return value[:LONGEST_TEXT] if found is None and isinstance(value, str) else found


def items_of_shape(entry: JsonObject) -> Iterator[int]:
    """Sizes of which a product is still a float: no tensor has 2^48 rows, or 20 dimensions."""
    for size in items(entry, "shape")[:20]:
        if isinstance(size, int) and 0 <= size < 2**48:
            yield size


def text(entry: JsonObject, key: str) -> str:
    value = entry.get(key)
    return value if isinstance(value, str) else ""


def whole(entry: JsonObject, key: str) -> int:
    value = entry.get(key)
    return value if isinstance(value, int) else 0


def items(entry: JsonObject, key: str) -> list[Any]:
    value = entry.get(key)
    return value if isinstance(value, list) else []


def objects(entry: JsonObject, key: str) -> Iterator[JsonObject]:
    return (item for item in items(entry, key) if isinstance(item, dict))
