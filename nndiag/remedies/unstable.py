"""What to do about a loss that jumps, climbs, swings or breaks."""

from __future__ import annotations

import math

import numpy as np

from nndiag.records import Finding, Remedy
from nndiag.remedies import actions
from nndiag.remedies.facts import EARLY_UPDATE, Facts, times

Others = tuple[Finding, ...]

BRIEF = 3  # steps that one bad batch can last

_UNSAFE = ("log", "sqrt", "div", "pow", "norm", "rsqrt", "reciprocal", "acos", "asin", "atan2")


def of_spike(facts: Facts, others: Others) -> list[Remedy]:
    """First what raised the learning rate; then data or step size, as the gradient norm says."""
    del others
    jump = facts.lr_jump
    if jump is not None:
        step, before, after = jump
        why = f"the learning rate rose from {before:.3g} to {after:.3g} at step {step}"
        return [actions.lower_lr(facts, after / before, why, to=before), *_clip_for_spike(facts)]
    if _one_bad_batch(facts):
        lasted = int(facts.end - facts.start) + 1
        why = f"loss and gradient norm left their course together, for {lasted} steps"
        text = f"look at the batch of step {facts.start:.0f}, and leave the learning rate alone"
        return [actions.inspect_data(text, why), *_clip_for_spike(facts)]
    count = facts.finding.measured("count")
    lower = actions.lower_lr(facts, 3, _why_lower(facts))
    clip = _clip_for_spike(facts)
    recovered = bool(facts.finding.measured("recovered"))
    often = isinstance(count, (int, float)) and count >= 3
    # Clipping first where one event came back; the rate first where it harms or comes again.
    found = [*clip, lower] if recovered and clip and not often else [lower, *clip]
    if facts.norm_exploded is not True and recovered and not often:
        text = f"look at the batches of the steps from {facts.start:.0f} on"
        found.append(actions.inspect_data(text, "the gradient norm does not tell what came first"))
    return found


def _one_bad_batch(facts: Facts) -> bool:
    """Loss and gradient outlying on the same step, and everything as before right afterwards."""
    if facts.finding.measured("recovered") is not True or not math.isfinite(facts.end):
        return False
    return facts.norm_exploded is True and facts.end - facts.start < BRIEF


def _why_lower(facts: Facts) -> str:
    usual, peak = facts.norm_at(50), facts.norm_peak
    if facts.norm_exploded and usual is not None and peak is not None:
        return f"the gradient norm rose from {usual:.2g} to {peak:.2g}: the step was too large"
    if facts.finding.measured("recovered") is False:
        return "the loss did not come back"
    return "a rise of several steps comes from the steps, not from one batch"


def _clip_for_spike(facts: Facts) -> list[Remedy]:
    """Which way to move the clipping threshold, if at all."""
    usual, peak, high = facts.norm_at(50), facts.norm_peak, facts.norm_at(99)
    if usual is None or peak is None or high is None:
        # a log without gradient norms: only the unknown threshold can be named
        return [actions.clip_at(facts, 90, "gradient norms were not recorded")]
    if facts.clip is None:
        if not facts.norm_exploded:
            return []
        why = f"the norm reached {peak:.2g}; healthy steps stay below {high:.2g} (p99)"
        return [*_stale_moment(facts, usual, peak), actions.clip_at(facts, 95, why)]
    if facts.adaptive:
        # A clip of any height left unstable Adam runs as unstable: 0.49 to 0.89 without a trend.
        found = _stale_moment(facts, usual, peak)
        if facts.clip > high and facts.norm_exploded:
            why = f"the norm reached {peak:.2g}, the threshold is {facts.clip:g} (p99 {high:.2g})"
            found.append(actions.clip_at(facts, 99, why))
        return found
    if facts.clip_fires > 0.9 and usual / facts.clip > 3:
        why = (
            f"the clip cuts {100 * facts.clip_fires:.0f} % of the healthy steps "
            f"(norm {usual:.2g}), so every way back is slow too"
        )
        return [actions.unclip(facts, why)]
    if facts.clip_fires > 0.5:
        return []  # clipping harder than this is a learning rate in disguise: lower the rate
    percentile = 95 if facts.clip > high else 75
    why = f"the norm reached {peak:.2g}; healthy steps have a median of {usual:.2g}, p99 {high:.2g}"
    return [actions.clip_at(facts, percentile, why)]


def _stale_moment(facts: Facts, usual: float, peak: float) -> list[Remedy]:
    """beta2 = 0.95 where Adam's second moment remembers too long: spikes 1-8 steps after."""
    if not facts.adaptive or facts.beta2 is None or facts.beta2 < 0.99:
        return []
    why = (
        f"the norm jumped from {usual:.2g} to {peak:.2g} while beta2 = {facts.beta2:g} remembers "
        f"{1 / (1 - facts.beta2):.0f} steps"
    )
    return [actions.lower_beta2(facts, why)]


def of_divergence(facts: Facts, others: Others) -> list[Remedy]:
    jump = facts.lr_jump
    if jump is not None:
        step, before, after = jump
        why = f"the learning rate rose from {before:.3g} to {after:.3g} at step {step}"
        return [actions.lower_lr(facts, after / before, why, to=before), *_clip_against(facts)]
    ratio = facts.early_update_ratio
    hard = bool(facts.finding.measured("ends_nonfinite")) or (ratio or 0) > 3 * EARLY_UPDATE
    hard = hard or any(other.name == "loss-nonfinite" for other in others)
    early = _is_early(facts)
    why = "the loss climbs and does not come back"
    if facts.lr_growth is not None:
        first, reached = facts.lr_growth
        why += f"; the rate had grown from {first:.3g} to {reached:.3g} and went on growing"
    if ratio is not None and ratio > EARLY_UPDATE:
        why += f"; early steps change the parameters by {times(ratio)} (10 % is too much)"
    found = [actions.lower_lr(facts, 10 if hard else 3, why)]
    if early and facts.has_warmup is False and not hard:
        why = f"the loss rose from step {facts.start:.0f} on, with the learning rate at its peak"
        found.append(actions.add_warmup(facts, why))
    return found + _clip_against(facts)


