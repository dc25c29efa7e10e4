"""Which layer is attributed to, of the methods that attribute to one."""

from __future__ import annotations

from dataclasses import dataclass

from torch import nn

from nndiag.attribution.model_call import CannotAttribute
from nndiag.attribution.trace import Ran, Trace
from nndiag.vocabulary.methods import Method

ANOTHER = "name another: --layer NAME; or what works: --method integrated-gradients"


@dataclass(frozen=True, slots=True, eq=False)
class Layer:
    """What is attributed to: the units that a layer gives out, or those that it takes in."""

    name: str  # as the report calls it
    module: nn.Module
    of_input: bool = False


def layer_for(asked: str, method: Method, seen: Trace) -> Layer | None:
    """The layer; None for a method of inputs. Raises `CannotAttribute`."""
    if not method.of_layer:
        if asked:
            raise CannotAttribute(
                where=f"--layer {asked}",
                what=f"{method.name} attributes to the input, not to a layer",
                do="with a layer: --method layer-conductance",
            )
        return None
    if not asked and method.name == "layer-conductance":
        return _before_the_last(method, seen)
    found = _named(asked, seen) if asked else _last_convolution(method, seen)
    what = _obstacle(found, method, seen)
    if what:
        raise CannotAttribute(where=f"{method.name} of {found.name}", what=what, do=ANOTHER)
    return Layer(found.name, found.module)


def _obstacle(found: Ran, method: Method, seen: Trace) -> str:
    """Why a method cannot work with a layer; "" if it can."""
    if (times := seen.counts[found.name]) > 1:
        return f"that layer runs {times} times in one pass, and Captum cannot tell them apart"
    if not found.gives_one:
        return "that layer gives more than one tensor"
    if method.name == "layer-gradcam" and len(found.output_shape) < 3:
        return "its output has no places, only units"
    return ""


def _named(asked: str, seen: Trace) -> Ran:
    found = next((one for one in seen.ran if one.name == asked), None)
    if found is None:
        names = ", ".join(dict.fromkeys(one.name for one in seen.ran))[:500]
        raise CannotAttribute(
            where=f"--layer {asked}", what="no such layer ran", do=f"those that ran: {names}"
        )
    return found


def _last_convolution(method: Method, seen: Trace) -> Ran:
    if (found := seen.last_convolution()) is None:
        raise CannotAttribute(
            where=method.name,
            what="needs a convolution, and the model has none",
            do="what works: --method integrated-gradients, or layer-conductance",
        )
    return found


def _before_the_last(method: Method, seen: Trace) -> Layer:
    """What the last layer takes in: all that the output is made of passes there, so that the
    conductances add up to the whole change."""
    leaves = seen.with_parameters()
    if len(leaves) < 2:
        raise CannotAttribute(
            where=method.name,
            what="the model has no layer between its input and its last one",
            do="what works: --method integrated-gradients",
        )
    last = leaves[-1]
    times = seen.counts[last.name]
    if times > 1 or len(last.inputs) != 1:
        several = f"runs {times} times in one pass" if times > 1 else "takes more than one tensor"
        raise CannotAttribute(
            where=f"{method.name} of {last.name}", what=f"the last layer {several}", do=ANOTHER
        )
    return Layer(f"input of {last.name}", last.module, of_input=True)
