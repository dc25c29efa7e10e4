"""What fixes what: evidence -> remedies with numbers, best first. One place that knows it.

The same symptom gets different remedies for different causes: a spike under a loose clipping
threshold asks for a lower one, steps that are cut all the time for a higher one, a flat curve for
a higher learning rate only where the gradients say so. Rules and their measurements: the pages of
the detectors, and the comments beside each rule.
"""

from __future__ import annotations

from collections.abc import Callable

from nndiag.records import Finding, Remedy, Run, Severity
from nndiag.remedies import code, layers, slow, unstable
from nndiag.remedies.facts import Facts

MOST = 4  # remedies; a longer list is no ranking any more

Others = tuple[Finding, ...]

_KNOWN: dict[str, Callable[[Facts, Others], list[Remedy]]] = {
    "loss-spike": unstable.of_spike,
    "loss-divergence": unstable.of_divergence,
    "loss-nonfinite": unstable.of_nonfinite,
    "loss-plateau": slow.of_plateau,
    "slow-convergence": slow.of_slow_convergence,
    "loss-oscillation": unstable.of_oscillation,
    "overfitting": slow.of_overfitting,
    "vanishing-gradient": layers.of_vanishing_gradient,
    "exploding-gradient": layers.of_exploding_gradient,
    "dead-relu": layers.of_dead_relu,
    "saturated-activation": layers.of_saturated_activation,
    "activation-vanishing": layers.of_activation_vanishing,
    "activation-exploding": layers.of_activation_exploding,
    "nonfinite-tensor": unstable.of_nonfinite,
    "clip-always-active": layers.of_clip_always_active,
    "unused-parameters": layers.of_unused_parameters,
    "loss-off-chance": layers.of_loss_off_chance,
    "untrained-parameters": layers.of_untrained_parameters,
    "missing-zero-grad": code.of_missing_zero_grad,
    "softmax-before-cross-entropy": code.of_softmax,
    "eval-mode-training": code.of_eval_mode,
    "unnormalised-inputs": code.of_unnormalised_inputs,
    "batchnorm-small-batch": code.of_batchnorm_small_batch,
    "symmetric-units": code.of_symmetric_units,
    "fp16-overflow": code.of_fp16_overflow,
    "update-too-large": code.of_update_too_large,
    "update-too-small": code.of_update_too_small,
}


def prescribe(finding: Finding, run: Run, others: tuple[Finding, ...] = ()) -> tuple[Remedy, ...]:
    """What to change, best first; nothing for a mere remark.

    `others` are the findings seen besides, the finding's own symptoms among them. Of two remedies
    that change the same setting the better ranked one stays.
    """
    known = _KNOWN.get(finding.name)
    if known is None or finding.severity is Severity.INFO:
        return ()
    kept: dict[tuple[str, str], Remedy] = {}
    for remedy in known(Facts(run, finding), others):
        kept.setdefault((remedy.name, remedy.setting), remedy)
    return tuple(kept.values())[:MOST]
