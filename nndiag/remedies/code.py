"""What to do about faults of the code, the data, and the precision."""

from __future__ import annotations

from nndiag.records import Finding, Remedy
from nndiag.remedies import actions
from nndiag.remedies.facts import Facts, about

Others = tuple[Finding, ...]

USUAL_UPDATE = 1e-3  # |update| / |weight| of a healthy training; 1e-2 is its upper end
LARGEST_UPDATE = 1e-2
UNLIKE = 10.0  # times: features whose deviations differ by more need one scale each; our own choice
VALUES = 32  # per channel, that make a usable batch statistic; Wu & He 2018


def of_missing_zero_grad(facts: Facts, others: Others) -> list[Remedy]:
    del others
    stale, checked = _count(facts, "stale_parameters"), _count(facts, "checked_parameters")
    who = facts.finding.owner or (facts.optimizer.kind if facts.optimizer else "the optimizer")
    why = f"{stale} of {checked} gradients of {who} were carried from one step into the next"
    if stale < checked:
        text = "clear the gradients of all parameters that the optimizer holds, once in each step"
    else:
        text = "call optimizer.zero_grad() in each step, before the first backward()"
    return [Remedy("call-zero-grad", text, why, "zero_grad")]


def of_softmax(facts: Facts, others: Others) -> list[Remedy]:
    del others
    says = facts.finding.measured
    made_by, operation = str(says("probabilities")), str(says("operation"))
    where = f" (`{facts.finding.layers[0]}`)" if facts.finding.layers else ""
    lowest = says("lowest_loss")
    why = f"{operation} is fed probabilities"
    if isinstance(lowest, float):
        why += f", so that its loss cannot fall below {lowest:.3g}"
    if operation == "nll":
        text = f"replace the last softmax{where} by log_softmax, which nll_loss is made for"
        return [Remedy("remove-softmax", text, why, "output", "softmax", "log_softmax")]
    text = f"remove the last {made_by}{where} and give the loss the logits; apply it to predict"
    return [Remedy("remove-softmax", text, why, "output", made_by, "logits")]


def of_eval_mode(facts: Facts, others: Others) -> list[Remedy]:
    del others
    says = facts.finding.measured
    since = _count(facts, "since_step")
    if says("whole_model_in_eval"):
        text = "call model.train() before the training loop, and again after each validation"
        why = f"the whole model is in eval mode from step {since} on"
    else:
        part = facts.finding.layers[0] if facts.finding.layers else "that part"
        text = f"call model.train() after each validation: `{part}` stays in eval mode"
        why = f"a part of the model went to eval mode at step {since}"
    return [Remedy("call-train-mode", text, why, "training", "False", "True")]


def of_unnormalised_inputs(facts: Facts, others: Others) -> list[Remedy]:
    del others
    mean, std = _number(facts, "input_mean"), _number(facts, "input_std")
    largest = _number(facts, "input_abs_max")
    why = f"the inputs have mean {mean:.3g} and standard deviation {std:.3g}"
    text = f"normalise the inputs: x = (x - {about(mean, 3):g}) / {about(std, 3):g}"
    low, high = _number(facts, "feature_std_lowest"), _number(facts, "feature_std_highest")
    if low > 0 and high > UNLIKE * low:
        text = "subtract from each input feature its mean, and divide it by its standard deviation"
        why += f"; the deviations of single features go from {low:.2g} to {high:.2g}"
        return [Remedy("normalise-inputs", text, why, "inputs", about(high, 3), 1.0)]
    if std < 1e-6 * abs(mean):
        text = f"subtract the mean of the inputs, {about(mean, 3):g}: they hardly differ from it"
    elif 128 < largest <= 255 and mean > 0:
        text += ", or divide the pixels by 255 first and use the mean and deviation of the data"
    return [Remedy("normalise-inputs", text, why, "inputs", about(std, 3), 1.0)]


def of_batchnorm_small_batch(facts: Facts, others: Others) -> list[Remedy]:
    del others
    values, batch = _number(facts, "values_per_channel"), _number(facts, "batch_size")
    why = f"each channel's statistics come from {values:.0f} values"
    convolutional = any(layer.kind.startswith("Conv") for layer in facts.layers)
    other = "GroupNorm" if convolutional else "LayerNorm"
    text = f"use nn.{other}, which takes its statistics within each sample"
    found = [Remedy("change-normalisation", text, why, "normalisation", "BatchNorm", other)]
    if batch > 0 and values > 0:
        wanted = int(about(batch * max(2.0, VALUES / values), 1))
        text = f"use a batch of {wanted}; to accumulate gradients does not help batch norm"
        found.append(Remedy("larger-batch", text, why, "batch_size", int(batch), wanted))
    return found


def of_symmetric_units(facts: Facts, others: Others) -> list[Remedy]:
    del others
    steps = _count(facts, "steps")
    why = f"the units of these layers are still identical after {steps} steps"
    for layer in facts.finding.layers:
        found = actions.reinitialise(facts, layer, why)
        if found:
            return found
    text = "initialise the weights at random (nn.init.kaiming_normal_); biases may start at 0"
    return [Remedy("reinitialise", text, why, "nn.init.kaiming_normal_")]


def of_fp16_overflow(facts: Facts, others: Others) -> list[Remedy]:
    del others
    skipped, lowest = _number(facts, "skipped_steps"), _number(facts, "loss_scale_lowest")
    why = f"{skipped:.0f} steps were skipped, and the scale fell to {lowest:.3g}"
    text = "compute the operation that overflows, mostly the loss or a softmax, in float32"
    return [
        actions.to_bfloat16(why),
        Remedy("change-precision", text, why, "dtype", "float16", "float32"),
        actions.lower_lr(facts, 3, "if it began late: activations may have grown"),
    ]


def of_update_too_large(facts: Facts, others: Others) -> list[Remedy]:
    del others
    ratio = _number(facts, "update_ratio")
    why = f"each step changes the weights by {ratio:.2g} of their size (0.001 is usual)"
    factor = about(max(3.0, ratio / LARGEST_UPDATE), 1)
    return [actions.lower_lr(facts, factor, why)]


def of_update_too_small(facts: Facts, others: Others) -> list[Remedy]:
    del others
    ratio = _number(facts, "update_ratio")
    why = f"each step changes the weights by {ratio:.1g} of their size (0.001 is usual)"
    if facts.finding.measured("no_update_at_all"):
        text = "look for what stops the gradient, or a learning rate of 0"
        return [Remedy("fix-graph", text, "the weights do not move at all")]
    factor = about(min(1000.0, max(3.0, 0.1 * USUAL_UPDATE / ratio)), 1)
    found = [actions.raise_lr(facts, factor, why)]
    if facts.clip is not None and facts.clip_fires > 0.9 and facts.adaptive is False:
        found.insert(0, actions.unclip(facts, f"clipping cuts nearly every step; {why}"))
    if facts.adaptive is False:
        found.append(actions.to_adam(facts, "Adam divides each gradient by its own size"))
    return found


def _number(facts: Facts, name: str) -> float:
    value = facts.finding.measured(name)
    return float(value) if isinstance(value, (int, float)) else float("nan")


def _count(facts: Facts, name: str) -> int:
    value = facts.finding.measured(name)
    return int(value) if isinstance(value, (int, float)) else 0
