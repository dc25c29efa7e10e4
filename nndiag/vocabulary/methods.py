"""The attribution methods by name: what each says, and how far it can be trusted.

Known without torch and captum, so that a command line can be checked before either is loaded.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

AUTO = "auto"
# How a note begins that says why a batch is missing: written while training, read afterwards.
NOT_KEPT = (
    "the batch could not be kept for attributions: ",  # for what it is
    "a batch could not be kept for attributions: ",  # for the disk
)


@dataclass(frozen=True, slots=True)
class Method:
    """One method of Captum."""

    name: str  # ours
    captum: str  # the class there
    says: str
    of_layer: bool = False  # it attributes to the units of a layer, not to the input
    has_delta: bool = False  # sums to a known difference, so its error can be told
    has_sign: bool = True


METHODS = (
    Method(
        "integrated-gradients",
        "IntegratedGradients",
        "gradients along the way from a baseline; sums to the change of the output",
        has_delta=True,
    ),
    Method("input-x-gradient", "InputXGradient", "the input times its gradient; fast, first order"),
    Method("saliency", "Saliency", "size of the gradient: what a small change moves most",
           has_sign=False),
    Method("layer-conductance", "LayerConductance",
           "integrated gradients as they flow through the units of a layer",
           of_layer=True, has_delta=True),
    Method("layer-gradcam", "LayerGradCam", "where a convolution sees what the output is made of",
           of_layer=True, has_sign=False),
    Method("feature-ablation", "FeatureAblation",
           "what changes when a feature is put to its baseline; needs no gradient"),
)  # fmt: skip

_BY_KEY = {
    re.sub("[^a-z]", "", name.lower()): method
    for method in METHODS
    for name in (method.name, method.captum)
} | {"ig": METHODS[0]}


def names() -> tuple[str, ...]:
    """The names, in our order."""
    return tuple(method.name for method in METHODS)


def find(name: str) -> Method | None:
    """The method of that name, ours or Captum's, however it is written; None: there is none."""
    return _BY_KEY.get(re.sub("[^a-z]", "", name.lower()))
