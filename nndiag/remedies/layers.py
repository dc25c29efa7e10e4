"""What to do about findings of layers, gradients and parameters."""

from __future__ import annotations

import numpy as np

from nndiag.records import Finding, Remedy
from nndiag.remedies import actions
from nndiag.remedies.facts import EARLY_UPDATE, Facts, about, times

Others = tuple[Finding, ...]

LARGE_INPUT = 100.0  # variance across samples: features of size 10, far from order 1


def of_vanishing_gradient(facts: Facts, others: Others) -> list[Remedy]:
    """Squashing activations in depth: replace them. Otherwise the weights start too small."""
    ratio = _number(facts, "gradient_ratio")
    factor = _number(facts, "factor_per_layer")
    if _number(facts, "gradient_largest") == 0:
        return _of_no_gradient(facts)
    seen = f"the first layers get {ratio:.1g} of the largest gradient"
    large = _input_remedy(facts)
    if large is not None and any(other.name == "saturated-activation" for other in others):
        return [large, *_activation_and_norm(facts, seen)]
    layer = facts.finding.layers[0] if facts.finding.layers else ""
    initialise = actions.reinitialise(facts, layer, seen)
    if facts.saturating:
        why = f"{seen}; {facts.saturating} costs a factor of {max(factor, 1):.2g} per layer"
        new = "ReLU, GELU or SiLU"
        return [
            actions.change_activation(facts.saturating, new, why),
            *([] if facts.normalised else [actions.add_normalisation(facts, seen)]),
            *initialise,
        ]
    found = initialise
    if not facts.normalised:
        found.append(actions.add_normalisation(facts, seen))
    if facts.adaptive is False:
        why = f"{seen}; Adam divides each gradient by its own size (8 layers: SGD 2.30, Adam 0.27)"
        found.append(actions.to_adam(facts, why))
    return found


def _of_no_gradient(facts: Facts) -> list[Remedy]:
    """A gradient of exactly 0 everywhere: units that died or saturated, or zero weights."""
    why = "the gradient of every weight is exactly 0: its units died, or its weights are 0"
    layer = facts.finding.layers[0] if facts.finding.layers else ""
    return [
        *actions.reinitialise(facts, layer, why),
        actions.lower_lr(facts, 10, why),
        actions.change_activation("ReLU", "LeakyReLU, GELU or SiLU", why),
    ]


def of_activation_vanishing(facts: Facts, others: Others) -> list[Remedy]:
    del others
    factor = _number(facts, "factor_per_layer")
    ratio = _number(facts, "variance_ratio")
    why = f"the variance across samples shrinks to {ratio:.1g} ({factor:.2g} per layer, ideal 1)"
    layer = facts.finding.layers[0] if facts.finding.layers else ""
    found = [*actions.reinitialise(facts, layer, why), *_activation_and_norm(facts, why)]
    if facts.adaptive is False and not facts.saturating:
        found.append(actions.to_adam(facts, why))
    return found


def of_loss_off_chance(facts: Facts, others: Others) -> list[Remedy]:
    """Outputs that are far too large: from the inputs, the weights, or both."""
    del others
    why = f"the first loss is {_number(facts, 'times_chance'):.3g} times that of guessing"
    large = _input_remedy(facts)
    found = [large] if large else []
    found += actions.reinitialise(facts, "", why)
    if not facts.normalised:
        found.append(actions.add_normalisation(facts, why))
    look = "look at one batch: labels that belong to their inputs, classes counted from 0"
    return [*found, Remedy("inspect-data", look, why)]


def of_activation_exploding(facts: Facts, others: Others) -> list[Remedy]:
    del others
    factor = _number(facts, "factor_per_layer")
    ratio = _number(facts, "variance_ratio")
    why = f"the variance across samples grows {ratio:.1g} times ({factor:.2g} per layer, ideal 1)"
    layer = facts.finding.layers[0] if facts.finding.layers else ""
    found = actions.reinitialise(facts, layer, why)
    if not facts.normalised:
        found.append(actions.add_normalisation(facts, why))
    large = _input_remedy(facts)
    return found + ([large] if large else [])