def _is_early(facts: Facts) -> bool:
    loss = facts.whole("loss")
    if loss is None or not len(loss) or not math.isfinite(facts.start):
        return False
    first, last = int(loss.steps[0]), int(loss.steps[-1])
    return facts.start - first <= (last - first) / 8


def _clip_against(facts: Facts) -> list[Remedy]:
    """Clipping tames SGD (lr 1.0: 1e21 without, 0.16 with clipping at 1); for Adam it does not."""
    usual, peak = facts.norm_at(50), facts.norm_peak
    if facts.adaptive and not facts.norm_exploded:
        return []
    if usual is None or peak is None:
        return [actions.clip_at(facts, 90, "it bounds the step whatever the gradient is")]
    if facts.clip is not None and facts.clip_fires > 0.5:
        return []
    why = f"the gradient norm grew from {usual:.2g} to {peak:.2g}"
    return [actions.clip_at(facts, 90, why)]


def of_nonfinite(facts: Facts, others: Others) -> list[Remedy]:
    """By where the first bad value arose: data, an operation, or a step that was too large."""
    del others
    says = facts.finding.measured
    kind = str(says("origin_kind") or says("kind") or "")
    where = str(says("origin_where") or says("where") or "")
    operation = str(says("origin_detail") or says("operation") or "")
    place = f" of `{where}`" if where else ""
    found: list[Remedy] = []
    climbed = _climbed_before(facts)
    if kind == "input":
        text = f"look for NaN or infinity in the batch of step {facts.start:.0f}"
        return [actions.inspect_data(text, f"the input{place} was already non-finite")]
    if facts.half_precision:
        why = "the log has a loss scale, so float16 is in use: it overflows at 65504"
        found.append(actions.to_bfloat16(why))
    if climbed:
        found.append(actions.lower_lr(facts, 10, climbed))
        found += _clip_against(facts)
    if kind == "parameter" and not climbed:
        why = f"the first bad value is the parameter{place}: an update threw it out of range"
        ratio = facts.early_update_ratio
        if ratio is not None and ratio > EARLY_UPDATE:
            why += f" (early steps change the parameters by {times(ratio)})"
        found.append(actions.lower_lr(facts, 10, why))
    if operation and any(word in operation.lower() for word in _UNSAFE):
        why = f"the first bad value came from {operation}{place} at step {facts.start:.0f}"
        text = "add a small epsilon (1e-8) inside that log, root or division"
        found.insert(0, Remedy("fix-graph", text, why, operation, None, "eps=1e-8"))
    elif kind == "gradient" and facts.finding.name == "nonfinite-tensor":
        why = (
            f"the gradient{place} is bad although the loss is finite: a backward step has no limit"
        )
        text = (
            "let torch.autograd.detect_anomaly() name the operation, and keep its input from 0 "
            "with a small epsilon: sqrt, norm, log, division, also inside torch.where"
        )
        found.insert(0, Remedy("fix-graph", text, why, "", None, "eps=1e-8"))
    if not found or not climbed:
        why = climbed or "the loss was steady before it broke"
        if kind:
            why = f"the first bad value is the {kind}{place}; {why}"
        text = f"look at the batch of step {facts.start:.0f}: targets of a log, empty masks, NaN"
        found.append(actions.inspect_data(text, why))
    if not climbed:
        found.append(actions.lower_lr(facts, 3, "if the data are clean: parameters may overflow"))
    return found


def _climbed_before(facts: Facts) -> str:
    """What grew in the steps before the loss broke, in words; "" where nothing did."""
    loss = facts.whole("loss")
    if loss is None:
        return ""
    before = loss.values[loss.steps < facts.start]
    before = before[np.isfinite(before)]
    if before.size >= 2:
        level, last = float(np.median(before[:-1][-50:])), float(before[-3:].max())
        if level > 0 and last > 2 * level:
            return f"the loss rose from {level:.3g} to {last:.3g} before it broke"
    norm = facts.whole("grad_norm")
    if norm is not None:
        earlier = norm.values[norm.steps <= facts.start]
        finite = earlier[np.isfinite(earlier)]
        if finite.size >= 4:
            level, last = float(np.median(finite[:-3])), float(finite[-3:].max())
            if level > 0 and last > 10 * level:
                return f"the gradient norm rose from {level:.3g} to {last:.3g} before it broke"
    return ""


def of_oscillation(facts: Facts, others: Others) -> list[Remedy]:
    del others
    why = "the loss swings instead of settling"
    if facts.kappa is not None and facts.kappa > 0:
        why += f"; updates overshoot (cosine of gradient and last update {facts.kappa:+.2f})"
    found = [actions.lower_lr(facts, 3, why)]
    momentum = facts.optimizer.setting("momentum") if facts.optimizer else None
    if momentum is not None and momentum > 0.95:
        speed = f"momentum {momentum:g} makes steps {1 / (1 - momentum):.0f} times as long"
        text = "lower the momentum to 0.9"
        found.append(Remedy("change-optimizer", text, speed, "momentum", momentum, 0.9))
    found.append(actions.larger_batch("the average of more samples swings less"))
    if facts.clip is None and facts.adaptive is not True:
        found += _clip_against(facts)
    return found
