"""Finds the models of a script that was not changed for us, and the names of their parts.

A global registration hook sees each module take its place in its parent, so from any module that
runs we can climb to the model it belongs to. Models that were copied or unpickled never registered
anything; they are found among the modules that ran. Nothing is attached to the user's objects.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from nndiag.adapters.pytorch.ranks import flat_shards, kind_of
from nndiag.adapters.pytorch.replaced import Undo

WRAPPERS = {  # class name -> attribute that holds the user's own model
    "DistributedDataParallel": "module",
    "DataParallel": "module",
    "FullyShardedDataParallel": "_fsdp_wrapped_module",
    "OptimizedModule": "_orig_mod",
}
MAX_MODULES = 10_000  # named modules of one model
MAX_ANCESTORS = 64
MAX_MODELS = 64  # of one process, dead ones included


@dataclass(slots=True)
class Model:
    """One model of the script, and what its parts are called."""

    name: str  # class name, made unique
    root: weakref.ref[nn.Module]
    modules: dict[int, str] = field(default_factory=dict)  # id(module) -> name
    parameters: dict[int, str] = field(default_factory=dict)  # id(parameter) -> name
    layer_of: dict[int, str] = field(default_factory=dict)  # id(parameter) -> module name
    kinds: dict[str, str] = field(default_factory=dict)  # module name -> class name
    leaves: set[str] = field(default_factory=set)  # names of modules without children
    order: dict[str, int] = field(default_factory=dict)  # module name -> place in the forward pass
    shards: int = 1  # parts that all of it is cut into, one for each rank
    prefix: str = ""  # of all names, where an optimizer holds more than this model

    def refresh(self) -> None:
        """Read the names again: layers may have come, gone or materialised."""
        root = self.root()
        if root is None:
            return
        self.modules.clear()
        self.parameters.clear()
        self.layer_of.clear()
        for name, module in root.named_modules(prefix=self.prefix):
            if len(self.modules) >= MAX_MODULES:
                break
            self.modules[id(module)] = name
            self.kinds[name] = kind_of(module)
            if not module._modules:
                self.leaves.add(name)
            for key, parameter in module._parameters.items():
                if parameter is not None and id(parameter) not in self.parameters:
                    self.parameters[id(parameter)] = f"{name}.{key}" if name else key
                    self.layer_of[id(parameter)] = name

    def live_parameters(self) -> Iterable[nn.Parameter]:
        root = self.root()
        return root.parameters() if root is not None else ()


class Discovery:
    """All models seen so far."""

    def __init__(self) -> None:
        self.models: list[Model] = []
        self._parent_of: dict[int, tuple[weakref.ref[Any], weakref.ref[Any]]] = {}
        self._holder_of: dict[int, weakref.ref[Any]] = {}  # id(parameter) -> its module
        self._not_models: dict[int, weakref.ref[Any]] = {}

    def install(self, guard: Callable[[Callable[..., None]], Callable[..., None]]) -> list[Undo]:
        """Learn of each module that is made from now on."""
        place = torch.nn.modules.module
        return [
            place.register_module_module_registration_hook(guard(self._registered)).remove,
            place.register_module_parameter_registration_hook(guard(self._holds)).remove,
        ]

    def adopt(self, modules: Iterable[nn.Module]) -> None:
        """Learn of modules that were made before."""
        for module in modules:
            for name, child in list(module._modules.items()):
                self._registered(module, name, child)
            for name, parameter in list(module._parameters.items()):
                self._holds(module, name, parameter)

    def _registered(self, parent: nn.Module, name: str, child: Any) -> None:
        if isinstance(child, nn.Module):
            key = id(child)
            gone = weakref.ref(child, lambda _: self._parent_of.pop(key, None))
            self._parent_of[key] = (gone, weakref.ref(parent))

    def _holds(self, module: nn.Module, name: str, parameter: Any) -> None:
        if parameter is not None:
            self._holder_of[id(parameter)] = weakref.ref(module)

    def has_parent(self, module: nn.Module) -> bool:
        """Whether the module is a part of another that still exists."""
        child, parent = self._parent_of.get(id(module), (None, None))
        still_it = child is not None and child() is module  # ids are reused
        return still_it and parent is not None and parent() is not None

    def root_of(self, module: nn.Module) -> nn.Module:
        """The model a module belongs to: its topmost ancestor, freed of parallel wrappers."""
        top = module
        for _ in range(MAX_ANCESTORS):
            child, parent = self._parent_of.get(id(top), (None, None))
            still_it = child is not None and child() is top  # ids are reused
            above = parent() if still_it and parent is not None else None
            if above is None:
                break
            top = above
        return bare(top)

    def learn(self, seen: Iterable[nn.Module]) -> bool:
        """Find the models of the modules that ran. True if there was a new one."""
        if len(self.models) >= MAX_MODELS:
            return False
        unknown = [m for m in seen if not self.knows(m) and not self._is_no_model(m)]
        if not unknown:
            return False
        roots = {id(root): root for root in map(self.root_of, unknown)}
        # Of copied models every part is its own root: the largest that holds the others is meant.
        by_size = sorted(roots.values(), key=lambda m: -sum(1 for _ in m.modules()))
        before = len(self.models)
        for root in by_size:
            if self.knows(root):
                continue
            if next(iter(root.parameters()), None) is None:
                self._not_models[id(root)] = weakref.ref(root)  # a loss, a metric
                continue
            self._add(root)
        return len(self.models) > before

    def learn_holders(self, parameters: Iterable[torch.Tensor]) -> None:
        """Find the models of these parameters, though none of their modules was seen to run."""
        known = {key for model in self.alive() for key in model.parameters}
        holders: list[nn.Module] = []
        for parameter in parameters:
            ref = self._holder_of.get(id(parameter))
            module = None if ref is None or id(parameter) in known else ref()
            if module is not None and any(p is parameter for p in module._parameters.values()):
                holders.append(module)
        self.learn(holders)

    def _is_no_model(self, module: nn.Module) -> bool:
        if type(module).__hash__ is None:  # torch itself cannot list the modules of such a one
            return True
        ref = self._not_models.get(id(module))
        return ref is not None and ref() is module  # ids are reused

    def _add(self, root: nn.Module) -> None:
        kind = kind_of(root)
        taken = {model.name for model in self.models}
        name, count = kind, 1
        while name in taken:
            name, count = f"{kind}-{count}", count + 1
        _, above = self._parent_of.get(id(root), (None, None))
        wrappers = [above() if above is not None else None, *root.modules()]
        model = Model(name, weakref.ref(root), shards=max(map(flat_shards, wrappers)))
        model.refresh()
        self.models.append(model)

    def knows(self, module: nn.Module) -> bool:
        return self.place(module) is not None

    def place(self, module: nn.Module) -> tuple[Model, str] | None:
        """The model a module belongs to, and its name there."""
        for model in self.alive():
            name = model.modules.get(id(module))
            if name is not None:
                return model, name
        return None

    def all_modules(self) -> list[nn.Module]:
        """Every module that was put into another, with the parts of both; parents first."""
        found: dict[int, nn.Module] = {}
        for _, holder in list(self._parent_of.values()):
            parent = holder()
            if parent is not None and id(parent) not in found:
                found |= {id(part): part for part in self.root_of(parent).modules()}
        return list(found.values())

    def alive(self) -> list[Model]:
        return [model for model in self.models if model.root() is not None]

    def models_of(self, parameters: Iterable[torch.Tensor]) -> list[Model]:
        """The models that hold these parameters; first the one that holds most."""
        ids = [id(p) for p in parameters]
        counts = [(sum(i in m.parameters for i in ids), m) for m in self.alive()]
        return [m for n, m in sorted(counts, key=lambda c: -c[0]) if n]

    def names_of(self, parameters: Iterable[torch.Tensor]) -> list[str]:
        """The names of parameters; a number where no model is known to hold one."""
        models = self.alive()
        return [
            next((m.parameters[id(p)] for m in models if id(p) in m.parameters), f"parameter {i}")
            for i, p in enumerate(parameters)
        ]

    def tell_apart(self, models: Iterable[Model]) -> None:
        """Where one optimizer holds several models, all but the first lead their parts' names."""
        for model in list(models)[1:]:
            if not model.order and not model.prefix:  # no name was written yet
                model.prefix = model.name
                model.refresh()


def bare(model: nn.Module) -> nn.Module:
    """The user's own model inside what wraps it for many devices, or for a compiler."""
    while attribute := WRAPPERS.get(type(model).__name__):
        inner = getattr(model, attribute, None)
        if not isinstance(inner, nn.Module):
            break
        model = inner
    return model
