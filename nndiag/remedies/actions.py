"""Remedies as they are written out: a name of SPEC 4, the setting with both values, and the why."""

from __future__ import annotations

import math

from nndiag.records import Remedy
from nndiag.remedies.facts import Facts, about, fan_in

LR = "lr"
CLIP = "clip_grad_norm_.max_norm"
SAME = 1.5  # times: standard deviations this close are the same initialisation


def lower_lr(facts: Facts, factor: float, why: str, to: float | None = None) -> Remedy:
    """A learning rate `factor` times lower, or `to`."""
    old = facts.lr_reached
    if old is None:
        return Remedy("lower-lr", f"divide the learning rate by {factor:g}", why, LR)
    new = about(to, 2) if to is not None else about(old / factor, 1)
    return Remedy("lower-lr", f"lower the learning rate to {new:g}", why, LR, about(old, 3), new)


def raise_lr(facts: Facts, factor: float, why: str) -> Remedy:
    old = facts.lr
    if old is None:
        return Remedy("raise-lr", f"multiply the learning rate by {factor:g}", why, LR)
    new = about(old * factor, 1)
    return Remedy("raise-lr", f"raise the learning rate to {new:g}", why, LR, about(old, 3), new)


def anneal(facts: Facts, why: str) -> Remedy:
    """The learning rate decayed to 0 from now on: lower noise, not a verdict on the rate so far."""
    old = None if facts.lr is None else about(facts.lr, 3)
    text = "decay the learning rate to 0 from here on (cosine or linear)"
    return Remedy("lower-lr", text, why, LR, old, 0.0)


def add_warmup(facts: Facts, why: str) -> Remedy:
    total = facts.optimizer.steps if facts.optimizer else 0
    steps = int(about(max(20, 0.05 * total), 1)) if total else None
    text = f"warm the learning rate up over {steps or 'the first 5 % of the'} steps"
    return Remedy("add-warmup", text, why, "warmup_steps", 0, steps)


def clip_at(facts: Facts, percentile: float, why: str) -> Remedy:
    """Clipping at a percentile of the healthy norms: added, lowered or raised, as it comes out."""
    to = facts.norm_at(percentile)
    old = None if facts.clip is None else about(facts.clip, 3)
    if to is None:
        name = "add-clip" if old is None else "lower-clip"
        text = f"clip gradients at the {percentile:.0f}th percentile of their norm in healthy steps"
        return Remedy(name, text, why, CLIP, old)
    new = about(to, 2)
    name = "add-clip" if old is None else ("lower-clip" if new < old else "raise-clip")
    text = f"clip gradients at {new:g} (p{percentile:.0f} of healthy steps)"
    return Remedy(name, text, why, CLIP, old, new)


def clip_at_one(facts: Facts, why: str) -> Remedy:
    """Where no step was healthy: 1.0, as most recipes have it."""
    old = None if facts.clip is None else about(facts.clip, 3)
    return Remedy("add-clip" if old is None else "lower-clip", "clip gradients at 1.0", why, CLIP,
                  old, 1.0)  # fmt: skip


def unclip(facts: Facts, why: str) -> Remedy:
    """A threshold raised to where it cuts a tenth of the steps."""
    old = None if facts.clip is None else about(facts.clip, 3)
    series = facts.whole("grad_norm")
    to = None
    if series is not None:
        finite = sorted(v for v in series.values.tolist() if math.isfinite(v))
        to = about(finite[int(0.9 * (len(finite) - 1))], 2) if finite else None
    where = f"to {to:g} (p90 of the norms)" if to is not None else "to the p90 of the norms"
    return Remedy("raise-clip", f"raise the clipping threshold {where}", why, CLIP, old, to)


def larger_batch(why: str, factor: int = 4) -> Remedy:
    text = f"use a batch {factor} times as large, or average the gradients of {factor} batches"
    return Remedy("larger-batch", text, why, "batch_size", None, f"x{factor}")


def lower_beta2(facts: Facts, why: str) -> Remedy:
    old = facts.beta2
    return Remedy("change-optimizer", "lower Adam's beta2 to 0.95", why, "betas[1]", old, 0.95)


def to_adam(facts: Facts, why: str) -> Remedy:
    old = facts.optimizer.kind if facts.optimizer else None
    text = "train with AdamW (lr 0.001) instead"
    return Remedy("change-optimizer", text, why, "optimizer", old, "AdamW")


def add_momentum(facts: Facts, why: str) -> Remedy:
    return Remedy("change-optimizer", "give SGD momentum 0.9", why, "momentum", 0.0, 0.9)


def reinitialise(facts: Facts, layer: str, why: str) -> list[Remedy]:
    """He or Xavier initialisation, with the standard deviation of one layer as it was and will be.

    Nothing where the layer already started like that: the cause is another.
    """
    squashing = facts.saturating
    scheme = "Xavier" if squashing else "He"
    call = "nn.init.xavier_normal_" if squashing else "nn.init.kaiming_normal_"
    known = facts.weight_of(layer)
    if known is None:
        text = f"initialise the weights by {scheme} ({call}), biases at 0"
        return [Remedy("reinitialise", text, why, call)]
    parameter, std = known
    ins = fan_in(parameter)
    outs = parameter.shape[0] * math.prod(parameter.shape[2:])
    ideal = math.sqrt(2 / (ins + outs)) if squashing else math.sqrt(2 / ins)
    text = (
        f"initialise the weights by {scheme} ({call}; in `{layer}` a standard deviation of "
        f"{ideal:.2g}), biases at 0"
    )
    if 1 / SAME < std / ideal < SAME:
        return []
    setting = f"std of {parameter.name}"
    return [Remedy("reinitialise", text, why, setting, about(std), about(ideal))]


def zero_bias(facts: Facts, layer: str, bias: float, why: str) -> Remedy:
    return Remedy(
        "reinitialise",
        f"start the biases at 0 (in `{layer}` they begin at a size of {bias:.2g}) and the weights "
        "by He (nn.init.kaiming_normal_)",
        why,
        f"bias of {layer}",
        about(bias),
        0.0,
    )


def add_normalisation(facts: Facts, why: str) -> Remedy:
    convolutional = any(layer.kind.startswith("Conv") for layer in facts.layers)
    kind = "BatchNorm2d" if convolutional else "LayerNorm"
    text = f"put a normalisation layer (nn.{kind}) between each of these layers and its activation"
    return Remedy("add-normalisation", text, why, "", None, f"nn.{kind}")


def change_activation(old: str, new: str, why: str) -> Remedy:
    text = f"use {new} instead of {old}"
    return Remedy("change-activation", text, why, "activation", old, new)


def normalise_inputs(why: str) -> Remedy:
    text = "scale each input feature to mean 0 and standard deviation 1"
    return Remedy("normalise-inputs", text, why)


def inspect_data(text: str, why: str) -> Remedy:
    return Remedy("inspect-data", text, why)


def to_bfloat16(why: str) -> Remedy:
    text = "use bfloat16 autocast, which has the range of float32, without a gradient scaler"
    return Remedy("change-precision", text, why, "autocast dtype", "float16", "bfloat16")
