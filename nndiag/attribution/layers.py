"""Which layer is attributed to, of the methods that attribute to one."""

from __future__ import annotations

from torch import nn

from nndiag.attribution.model_call import CannotAttribute
from nndiag.attribution.trace import Ran, Trace
from nndiag.vocabulary.methods import Method

IN_PLACE_OF_A_LAYER = "what works: --method integrated-gradients"


def layer_for(asked: str, method: Method, seen: Trace) -> tuple[str, nn.Module | None]:
    """Its name and the layer; none for a method of inputs. Raises `CannotAttribute`."""
    if not method.of_layer:
        if asked:
            raise CannotAttribute(
                where=f"--layer {asked}",
                what=f"{method.name} attributes to the input, not to a layer",
                do="with a layer: --method layer-conductance",
            )
        return "", None
    found = _named(asked, seen) if asked else _suiting(method, seen)
    if (times := seen.counts[found.name]) > 1:
        raise CannotAttribute(
            where=f"{method.name} of {found.name}",
            what=f"that layer runs {times} times in one pass, and Captum cannot tell them apart",
            do="name another: --layer NAME; or --method integrated-gradients",
        )
    if not found.gives_one:
        raise CannotAttribute(
            where=f"{method.name} of {found.name}",
            what="that layer gives more than one tensor",
            do="name another: --layer NAME; or --method integrated-gradients",
        )
    if method.name == "layer-gradcam" and len(found.output_shape) < 3:
        raise CannotAttribute(
            where=f"{method.name} of {found.name}",
            what="its output has no places, only units",
            do="what works: --method layer-conductance, or the name of a convolution",
        )
    return found.name, found.module


def _named(asked: str, seen: Trace) -> Ran:
    found = next((one for one in seen.ran if one.name == asked), None)
    if found is None:
        names = ", ".join(dict.fromkeys(one.name for one in seen.ran))[:500]
        raise CannotAttribute(
            where=f"--layer {asked}", what="no such layer ran", do=f"those that ran: {names}"
        )
    return found


def _suiting(method: Method, seen: Trace) -> Ran:
    if method.name == "layer-gradcam":
        if (found := seen.last_convolution()) is None:
            raise CannotAttribute(
                where=method.name,
                what="needs a convolution, and the model has none",
                do="what works: --method integrated-gradients, or layer-conductance",
            )
    elif (found := seen.before_the_last()) is None:
        raise CannotAttribute(
            where=method.name,
            what="the model has no layer between its input and its last one",
            do=IN_PLACE_OF_A_LAYER,
        )
    return found
