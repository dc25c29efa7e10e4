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

TABLES = ("_parameters", "_buffers", "_hooks", "_hooks_with_kwargs", "_hooks_always_called")
HALVES = (torch.float16, torch.bfloat16)


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
        self.weights: dict[str, Tensor] = (
            _fitting(model, weights, self.device) if weights is not None else _own(model)
        )
        dtypes = {t.dtype for t in self.weights.values() if t.is_floating_point()}
        self._inputs = {
            name: _widened(t, dtypes).to(self.device) for name, t in captured.inputs.items()
        }

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
        embedded: Mapping[str, tuple[nn.Module, Tensor]] | None = None,
    ) -> Any:
        """What the model gives for b variations of a sample.

        `replaced`: inputs (b, ...) by name; `embedded`: for ids by name, the module that they enter
        and what it gives out (b, ...). All other inputs are those of the sample, b times.
        """
        replaced, embedded = replaced or {}, embedded or {}
        varied = [*replaced.values(), *(vectors for _, vectors in embedded.values())]
        count = varied[0].shape[0] if varied else 1
        tensors = {}
        for name, tensor in self._inputs.items():
            if name in replaced:
                tensors[name] = replaced[name].clone()  # a model may work in place on its input
            elif name in self.captured.batched:
                one = tensor[row : row + 1]
                tensors[name] = one.repeat(count, *[1] * (one.ndim - 1))
            else:
                tensors[name] = tensor.clone()
        with contextlib.ExitStack() as stack:
            for name, (module, vectors) in embedded.items():
                stack.enter_context(_giving_out(module, tensors[name].clone(), vectors))
            return self._run(tensors)

    def output_of_first(self, rows: int) -> Any:
        """What the model gives for the first captured samples at once."""
        batched = self.captured.batched
        return self._run(
            {n: (t[:rows] if n in batched else t).clone() for n, t in self._inputs.items()}
        )

    def _run(self, tensors: Mapping[str, Tensor]) -> Any:
        args = tuple(put_together(one, tensors) for one in self.captured.args)
        kwargs = {k: put_together(one, tensors) for k, one in self.captured.kwargs.items()}
        return functional_call(self.model, self.weights, args, kwargs)

    def vectors_of(self, embedding: nn.Module, ids: Tensor) -> Tensor:
        """(b, ..., E) what an embedding of the model gives for ids (b, ...)."""
        own = {id(p): name for name, p in self.model.named_parameters()}  # shared ones once
        weights = {
            name: self.weights[own[id(p)]] if id(p) in own else p
            for name, p in embedding.named_parameters()
        }
        with torch.no_grad():
            vectors: Tensor = functional_call(embedding, weights, (ids,))
        return vectors.detach()


@contextlib.contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """In eval mode, with gradients, nothing in place and nothing by chance; then as before.

    Dropout and batch statistics would make an attribution depend on chance and on other samples.
    cuDNN's recurrent nets refuse a backward pass in eval mode, and PyTorch's fast path for
    attention has none. What the modules keep of a forward pass is put back.
    """
    modules = list(model.modules())
    kept = [(module, dict(vars(module)), _tables(module)) for module in modules]
    with_cudnn = not any(isinstance(module, nn.RNNBase) for module in modules)
    with (
        _random_numbers(model),
        torch.inference_mode(False),
        torch.enable_grad(),
        _without_autocast(),
        _without_fast_path(),
        torch.backends.cudnn.flags(enabled=with_cudnn, deterministic=True, allow_tf32=False),
    ):
        try:
            for module in modules:
                module.training = False
                if getattr(module, "inplace", False) is True:
                    module.inplace = False  # type: ignore[assignment]
            yield
        finally:
            for module, attributes, tables in kept:
                _put_back(vars(module), attributes)
                for table, before in tables:
                    _put_back(table, before)


def _tables(module: nn.Module) -> list[tuple[dict[Any, Any], dict[Any, Any]]]:
    """Parameters, buffers and hooks of a module, each with a copy.

    `functional_call` puts back the wrong parameters into a module that a model holds twice.
    """
    tables = [kept for name, kept in vars(module).items() if name.endswith(TABLES)]
    return [(table, dict(table)) for table in tables if isinstance(table, dict)]


def _put_back(now: dict[Any, Any], before: Mapping[Any, Any]) -> None:
    for name in [name for name in now if name not in before]:
        del now[name]
    for name, value in before.items():
        if name not in now or now[name] is not value:
            now[name] = value


@contextlib.contextmanager
def _random_numbers(model: nn.Module) -> Iterator[None]:
    """The same ones each time; those of the training go on afterwards where they were."""
    is_on_gpu = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = {p.device.index for p in model.parameters() if p.is_cuda} if is_on_gpu else set()
    with torch.random.fork_rng(devices=sorted(devices)):
        torch.default_generator.manual_seed(0)
        for index in devices:
            torch.cuda.default_generators[index].manual_seed(0)
        yield


@contextlib.contextmanager
def _without_autocast() -> Iterator[None]:
    """In full precision, also inside a forward pass of the script that is not."""
    with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
        yield


@contextlib.contextmanager
def _without_fast_path() -> Iterator[None]:
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextlib.contextmanager
def _giving_out(module: nn.Module, ids: Tensor, vectors: Tensor) -> Iterator[None]:
    """While it lasts, a module gives these vectors for these ids (and its own for others)."""

    def give(module: nn.Module, args: Any, kwargs: Any, output: Any) -> Tensor | None:
        given = next((x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)), None)
        if given is None or given.shape != ids.shape or not torch.equal(given, ids):
            return None
        return vectors.clone()  # what follows may work in place

    # First of all hooks, so that those of a method see what the model sees.
    handle = module.register_forward_hook(give, prepend=True, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def _own(model: nn.Module) -> dict[str, Tensor]:
    """The model's own tensors, without gradients of their own; as copies where a forward pass may
    change them: buffers, and the vectors of an embedding with `max_norm`."""
    odd = [name for name, p in model.named_parameters() if nn.parameter.is_lazy(p)]
    if odd:
        raise CannotAttribute(
            where=type(model).__name__, what=f"{odd[0]} has no shape yet: it never ran"
        )
    changed = {
        id(p)
        for module in model.modules()
        if getattr(module, "max_norm", None) is not None
        for p in module.parameters(recurse=False)
    }
    changed |= {id(b) for b in model.buffers()}
    return {
        name: t.detach().clone() if id(t) in changed or t.is_inference() else t.detach()
        for name, t in [*model.named_parameters(), *model.named_buffers()]
    }


def _widened(tensor: Tensor, dtypes: set[torch.dtype]) -> Tensor:
    """A half-precision input as autocast made it, for the full precision of the parameters."""
    return tensor.float() if tensor.dtype in HALVES and dtypes == {torch.float32} else tensor


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


def shapes_of(model: nn.Module) -> dict[str, tuple[int, ...]]:
    """Shape of each parameter and buffer; () of what has none yet."""
    named = [*model.named_parameters(), *model.named_buffers()]
    return {name: () if nn.parameter.is_lazy(t) else tuple(t.shape) for name, t in named}


def _differs(own: Tensor, other: Tensor | None) -> bool:
    return other is None or nn.parameter.is_lazy(own) or own.shape != other.shape


def _listed(names: Sequence[str]) -> str:
    rest = len(names) - 3
    return ", ".join(names[:3]) + (f" and {rest} more" if rest > 0 else "")
