"""`--compiled traced`: layer statistics that torch.compile takes into its own graphs.

Where our forward hook is traced, `trace` adds the statistics of a module's output to eight numbers
that the module carries as a plain attribute: no graph break, and no guard but on that attribute, so
that one graph still serves all blocks of a kind. The numbers are added up at every step, read at
measured ones and set to zero in between. The compiler fuses them with the training's own
operations, which changes the last bits of its results: this is for those who ask for it.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from nndiag.adapters.pytorch.module_hooks import ModuleStats
from nndiag.adapters.pytorch.quiet import unseen
from nndiag.adapters.pytorch.tensor_stats import ACTIVATION, as_wide, subsample

NAME = "_nndiag_sums"  # attribute of modules: no buffer, which DDP and state_dict would see
WIDTH = len(ACTIVATION)
NOTHING, STATIC, DYNAMIC = 0, 1, 2  # what may be traced at one place


def trace(module: nn.Module, output: Any) -> None:
    """Traced, never run: add what `output` shows to the module's sums."""
    if not module.training or not torch.is_grad_enabled():
        return
    mode = _mode()
    sums = getattr(module, NAME, None)
    if mode == NOTHING or sums is None:
        return
    while isinstance(output, tuple | list) and len(output):
        output = output[0]
    if type(output) is not Tensor or not output.is_floating_point():
        return
    if output.device != sums.device:
        return
    with torch.no_grad(), torch.autocast(sums.device.type, enabled=False):
        x = output.detach()
        if mode == STATIC:
            if not x.numel():
                return
            x = subsample(x)
        sums.copy_(_merged(sums, as_wide(x)))


def _merged(sums: Tensor, x: Tensor) -> Tensor:
    """`sums` and the statistics of `x`, as one (Chan et al. 1979): (8,), as in ACTIVATION."""
    count = torch.full_like(sums[0], x.numel())
    if x.ndim > 1 and x.shape[0] > 1:
        samples = x.shape[0]
        of_each = x.mean(0)
        mean = of_each.mean()
        across = (x - of_each).square().mean()
        variance = across + (of_each - mean).square().mean()
    else:
        samples, mean = 1, x.mean()
        across = torch.full_like(mean, float("nan"))
        variance = (x - mean).square().mean()
    total = sums[0] + count
    share, moved = count / total, mean - sums[2]
    return torch.stack(
        [
            total,
            torch.full_like(sums[0], samples),
            sums[2] + moved * share,
            sums[3] + share * (variance - sums[3] + moved * moved * (1 - share)),
            sums[4] + share * (across - sums[4]),
            torch.maximum(sums[5], x.abs().amax()),
            sums[6] + (x == 0).to(x.dtype).sum(),  # as numbers: twice as quick as truth values
            sums[7] + torch.isfinite(x).logical_not().to(x.dtype).sum(),
        ]
    )


def _mode() -> int:
    """What may be traced here. The compiler calls this while it traces, and keeps the answer."""
    tracer = TracedSums.of_process
    return NOTHING if tracer is None else tracer.mode()


class TracedSums:
    """The sums of all modules of this process."""

    of_process: TracedSums | None = None  # what is traced finds it here

    def __init__(self, modules: Callable[[], Iterable[nn.Module]]) -> None:
        """`modules`: all that are known; children after their parents."""
        self._modules = modules
        self._sums: dict[int, tuple[weakref.ref[nn.Module], Tensor]] = {}
        self._prepared: Callable[[], object] = lambda: None  # the graph that is being traced
        self.hidden: set[str] = set()  # why something could not be traced
        self.traced = False

    def install(self) -> None:
        """Must come before anything is compiled."""
        from torch._dynamo import assume_constant_result

        assume_constant_result(_mode)  # type: ignore[no-untyped-call]
        TracedSums.of_process = self

    def mode(self) -> int:
        """What may be traced at the place that the compiler has come to."""
        try:
            return self._mode_of_place()
        except Exception as error:  # private parts of torch: without them nothing is traced
            self.hidden.add(f"{type(error).__name__}: {error}"[:200])
            return NOTHING

    def _mode_of_place(self) -> int:
        from torch._dynamo.symbolic_convert import InstructionTranslator

        graph = InstructionTranslator.current_tx().output
        if graph.current_tracer.parent is not None:  # a body that must not change what is outside
            self.hidden.add("parts inside of activation checkpoints and other wrapped functions")
            return NOTHING
        if torch._C._functorch.peek_interpreter_stack() is not None:
            self.hidden.add("parts inside of torch.func transforms")
            return NOTHING
        if self._prepared() is not graph:
            self._prepared = weakref.ref(graph)
            self.give(self._modules())
        self.traced = True
        # Asking for a size that may change would tie the graph to one size.
        return DYNAMIC if graph.shape_env.var_to_val else STATIC

    def give(self, modules: Iterable[nn.Module]) -> None:
        """Give sums to the modules that have none on their device yet."""
        with unseen():
            device = torch.device("cpu")
            for module in list(modules):
                own = next(iter([*module._parameters.values(), *module._buffers.values()]), None)
                device = own.device if own is not None else device
                if device.type != "meta" and not _is_sequence(module):
                    self._give(module, device)

    def _give(self, module: nn.Module, device: torch.device) -> None:
        known = self._sums.get(id(module))
        carried = module.__dict__.get(NAME)  # of a copied module it is the original's
        if known is None or known[0]() is not module or known[1] is not carried:
            carried = None
        if carried is None or carried.device != device:
            sums = torch.zeros(WIDTH, device=device)
            torch._dynamo.mark_static_address(sums, guard=False)
            module.__dict__[NAME] = sums
            self._sums[id(module)] = weakref.ref(module), sums

    def zero(self) -> None:
        """Forget what was added up so far."""
        sums = [sums for _, _, sums in self._alive()]
        if sums:
            torch._foreach_zero_(sums)

    def take(self, stats: ModuleStats) -> None:
        """Hand what was added up to `stats`, each module as one call, and begin again."""
        rows: dict[int, list[Any]] = {}
        modules: dict[int, nn.Module] = {}
        for key, module, sums in self._alive():
            row = sums.tolist() if sums.is_cpu else list(sums.clone().unbind())
            if not sums.is_cpu or row[0]:  # a GPU is not asked whether a module has run
                rows[key], modules[key] = row, module
        for key, row in rows.items():
            module = modules[key]
            if not _hands_on(module, row, rows):
                stats.modules[key] = module
                stats.training.setdefault(key, []).append(row)
        self.zero()

    def _alive(self) -> Iterator[tuple[int, nn.Module, Tensor]]:
        """Children before parents, as in a forward pass."""
        for key, (ref, sums) in reversed(list(self._sums.items())):
            module = ref()
            if module is None:
                del self._sums[key]
            else:
                yield key, module, sums


def _hands_on(module: nn.Module, row: list[Any], rows: dict[int, list[Any]]) -> bool:
    """Whether a container put out what one of its parts did: the same numbers, to the bit."""
    if not module._modules or isinstance(row[0], Tensor):
        return False
    return any(rows.get(id(part)) == row for part in module.modules() if part is not module)


def _is_sequence(module: nn.Module) -> bool:
    """Whether the module's output always is that of its last child."""
    return type(module).forward is nn.Sequential.forward
