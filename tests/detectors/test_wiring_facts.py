"""The detectors of code and data on facts as the recorder tells them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nndiag.detectors.batchnorm_small_batch import BatchnormSmallBatch
from nndiag.detectors.eval_mode_training import EvalModeTraining
from nndiag.detectors.fp16_overflow import Fp16Overflow
from nndiag.detectors.missing_zero_grad import MissingZeroGrad
from nndiag.detectors.softmax_before_cross_entropy import SoftmaxBeforeCrossEntropy
from nndiag.detectors.symmetric_units import SymmetricUnits
from nndiag.detectors.unnormalised_inputs import UnnormalisedInputs
from nndiag.detectors.update_too_large import UpdateTooLarge
from nndiag.detectors.update_too_small import UpdateTooSmall
from nndiag.records import Fact, Run, Severity
from nndiag.remedies import prescribe
from tests.detectors.nets import (
    EVERY,
    STEPS,
    findings,
    flat,
    learns,
    net,
    reasons,
    series,
    stays,
    weights,
)

GOOD = [1.0] * 6


def with_facts(run: Run, *facts: Fact) -> Run:
    return replace(run, facts=facts)


def fact(kind: str, step: int, where: str = "", owner: str = "", **numbers) -> Fact:
    return Fact(kind, step, where, owner, tuple(numbers.items()))


def looks(*stale: int, checked: int = 8) -> list[Fact]:
    return [fact("zero-grad", i + 1, checked=checked, stale=s) for i, s in enumerate(stale)]


def test_gradients_that_pile_up_are_critical():
    [finding] = findings(MissingZeroGrad(), with_facts(net(learns()), *looks(8, 8, 7)))

    assert finding.severity is Severity.CRITICAL
    assert (finding.step_start, finding.step_end) == (1, STEPS - 1)
    assert finding.measured("stale_parameters") == 8


def test_a_part_that_is_not_cleared_is_a_warning():
    [finding] = findings(MissingZeroGrad(), with_facts(net(learns()), *looks(2, 2)))

    assert finding.severity is Severity.WARNING
    [remedy] = prescribe(finding, net(learns()))
    assert remedy.name == "call-zero-grad"
    assert "2 of 8 gradients" in remedy.why


@pytest.mark.parametrize("stale", [(0, 0, 0), (8,), (8, 8, 0), (8, 0, 8)])
def test_gradients_that_are_cleared_in_the_end_are_fine(stale):
    assert findings(MissingZeroGrad(), with_facts(net(learns()), *looks(*stale))) == []


def loss_fact(operation="cross-entropy", made_by="softmax", steps=2, classes=10) -> list[Fact]:
    numbers = {"operation": operation, "classes": classes, "probabilities": made_by}
    return [fact("loss", step, "head.1", **numbers, whole_loss=True) for step in range(steps)]


def test_the_floor_of_a_squashed_cross_entropy_is_named():
    [finding] = findings(SoftmaxBeforeCrossEntropy(), with_facts(net(stays()), *loss_fact()))

    assert finding.layers == ("head.1",)
    assert finding.measured("lowest_loss") == pytest.approx(np.log(1 + 9 / np.e))
    assert "cannot fall below 1.46" in finding.message
    assert prescribe(finding, net(stays()))[0].name == "remove-softmax"


@pytest.mark.parametrize(
    "facts",
    [
        loss_fact(made_by=""),
        loss_fact(made_by="log-softmax"),  # it changes nothing
        loss_fact("binary-cross-entropy", "sigmoid"),
        loss_fact("mse", "softmax"),
        loss_fact(steps=1),
    ],
)
def test_other_losses_are_fed_as_they_should_be(facts):
    assert findings(SoftmaxBeforeCrossEntropy(), with_facts(net(learns()), *facts)) == []


def mode(step: int, *, training: bool, dropout: int = 0, norm: int = 0, learns: int = 0) -> Fact:
    numbers = {"dropout_in_eval": dropout, "norm_in_eval": norm, "norm_in_eval_trained": learns}
    counts = {"training": training, "dropout": 2, "norm": 3, "first": "drop"}
    return fact("mode", step, "Net", **counts, **numbers)


TRAINED = [mode(step, training=True) for step in range(3)]
EVALUATED = [mode(step, training=False, dropout=2, norm=3, learns=3) for step in (100, 110)]


def test_eval_mode_from_a_step_on_is_told_with_that_step():
    run = with_facts(net(learns()), *TRAINED, *EVALUATED)

    [finding] = findings(EvalModeTraining(), run)

    assert finding.severity is Severity.WARNING
    assert (finding.step_start, finding.step_end) == (100, STEPS - 1)
    assert "2 of 2 dropout modules and 3 of 3 batch norms" in finding.message
    assert prescribe(finding, run)[0].name == "call-train-mode"


def test_a_part_that_went_to_eval_mode_is_a_warning():
    part = [mode(step, training=True, dropout=2) for step in (100, 110)]

    [finding] = findings(EvalModeTraining(), with_facts(net(learns()), *TRAINED, *part))

    assert finding.severity is Severity.WARNING
    assert finding.measured("whole_model_in_eval") is False


def test_batch_norm_frozen_with_trained_scales_is_a_remark():
    frozen = [mode(step, training=True, norm=3, learns=3) for step in range(3)]

    [finding] = findings(EvalModeTraining(), with_facts(net(learns()), *frozen))

    assert finding.severity is Severity.INFO


QUIET_MODES = {
    "training mode": TRAINED,
    "one step in eval mode": [*TRAINED, EVALUATED[0]],
    "eval mode that ended": [*TRAINED, *EVALUATED, mode(120, training=True)],
    "a backbone that was frozen at the start": [
        mode(step, training=True, dropout=2, norm=3) for step in range(3)
    ],
    "frozen batch norms of a model in eval mode": [
        mode(step, training=False, norm=3) for step in range(3)
    ],
}


@pytest.mark.parametrize("facts", QUIET_MODES.values(), ids=QUIET_MODES)
def test_eval_mode_is_no_fault_where_it_is(facts):
    assert findings(EvalModeTraining(), with_facts(net(learns()), *facts)) == []


def entered(mean: float, std: float, where: str = "0", largest: float = 255.0) -> list[Fact]:
    return [fact("input", i, where, mean=mean, std=std, abs_max=largest) for i in range(3)]


def test_pixels_of_bytes_are_named_with_mean_and_deviation():
    run = with_facts(net(stays()), *entered(33.3, 78.6))

    [finding] = findings(UnnormalisedInputs(), run)

    assert finding.severity is Severity.WARNING
    assert finding.layers == ("0",)
    [remedy] = prescribe(finding, run)
    assert remedy.name == "normalise-inputs"
    assert "x = (x - 33.3) / 78.6" in remedy.text


def test_features_of_unlike_scales_are_scaled_one_by_one():
    facts = [
        replace(f, numbers=(*f.numbers, ("feature_std_min", 0.5), ("feature_std_max", 4e4)))
        for f in entered(1e4, 2e4)
    ]
    run = with_facts(net(stays()), *facts)

    [finding] = findings(UnnormalisedInputs(), run)
    [remedy] = prescribe(finding, run)

    assert "each input feature" in remedy.text
    assert "from 0.5 to 4e+04" in remedy.why


def test_inputs_of_any_scale_are_a_remark_where_the_training_goes_well():
    [finding] = findings(UnnormalisedInputs(), with_facts(net(learns()), *entered(33.3, 78.6)))

    assert finding.severity is Severity.INFO


def test_inputs_that_are_far_too_small_are_named():
    [finding] = findings(
        UnnormalisedInputs(), with_facts(net(stays()), *entered(0, 1e-5, largest=1e-4))
    )

    assert "none is larger than 0.0001" in finding.message


@pytest.mark.parametrize(
    "run",
    [
        with_facts(net(stays()), *entered(0.1, 0.3, largest=1)),
        with_facts(net(stays()), *entered(0.0, 0.006, largest=0.05)),  # rows of a sparse matrix
        with_facts(net(stays()), *entered(0, 0, largest=0)),
        with_facts(net(stays(), norm="BatchNorm1d"), *entered(33, 80)),
    ],
    ids=["pixels of 0..1", "sparse", "zeros", "batch norm follows"],
)
def test_inputs_of_order_one_are_fine(run):
    assert findings(UnnormalisedInputs(), run) == []


def statistics(values: int, batch: int) -> list[Fact]:
    return [fact("batch-statistics", i, "1", values=values, batch=batch) for i in range(3)]


def test_batch_norm_of_four_values_is_a_warning_with_a_larger_batch():
    run = with_facts(net(learns()), *statistics(4, 4))

    [finding] = findings(BatchnormSmallBatch(), run)

    assert finding.severity is Severity.WARNING
    change, larger = prescribe(finding, run)
    assert (change.name, change.new) == ("change-normalisation", "LayerNorm")
    assert (larger.name, larger.old, larger.new) == ("larger-batch", 4, 30)


def test_maps_of_a_batch_of_two_are_a_remark():
    [finding] = findings(BatchnormSmallBatch(), with_facts(net(learns()), *statistics(98, 2)))

    assert finding.severity is Severity.INFO


@pytest.mark.parametrize("facts", [statistics(32, 32), statistics(4, 4)[:1]])
def test_enough_values_or_too_few_steps_are_silence(facts):
    assert findings(BatchnormSmallBatch(), with_facts(net(learns()), *facts)) == []


def alike(*steps: int, where: str = "2.weight", identical: bool = True, zero=False) -> list[Fact]:
    return [
        fact("weights", step, where, units=64, identical=identical, zero=zero) for step in steps
    ]


def test_layers_that_stay_alike_are_one_finding():
    facts = [*alike(1, 2, 4, 16), *alike(1, 2, 4, 16, where="4.weight")]
    run = with_facts(net(stays()), *facts)

    [finding] = findings(SymmetricUnits(), run)

    assert finding.layers == ("2", "4")
    assert "until step 16" in finding.message
    assert prescribe(finding, run)[0].name == "reinitialise"


@pytest.mark.parametrize(
    "facts",
    [alike(1, 2, 4), [*alike(1, 2, 4), *alike(8, identical=False)]],
    ids=["too soon", "they parted"],
)
def test_units_that_part_are_fine(facts):
    assert findings(SymmetricUnits(), with_facts(net(learns()), *facts)) == []


def test_weights_that_are_merely_unused_are_left_to_others():
    run = with_facts(weights(net(learns()), [1, -1, 1, 1, 1, 1]), *alike(1, 16))

    assert findings(SymmetricUnits(), run) == []


def scaled(values) -> Run:
    return net(learns(), series("loss_scale", values))


def test_a_scale_that_collapses_is_critical():
    run = scaled([65536 * 0.5 ** min(i, 30) for i in range(STEPS)])

    [finding] = findings(Fp16Overflow(), run)

    assert finding.severity is Severity.CRITICAL
    assert finding.measured("skipped_steps") == 30
    assert prescribe(finding, run)[0].name == "change-precision"


def test_many_skipped_steps_are_a_warning():
    run = scaled([2.0 ** (16 - (i % 8 < 4)) for i in range(STEPS)])

    [finding] = findings(Fp16Overflow(), run)

    assert finding.severity is Severity.WARNING


@pytest.mark.parametrize(
    "values",
    [[65536.0] * STEPS, [65536 * 0.5 ** min(i, 10) for i in range(STEPS)], [1.0] * STEPS],
    ids=["steady", "finding its factor", "switched off"],
)
def test_a_scaler_at_work_is_fine(values):
    assert findings(Fp16Overflow(), scaled(values)) == []


def moved(run: Run, ratio: float) -> Run:
    """The run with every weight moved by this share of its size at each recorded step."""
    new = [
        series(metric, flat(value), p.name, every=EVERY)
        for p in run.parameters
        for metric, value in (("param_norm", 2.0), ("param_update_norm", 2.0 * ratio))
    ]
    return replace(run, series=(*run.series, *new))


def test_steps_as_large_as_a_third_of_the_weights_are_too_large():
    run = moved(net(stays()), 0.3)

    [finding] = findings(UpdateTooLarge(), run)

    assert finding.severity is Severity.WARNING
    assert finding.measured("update_ratio") == pytest.approx(0.3)
    [remedy] = prescribe(finding, run)
    assert (remedy.name, remedy.old, remedy.new) == ("lower-lr", 0.1, 0.003)


def test_steps_of_a_millionth_that_lead_nowhere_are_too_small():
    run = moved(net(stays(), lr=1e-6), 1e-6)

    [finding] = findings(UpdateTooSmall(), run)

    assert finding.severity is Severity.WARNING
    assert prescribe(finding, run)[0].name == "raise-lr"


@pytest.mark.parametrize("ratio", [1e-6, 1e-4, 1e-3, 0.03])
def test_a_run_that_learns_has_steps_of_any_size(ratio):
    run = moved(net(learns()), ratio)

    assert findings(UpdateTooLarge(), run) == findings(UpdateTooSmall(), run) == []


def test_large_steps_of_a_run_that_learns_are_a_remark():
    [finding] = findings(UpdateTooLarge(), moved(net(learns()), 0.3))

    assert finding.severity is Severity.INFO


def test_a_warm_up_that_goes_on_is_not_judged():
    run = moved(net(stays()), 1e-6)
    warming = series("lr", np.linspace(1e-6, 0.1, STEPS))
    rest = tuple(s for s in run.series if s.metric != "lr")

    assert reasons(UpdateTooSmall(), replace(run, series=(*rest, warming))) == [
        "the learning rate still warms up"
    ]


@pytest.mark.parametrize(
    "detector",
    [
        MissingZeroGrad(), SoftmaxBeforeCrossEntropy(), EvalModeTraining(), SymmetricUnits(),
        UnnormalisedInputs(), BatchnormSmallBatch(),
    ],
)  # fmt: skip
def test_a_log_without_facts_is_an_abstention(detector):
    assert reasons(detector, net(learns())) == ["code and data were not recorded"]