def of_exploding_gradient(facts: Facts, others: Others) -> list[Remedy]:
    del others
    large = _input_remedy(facts)
    if facts.finding.measured("at_start"):
        relative = _number(facts, "gradient_to_weight")
        why = f"at the first step gradients are {relative:.2g} times as large as their weights"
        layer = facts.finding.layers[0] if facts.finding.layers else ""
        found = [large] if large else []
        found += actions.reinitialise(facts, layer, why)
        if facts.clip is None or facts.clip > 1:
            found.append(actions.clip_at_one(facts, why))
        found.append(actions.lower_lr(facts, 10, why))
        return found
    peak, usual = _number(facts, "gradient_norm_peak"), _number(facts, "gradient_norm_usual")
    why = f"the gradient norm jumps from its usual {usual:.2g} to {peak:.2g}"
    found = [actions.clip_at(facts, 90, why), actions.lower_lr(facts, 3, why)]
    if facts.clip is not None and facts.clip_fires > 0.5:
        found.reverse()  # clipping harder still would be a learning rate in disguise
    return found + ([large] if large else [])


def of_dead_relu(facts: Facts, others: Others) -> list[Remedy]:
    """Dead from the start: initialisation or inputs. Died later: the steps were too large."""
    del others
    dead = 100 * _number(facts, "dead_unit_fraction")
    first = facts.finding.layers[0] if facts.finding.layers else ""
    alive = actions.change_activation(
        "ReLU", "LeakyReLU, GELU or SiLU", f"{dead:.0f} % dead units get no gradient back to life"
    )
    large = _input_remedy(facts)
    found = [large] if large is not None else []
    if facts.finding.measured("dead_from_start"):
        why = f"{dead:.0f} % of the units are silent from the first recorded step on"
        feeding = _feeding(facts, first)
        bias = facts.bias_of(feeding)
        if bias is not None and bias > 1:
            found.append(actions.zero_bias(facts, feeding, bias, why))
        else:
            found += actions.reinitialise(facts, feeding, why)
        return [*found, alive, actions.lower_lr(facts, 3, "if they die again after that")]
    start = _number(facts, "dead_unit_fraction_at_start")
    why = f"the dead units grew from {100 * start:.0f} % to {dead:.0f} %: steps pushed them there"
    ratio = facts.early_update_ratio
    if ratio is not None and ratio > EARLY_UPDATE:
        why += f"; early steps change the parameters by {times(ratio)} (10 % is too much)"
    found.append(actions.lower_lr(facts, 10 if (ratio or 0) > EARLY_UPDATE else 3, why))
    if facts.has_warmup is False:
        found.append(actions.add_warmup(facts, why))
    return [*found, alive]


def of_saturated_activation(facts: Facts, others: Others) -> list[Remedy]:
    """Inputs first, then initial weights, then steps: by where the size came from."""
    del others
    says = _how_saturated(facts)
    large = _input_remedy(facts)
    first = facts.finding.layers[0] if facts.finding.layers else ""
    feeding = _feeding(facts, first)
    found = [large] if large is not None else []
    if facts.finding.measured("saturated_from_start") is False:
        start = f"{says}, not from the start"
        found.append(actions.lower_lr(facts, 3, start))
    else:
        found += actions.reinitialise(facts, feeding, says)
    if not facts.normalised:
        found.append(actions.add_normalisation(facts, says))
    old = facts.saturating or "sigmoid or tanh"
    found.append(actions.change_activation(old, "ReLU, GELU or SiLU", says))
    return found


def _how_saturated(facts: Facts) -> str:
    used = _number(facts, "mean_square")
    if used == used:
        return f"at the first step the outputs use {used:.2f} of their squared range (1: at limits)"
    fed = _number(facts, "input_rms")
    if fed == fed:
        return f"at the first step values of size {fed:.2g} enter a function that is flat beyond 3"
    share = 100 * _number(facts, "saturated_unit_fraction")
    return f"{share:.0f} % of the units are at their limits"


