"""What to do about a loss that stands still, crawls, or falls on the training data only."""

from __future__ import annotations

import numpy as np

from nndiag.curves.depth import progress
from nndiag.records import Finding, Remedy
from nndiag.remedies import actions
from nndiag.remedies.facts import EARLY_UPDATE, Facts, about, times

Others = tuple[Finding, ...]

TOO_SHORT = -0.05  # kappa below it: the steps are too short. P 0.90, R 0.88 over 320 of our runs
LONG_ENOUGH = -0.02  # kappa above it: a higher learning rate helped in 1 of 25 flat states
FAR_TOO_SHORT = -0.15  # kappa below it: ten times the learning rate rather than three


def of_plateau(facts: Facts, others: Others) -> list[Remedy]:
    """A flat curve asks for a higher rate only where kappa says so (3 of 51 of our plateaus)."""
    if any(o.name == "loss-spike" and o.measured("recovered") is False for o in others):
        why = "the plateau follows a rise that never came back: the steps were too large"
        return [actions.lower_lr(facts, 10, why)]
    kappa, ratio = facts.kappa, facts.early_update_ratio
    kind = facts.finding.measured("kind")
    trained = progress(facts.run, facts.finding.owner)
    stuck = kind in ("from-start", "chance") or (trained is not None and trained.stuck)
    clipped = _clip_bound(facts)
    if kind == "stopped-early":
        return [*clipped, _longer_schedule(facts)]
    if kappa is not None and kappa < TOO_SHORT:
        return [*clipped, _longer_steps(facts, kappa), *_other_optimizer(facts)]
    if stuck:
        return [*clipped, *_stuck_from_the_start(facts, kappa, ratio)]
    if kappa is not None and kappa > LONG_ENOUGH:
        why = f"the steps are long enough (cosine of gradient and last update {kappa:+.2f}); "
        why += "what remains is noise"
        return [*clipped, actions.anneal(facts, why), actions.larger_batch(why),
                *_other_optimizer(facts)]  # fmt: skip
    why = "the curve alone cannot tell; of 51 flat states, less noise helped 25, a higher rate 3"
    return [*clipped, actions.anneal(facts, why), *_other_optimizer(facts),
            actions.raise_lr(facts, 3, "try it for 100 steps: it helped 3 of 51")]  # fmt: skip


def _longer_schedule(facts: Facts) -> Remedy:
    """The rate fell too soon: let it fall at the end, from where it still worked."""
    series = facts.whole("lr")
    now = None if series is None or not len(series) else float(series.values[-1])
    peak = facts.lr_peak
    why = "the loss was still falling when the learning rate had"
    if now is not None and peak is not None:
        why += f" gone from {peak:.3g} to {now:.3g} at step {facts.start:.0f}"
    text = "let the learning rate decay over the whole run"
    if peak is not None:
        text += f", from {about(peak, 3):g} to 0 at the last step"
    new = None if peak is None else about(peak, 3)
    return Remedy("raise-lr", text, why, actions.LR, None if now is None else about(now, 3), new)


def _stuck_from_the_start(facts: Facts, kappa: float | None, ratio: float | None) -> list[Remedy]:
    """Nothing learned: steps far too large, far too small, or nothing to learn."""
    if ratio is not None and ratio > EARLY_UPDATE:
        why = f"early steps change the parameters by {times(ratio)} (10 % is too much)"
        text = "train on one batch of 16: if its loss does not go to 0, the fault is in the code"
        return [actions.lower_lr(facts, 10, why),
                actions.inspect_data(text, "the loss stays where it began")]  # fmt: skip
    if ratio is not None and ratio < 1e-5:
        why = f"early steps change the parameters by a fraction of {ratio:.1g} only (1e-3 is usual)"
        return [actions.raise_lr(facts, 10, why), *_other_optimizer(facts)]
    why = "the loss stays where it began"
    if kappa is not None:
        why += f" although the steps are long enough (cosine {kappa:+.2f})"
    text = "check that targets belong to their inputs, and train on one batch of 16: its loss must"
    found = [actions.inspect_data(text + " go to 0", why)]
    if kappa is None or kappa < LONG_ENOUGH:
        found.append(actions.raise_lr(facts, 10, why + "; the steps may be too short"))
    found.append(actions.lower_lr(facts, 10, why + "; the steps may be too large"))
    return found + _other_optimizer(facts)


