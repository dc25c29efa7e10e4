"""Runs the model on variations of one captured sample, and leaves it as it was.

The parameters of the capture stand in for those of the model while it runs
(`torch.func.functional_call`): nothing is loaded into it, copied, or changed for good.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from nndiag.attribution.captured import Captured, put_together
from nndiag.errors import BadUsage


class CannotAttribute(BadUsage):
    """Something in the model or the batch that a method cannot work with, and what would."""


class ModelCall:
    """The call of a captured batch, made again for one sample at a time, with other inputs."""

    def __init__(
        self, model: nn.Module, captured: Captured, weights: Mapping[str, Tensor] | None
    ) -> None:
        """`weights`: in place of the model's own. Raises `CannotAttribute` if they do not fit."""
        self.model = model
        self.captured = captured
        self.device = next((p.device for p in model.parameters()), torch.device("cpu"))
        self._weights = _fitting(model, weights, self.device) if weights is not None else None
        self._inputs = {name: t.to(self.device) for name, t in captured.inputs.items()}
        self._embedded: dict[nn.Module, Tensor] = {}  # what an embedding gives out instead

    def sample(self, name: str, row: int) -> Tensor:
        """(1, ...) one sample of a batched input."""
        return self._inputs[name][row : row + 1]

    def batch(self, name: str) -> Tensor:
        """(R, ...) all of them."""
        return self._inputs[name]

    def output(
        self,
        row: int,
        replaced: Mapping[str, Tensor] | None = None,
        embedded: Mapping[nn.Module, Tensor] | None = None,
    ) -> Any:
        """What the model gives for b variations of a sample.

        `replaced`: inputs (b, ...) by name; `embedded`: outputs (b, ...) of embedding modules. All
        other inputs are those of the sample, b times.
        """
        replaced, embedded = replaced or {}, embedded or {}
        varied = next(iter([*replaced.values(), *embedded.values()]), None)
        count = 1 if varied is None else varied.shape[0]
        tensors = {}
        for name, tensor in self._inputs.items():
            if name in replaced:
                tensors[name] = replaced[name].clone()  # a model may work in place on its input
            elif name in self.captured.batched:
                one = tensor[row : row + 1]
                tensors[name] = one.repeat(count, *[1] * (one.ndim - 1))
            else:
                tensors[name] = tensor
        args = tuple(put_together(one, tensors) for one in self.captured.args)
        kwargs = {k: put_together(one, tensors) for k, one in self.captured.kwargs.items()}
        with _giving_out(embedded):
            if self._weights is None:
                return self.model(*args, **kwargs)
            return functional_call(self.model, self._weights, args, kwargs)


@contextlib.contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """In eval mode, with gradients, nothing in place, no cuDNN for recurrent nets; then as before.

    Dropout and batch statistics would make an attribution depend on chance and on other samples.
    cuDNN's recurrent nets refuse a backward pass in eval mode. Random numbers stay as they were.
    """
    modes = [(module, module.training) for module in model.modules()]
    in_place = [module for module in model.modules() if getattr(module, "inplace", False) is True]
    with_cudnn = not any(isinstance(module, nn.RNNBase) for module in model.modules())
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    with (
        torch.random.fork_rng(devices=devices),
        torch.enable_grad(),
        torch.backends.cudnn.flags(enabled=with_cudnn),
    ):
        try:
            for module, _ in modes:
                module.training = False
            for module in in_place:
                module.inplace = False  # type: ignore[assignment]
            torch.manual_seed(0)
            yield
        finally:
            for module, training in modes:
                module.training = training
            for module in in_place:
                module.inplace = True  # type: ignore[assignment]


@contextlib.contextmanager
def _giving_out(embedded: Mapping[nn.Module, Tensor]) -> Iterator[None]:
    """While it lasts, these modules give these tensors, whatever they are called with."""

    def giving(tensor: Tensor) -> Any:
        return lambda module, inputs, output: tensor

    with contextlib.ExitStack() as stack:
        for module, tensor in embedded.items():
            stack.callback(module.register_forward_hook(giving(tensor)).remove)
        yield


def _fitting(
    model: nn.Module, weights: Mapping[str, Tensor], device: torch.device
) -> dict[str, Tensor]:
    """The captured tensors on the model's device, if each has the shape that the model wants."""
    own = dict([*model.named_parameters(), *model.named_buffers()])
    odd = [name for name, tensor in own.items() if _differs(tensor, weights.get(name))]
    odd += [name for name in weights if name not in own]
    if odd:
        raise CannotAttribute(
            where=type(model).__name__,
            what=f"is not the model of the captured batch: {_listed(odd)} differ",
            do="give the script the same arguments as when it was watched",
        )
    return {name: tensor.to(device) for name, tensor in weights.items()}


def fits(model: nn.Module, weights: Mapping[str, Tensor]) -> bool:
    """Whether a model has exactly these parameters and buffers."""
    own = dict([*model.named_parameters(), *model.named_buffers()])
    return own.keys() == weights.keys() and not any(
        _differs(tensor, weights[name]) for name, tensor in own.items()
    )


def _differs(own: Tensor, other: Tensor | None) -> bool:
    return other is None or nn.parameter.is_lazy(own) or own.shape != other.shape


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - 3
    return ", ".join(names[:3]) + (f" and {rest} more" if rest > 0 else "")
