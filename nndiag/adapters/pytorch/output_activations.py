"""Activations that are the very output of a module: seen in its forward hook, without a graph walk.

Walking the graph finds every ReLU, also those between modules, but visits each node from Python.
Once some walks have found nothing that no hook sees, the hooks are enough; now and then a walk
looks again. Shapes: K outputs of one shape, C units.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from nndiag.adapters.pytorch.autograd_graph import Activation
from nndiag.adapters.pytorch.tensor_stats import SMALL
from nndiag.adapters.pytorch.unit_activity import UnitActivity

FIRST_WALKS = 4  # measured steps of each optimizer: by then each part of a script has run
WALK_AGAIN = 16  # measured steps; our own choice


@dataclass(frozen=True, slots=True)
class Known:
    """What a walk found of one module's output."""

    module: weakref.ref[nn.Module]
    training: bool
    spelling: str
    unit_axis: int
    saturating: str


class OutputActivations:
    """Which modules put out an activation, and whether there are other activations, too."""

    def __init__(self, units: UnitActivity) -> None:
        self._units = units
        self._known: dict[int, Known] = {}  # by id of the module
        self._others = False  # activations that are no module's output

    def learn(self, activation: Activation) -> None:
        """Take what a walk has found."""
        module = activation.module
        if not activation.is_output:
            self._others = True
            return
        self._known[id(module)] = Known(
            weakref.ref(module),
            module.training,
            activation.spelling,
            activation.unit_axis,
            activation.saturating,
        )

    def wants_walk(self, fewest: int, newest: int) -> bool:
        """Whether the graph of the next measured step is walked.

        `fewest`: steps measured of the optimizer that has fewest; `newest`: of the present one.
        """
        return self._others or fewest < FIRST_WALKS or newest % WALK_AGAIN == 0

    def see(self, module: nn.Module, output: object) -> None:
        """Take the output of a module in a step without a walk. Small ones come with `see_all`."""
        known = self._known_of(module)
        if known is None or type(output) is not Tensor or output.numel() <= SMALL:
            return
        if output.ndim >= 2:
            self._units.see(
                Activation(module, known.spelling, output, known.unit_axis, known.saturating, True)
            )

    def see_all(self, modules: Sequence[nn.Module], outputs: Tensor) -> None:
        """Take small outputs of one shape: (K, ...), one for each module."""
        if outputs.ndim < 3:
            return
        alike: dict[tuple[int, str], list[int]] = {}
        found = [self._known_of(module) for module in modules]
        for place, known in enumerate(found):
            if known is not None:
                alike.setdefault((known.unit_axis, known.saturating), []).append(place)
        for (axis, saturating), places in alike.items():
            ours = outputs if len(places) == len(modules) else outputs[places]
            which = [(id(modules[p]), k.spelling) for p in places if (k := found[p]) is not None]
            self._units.see_all(which, ours, axis + 1 if axis >= 0 else axis, saturating)

    def _known_of(self, module: nn.Module) -> Known | None:
        known = self._known.get(id(module))
        if known is None or known.module() is not module or known.training != module.training:
            return None
        return known