def of_slow_convergence(facts: Facts, others: Others) -> list[Remedy]:
    del others
    kappa = facts.kappa
    clipped = _clip_bound(facts)
    if kappa is not None and kappa > LONG_ENOUGH:
        why = f"the steps are long enough (cosine of gradient and last update {kappa:+.2f})"
        return [*clipped, actions.larger_batch(why + "; less noise lets them count"),
                actions.anneal(facts, why), *_other_optimizer(facts)]  # fmt: skip
    if kappa is not None:
        return [*clipped, _longer_steps(facts, kappa), *_other_optimizer(facts)]
    ratio = facts.early_update_ratio
    why = "the loss still falls, far slower than its noise would allow"
    if ratio is not None:
        why += f"; steps change the parameters by a fraction of {ratio:.1g}"
    return [*clipped, actions.raise_lr(facts, 3, why), *_other_optimizer(facts),
            actions.larger_batch("if a higher rate is unstable, steps are too noisy")]  # fmt: skip


def _longer_steps(facts: Facts, kappa: float) -> Remedy:
    factor = 10 if kappa < FAR_TOO_SHORT else 3
    why = f"each gradient still points along the last update (cosine {kappa:+.2f}): steps too short"
    return actions.raise_lr(facts, factor, why)


def _clip_bound(facts: Facts) -> list[Remedy]:
    """SGD whose every step is cut: the threshold, not the learning rate, sets the step."""
    usual = facts.whole("grad_norm")
    if facts.adaptive is not False or facts.clip is None or usual is None:
        return []
    values = usual.values[np.isfinite(usual.values)]
    if not values.size or (values > facts.clip).mean() < 0.9:
        return []
    cut = float(np.median(values)) / facts.clip
    if cut < 3:
        return []
    why = f"clipping at {facts.clip:g} shortens the steps {cut:.2g} times"
    return [actions.unclip(facts, why)]


def _other_optimizer(facts: Facts) -> list[Remedy]:
    if facts.adaptive is not False:
        return []
    if facts.plain_sgd:
        return [actions.add_momentum(facts, "plain SGD has no memory of its direction")]
    return [actions.to_adam(facts, "SGD depends on the scale of every layer's gradient")]


def of_overfitting(facts: Facts, others: Others) -> list[Remedy]:
    del others
    val = facts.whole("val_loss")
    best: int | None = None
    rise = ""
    if val is not None and np.isfinite(val.values).any():
        at = int(np.nanargmin(val.values))
        told = facts.finding.measured("best_step")
        best = int(told) if isinstance(told, (int, float)) else int(val.steps[at])
        finite = val.values[np.isfinite(val.values)]
        rise = f"val_loss was {val.values[at]:.3g} at step {best} and is {finite[-1]:.3g} now"
    why = rise or "the validation loss rises while the training loss falls"
    text = "keep the best checkpoint and stop there" if best is None else (
        f"keep the checkpoint of step {best} and stop there"
    )  # fmt: skip
    decay = facts.optimizer.setting("weight_decay") if facts.optimizer else None
    old = None if decay is None else about(float(decay), 2)
    new = 0.01 if not decay else about(10 * float(decay), 1)
    decayed = f"raise the weight decay to {new:g}, or add dropout (0.1 to 0.3)"
    return [
        Remedy("early-stop", text, why, "steps", None, best),
        Remedy("regularise", decayed, why, "weight_decay", old, new),
        Remedy("more-data", "add training data, or augment what there is", why),
    ]
