"""One forward pass, looked at: which modules ran, in which order, and what they were given."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from nndiag.attribution.model_call import ModelCall

CONVOLUTIONS = (
    nn.Conv1d, nn.Conv2d, nn.Conv3d,
    nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d,
)  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class Ran:
    """One call of a module."""

    name: str  # as named_modules() gives it
    module: nn.Module
    inputs: tuple[Tensor, ...]
    output_shape: tuple[int, ...]  # of its first tensor; () where it gave none
    gives_one: bool  # tensor, and nothing besides


@dataclass(frozen=True, slots=True)
class Trace:
    """What ran, in the order in which it ended."""

    ran: tuple[Ran, ...]
    output: Any  # of the model, for one sample

    @property
    def counts(self) -> dict[str, int]:
        """How often each module ran."""
        found: dict[str, int] = {}
        for one in self.ran:
            found[one.name] = found.get(one.name, 0) + 1
        return found

    def embedding_of(self, ids: Tensor) -> nn.Module | None:
        """The `nn.Embedding` that was given these very ids."""
        for one in self.ran:
            if isinstance(one.module, nn.Embedding) and any(
                given.shape == ids.shape and torch.equal(given, ids) for given in one.inputs
            ):
                return one.module
        return None

    def last_convolution(self) -> Ran | None:
        return next((r for r in reversed(self.ran) if isinstance(r.module, CONVOLUTIONS)), None)

    def with_parameters(self) -> list[Ran]:
        """The layers that hold parameters themselves and none in parts of theirs."""
        return [r for r in self.ran if r.module._parameters and not r.module._modules]


@dataclass(slots=True)
class _Notes:
    ran: list[Ran] = field(default_factory=list)


def trace(call: ModelCall, row: int = 0) -> Trace:
    """Run the model once, without gradients, on one sample as it is."""
    notes = _Notes()
    names = {module: name for name, module in call.model.named_modules()}
    handles = [
        module.register_forward_hook(_note(notes, name), with_kwargs=True)
        for module, name in names.items()
        if module is not call.model
    ]
    try:
        with torch.no_grad():
            output = call.output(row)
    finally:
        for handle in handles:
            handle.remove()
    return Trace(tuple(notes.ran), output)


def _note(notes: _Notes, name: str) -> Any:
    def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        given = tuple(one for one in (*args, *kwargs.values()) if isinstance(one, Tensor))
        first = output[0] if isinstance(output, tuple) and output else output
        shape = tuple(first.shape) if isinstance(first, Tensor) else ()
        notes.ran.append(Ran(name, module, given, shape, isinstance(output, Tensor)))

    return hook
