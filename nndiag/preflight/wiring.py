"""Checks of the code around the model: what is trained, what gets a gradient, in which mode."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from nndiag.curves import depth
from nndiag.preflight.check import Check, Findings, State, brief
from nndiag.records import Parameter, Run

SMALLEST_INPUT, LARGEST_INPUT = 0.01, 10.0  # root mean square, worth a look


def parameters(run: Run, found: Findings) -> Check:
    """Whether an optimizer holds every trainable parameter, and moves it."""
    check, about = "parameters", ("untrained-parameters",)
    if not run.parameters:
        return found.check(check, about, State.UNSEEN, depth.NOT_RECORDED)
    trainable = [p for p in run.parameters if p.requires_grad]
    held = [p for p in trainable if p.optimizer is not None]
    index = depth.Index(run, ("param_update_norm", "param_grad_norm"))
    still = [p for p in held if _is_still(index, p)]
    parts = [f"{_of(held, trainable)} held by {_optimizers(run)}"]
    if held:
        parts.append("all move" if not still else f"{len(still)} never move")
    if frozen := len(run.parameters) - len(trainable):
        parts.append(f"{frozen} frozen")
    forgotten = [p for p in trainable if p.optimizer is None and p.has_grad]
    state = State.LOOK if forgotten or (still and len(still) < len(held)) else State.OK
    if not held or len(still) == len(held):
        state = State.LOOK
    return found.check(
        check,
        about,
        state,
        ", ".join(parts),
        trainable=len(trainable),
        held=len(held),
        still=len(still),
        frozen=frozen,
    )


def gradients(run: Run, found: Findings) -> Check:
    """Whether each parameter that an optimizer holds gets a gradient."""
    check, about = "has gradient", ("unused-parameters", "nonfinite-tensor")
    index = depth.Index(run, ("param_grad_norm",))
    measured = [
        (p, series)
        for p in run.parameters
        if p.requires_grad and p.optimizer is not None
        if (series := index.of_parameter("param_grad_norm", p)) is not None
    ]
    if not measured:
        return found.check(check, about, State.UNSEEN, "no gradient was recorded")
    without = [p for p, series in measured if np.isin(series.values, (-1.0, 0.0)).all()]
    if without:
        where = depth.named((p.name for p in without), most=1)
        text = f"{len(measured) - len(without)} of {len(measured)} parameters; none for {where}"
    else:
        text = f"all {len(measured)} parameters get one"
    return found.check(
        check,
        about,
        State.LOOK if without else State.OK,
        text,
        parameters=len(measured),
        without=len(without),
    )


def zero_grad(run: Run, found: Findings) -> Check:
    """Whether the gradients of one step are gone when the next begins."""
    check, about = "zero_grad", ("missing-zero-grad",)
    facts = [fact for fact in run.facts_of("zero-grad") if fact.amount("checked") > 0]
    if not facts:
        return found.check(check, about, State.UNSEEN, "nothing was seen of it")
    stale = max(fact.amount("stale") for fact in facts)
    if stale > 0:
        text = f"{stale:.0f} gradients of the last step were still there in the next"
    else:
        text = "gradients are cleared between steps"
    state = State.LOOK if stale > 0 else State.OK
    return found.check(check, about, state, text, stale=int(stale))


def modes(run: Run, found: Findings) -> Check:
    """Whether dropout and normalisation run in training mode, on batches that are large enough."""
    check, about = "modes", ("eval-mode-training", "batchnorm-small-batch")
    facts = list(run.facts_of("mode"))
    if not facts:
        return found.check(check, about, State.UNSEEN, "no dropout and no batch norm was called")
    dropout, norm = (int(max(f.amount(name) for f in facts)) for name in ("dropout", "norm"))
    asleep = ("dropout_in_eval", "norm_in_eval_trained")
    in_eval = int(max(sum(_or_zero(f.amount(name)) for name in asleep) for f in facts))
    parts = ((dropout, "dropout"), (norm, "batch norm"))
    kinds = [f"{count} {word}" for count, word in parts if count]
    text = " and ".join(kinds) or "nothing that depends on the mode"
    text += f": {in_eval} of them in eval mode" if in_eval else " in training mode" if kinds else ""
    sizes = [fact.amount("values") for fact in run.facts_of("batch-statistics")]
    if sizes:
        text += f", at least {min(sizes):.0f} values a channel"
    return found.check(check, about, State.LOOK if in_eval else State.OK, text, in_eval=in_eval)


def inputs(run: Run, found: Findings) -> Check:
    """Whether the data are of order 1 where they enter the first layer."""
    check, about = "inputs", ("unnormalised-inputs",)
    facts = {fact.where: fact for fact in reversed(list(run.facts_of("input")))}
    sizes = {place: np.hypot(f.amount("mean"), f.amount("std")) for place, f in facts.items()}
    seen = [facts[place] for place, size in sizes.items() if size > 0]  # zeros are a first state
    if not seen:
        return found.check(check, about, State.UNSEEN, "no input of numbers was seen")
    worst = max(seen, key=lambda fact: abs(np.log10(sizes[fact.where])))
    mean, std = worst.amount("mean"), worst.amount("std")
    odd = not SMALLEST_INPUT <= sizes[worst.where] <= LARGEST_INPUT
    where = depth.named([worst.where]) if worst.where else "the model"
    text = f"mean {brief(mean)}, std {brief(std)} into {where}"
    return found.check(check, about, State.LOOK if odd else State.OK, text, mean=mean, std=std)


def _or_zero(value: float) -> float:
    return 0.0 if np.isnan(value) else value


def _is_still(index: depth.Index, parameter: Parameter) -> bool:
    """It gets a gradient and is never moved; a parameter without one is another check's."""
    update = index.of_parameter("param_update_norm", parameter)
    grad = index.of_parameter("param_grad_norm", parameter)
    if update is None or grad is None or not (grad.values > 0).any():
        return False
    known = update.values[np.isfinite(update.values)]
    return bool(known.size) and not (known > 0).any()


def _of(some: list[Parameter], all_of_them: list[Parameter]) -> str:
    numbers = sum(int(np.prod(p.shape)) for p in all_of_them)
    if len(some) == len(all_of_them):
        return f"all {len(all_of_them)} trainable ({numbers:,} numbers)"
    return f"{len(some)} of {len(all_of_them)} trainable ({numbers:,} numbers)"


def _optimizers(run: Run) -> str:
    names: Iterable[str] = dict.fromkeys(optimizer.owner for optimizer in run.optimizers)
    return ", ".join(names) or "no optimizer"
