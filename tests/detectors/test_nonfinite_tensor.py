from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nndiag.detectors.nonfinite_tensor import NonfiniteTensor
from nndiag.records import NonfiniteOrigin, Severity
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

NAN, INF = float("nan"), float("inf")
GRADIENT = NonfiniteOrigin(120, "gradient", "4.weight", NAN, True, "SqrtBackward0")


def seen(run, *origins):
    return replace(run, nonfinite=origins)


def outputs(run, where, bad, mean):
    """The run with a layer whose outputs hold non-finite values at every measurement."""
    count = series("activation_nonfinite", bad, where, every=EVERY)
    return replace(
        run, series=(*run.series, count, series("activation_mean", mean, where, every=EVERY))
    )


def ends_in_nan(step):
    values = np.full(STEPS, 1.0)
    values[step:] = NAN
    return series("loss", values)


def test_a_gradient_that_went_bad_under_a_finite_loss_is_critical_and_named():
    [finding] = findings(NonfiniteTensor(), seen(weights(net(learns()), [1.0] * 6), GRADIENT))

    assert finding.severity is Severity.CRITICAL
    assert finding.step_start == 120
    assert finding.layers == ("4",)
    assert finding.measured("operation") == "SqrtBackward0"
    assert "the gradient of `4.weight` holds NaN from SqrtBackward0 at step 120" in finding.message


def test_norms_that_are_nan_tell_it_where_the_recorder_named_no_origin():
    run = weights(net(learns()), [1.0, 1.0, NAN, 1.0, 1.0, 1.0])

    [finding] = findings(NonfiniteTensor(), run)

    assert finding.layers == ("4",)
    assert finding.measured("steps") == STEPS // EVERY


def test_a_module_whose_outputs_stay_nan_is_a_warning():
    run = outputs(net(learns()), "1", flat(3.0), flat(NAN))

    [finding] = findings(NonfiniteTensor(), run)

    assert finding.severity is Severity.WARNING
    assert finding.layers == ("1",)


def scaled(run):
    """The run under a gradient scaler."""
    return replace(run, series=(*run.series, series("loss_scale", [65536.0] * STEPS)))


BAD_GRADIENT = seen(weights(net(learns()), [1.0] * 6), GRADIENT)
QUIET = {
    "a healthy net": weights(net(learns()), [1.0] * 6),
    "an attention mask": outputs(net(learns()), "1", flat(99.0), flat(-INF)),
    "one bad output": outputs(net(learns()), "1", [1.0, *flat(0.0, 30)], [NAN, *flat(0.0, 30)]),
    "a gradient scaler that looks for its scale": scaled(BAD_GRADIENT),
    "a loss that breaks at once": seen(weights(net(ends_in_nan(121)), [1.0] * 6), GRADIENT),
    "a bad loss as such": seen(
        weights(net(stays()), [1.0] * 6), NonfiniteOrigin(9, "loss", "", NAN, False)
    ),
}  # fmt: skip


@pytest.mark.parametrize("run", QUIET.values(), ids=QUIET)
def test_stays_silent_about(run):
    assert findings(NonfiniteTensor(), run) == []


def test_a_loss_that_breaks_much_later_does_not_hide_it():
    run = seen(weights(net(ends_in_nan(200)), [1.0] * 6), GRADIENT)

    assert findings(NonfiniteTensor(), run)


def test_without_layers_there_is_an_abstention():
    assert reasons(NonfiniteTensor(), net(stays())) == ["layers were not recorded"]