def of_clip_always_active(facts: Facts, others: Others) -> list[Remedy]:
    del others
    fires = 100 * _number(facts, "clipped_fraction")
    cut = _number(facts, "norm_to_threshold")
    why = f"the clip cuts {fires:.0f} % of the steps to 1/{cut:.2g} of their size"
    kappa = facts.finding.measured("update_gradient_cosine")
    if isinstance(kappa, float) and kappa < 0:
        why += f", and gradients still point along the last update (cosine {kappa:+.2f})"
    return [
        actions.unclip(facts, why),
        actions.lower_lr(facts, 3, "if the longer steps turn out unstable"),
    ]


def of_unused_parameters(facts: Facts, others: Others) -> list[Remedy]:
    del others
    names = ", ".join(facts.finding.layers[:3]) or "these parameters"
    if facts.finding.measured("never_called"):
        text = f"call {names} in forward(), or delete what is not needed"
        why = "they take part in no training forward pass"
    else:
        text = f"let the output of {names} reach the loss: no detach(), .data, .item(), no_grad()"
        why = "they get no gradient although they are trainable"
    share = _number(facts, "share_of_all")
    why += f" ({100 * share:.0f} % of all trainable numbers)"
    frozen = "if it is meant: requires_grad_(False), and leave them out of the optimizer"
    return [
        Remedy("fix-graph", text, why),
        Remedy("add-params-to-optimizer", frozen, why, "requires_grad", "True", "False"),
    ]


def of_untrained_parameters(facts: Facts, others: Others) -> list[Remedy]:
    del others
    share = _number(facts, "share_of_all")
    part = f"{100 * share:.0f} % of all trainable numbers"
    kind = facts.optimizer.kind if facts.optimizer else "the optimizer"
    names = ", ".join(facts.finding.layers[:3])
    if facts.finding.measured("learning_rate_zero"):
        # the peak of the other groups: their last rate may be the end of a schedule
        rates = [float(np.nanmax(s.values)) for s in facts.run.series_of("lr") if len(s)]
        rates += [p.lr for p in facts.run.parameters if p.lr]
        new = about(max(rates), 3) if rates and max(rates) > 0 else None
        to = f"a learning rate of {new:g}" if new else "a learning rate"
        why = f"the learning rate of their group is 0 ({part})"
        return [Remedy("raise-lr", f"give the group of {names} {to}", why, "lr", 0.0, new)]
    text = f"pass them to {kind}: model.parameters(), made after the last change of the model"
    why = f"no optimizer holds them ({part})"
    if not facts.finding.measured("held_by_no_optimizer"):
        text = f"make {kind} from the parameters of the model that is trained, not of a copy"
        why = f"they have gradients and never change ({part})"
    frozen = "if it is meant: freeze them with requires_grad_(False), which saves their backward"
    return [
        Remedy("add-params-to-optimizer", text, why),
        Remedy("fix-graph", frozen, why, "requires_grad", "True", "False"),
    ]


def _activation_and_norm(facts: Facts, why: str) -> list[Remedy]:
    found = []
    if not facts.normalised:
        found.append(actions.add_normalisation(facts, why))
    if facts.saturating:
        new = "ReLU, GELU or SiLU"
        found.append(actions.change_activation(facts.saturating, new, why))
    return found


def _input_remedy(facts: Facts) -> Remedy | None:
    """Normalise the inputs, where what enters the model is far from order 1."""
    variance = facts.input_variance
    if variance is None or not variance > LARGE_INPUT:
        return None
    why = f"the inputs have a standard deviation of about {variance**0.5:.2g} (1 is right)"
    return actions.normalise_inputs(why)


def _feeding(facts: Facts, name: str) -> str:
    """The layer with weights whose output enters the activation of that name."""
    order = next((layer.order for layer in facts.layers if layer.name == name), None)
    if order is None:
        return name
    before = [
        layer for layer in facts.layers if layer.order <= order and facts.weight_of(layer.name)
    ]
    return before[-1].name if before else name


def _number(facts: Facts, name: str) -> float:
    value = facts.finding.measured(name)
    return float(value) if isinstance(value, (int, float)) else float("nan")
