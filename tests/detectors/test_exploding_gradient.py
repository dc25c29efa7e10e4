from __future__ import annotations

import numpy as np
import pytest

from nndiag.detectors.exploding_gradient import ExplodingGradient
from nndiag.records import Severity
from tests.detectors.nets import (
    STEPS,
    breaks,
    drops,
    findings,
    learns,
    net,
    reasons,
    series,
    stays,
    weights,
)


def jumping(places, peak=500.0, usual=1.0):
    norm = np.full(STEPS, usual) * (1 + 0.1 * np.sin(np.arange(STEPS)))
    norm[list(places)] = peak
    return series("grad_norm", norm)


def shaken(places, to=8.0):
    loss = np.full(STEPS, 1.0) * (1 + 0.05 * np.sin(np.arange(STEPS)))
    for place in places:
        loss[place + 1 : place + 6] = to
    return series("loss", loss)


def test_gradients_far_above_their_weights_at_the_start_of_a_run_that_breaks():
    [finding] = findings(ExplodingGradient(), weights(net(breaks(), depth=4), [3e4] * 4))

    assert finding.severity is Severity.CRITICAL
    assert finding.measured("at_start") is True
    assert finding.measured("gradient_to_weight") == pytest.approx(6e3)
    assert finding.layers == ("0", "2", "4", "6")


def test_gradients_far_above_their_weights_in_a_run_that_begins_absurdly_high():
    """A recurrent net of gain 2 under Adam: the loss starts at 12,000 and comes down."""
    assert findings(ExplodingGradient(), weights(net(drops(1.2e4, 5.0), depth=4), [3e4] * 4))


def test_norms_that_keep_jumping_and_shake_the_loss():
    places = (100, 180, 260, 340)

    [finding] = findings(ExplodingGradient(), net(shaken(places), jumping(places)))

    assert finding.step_start == 100 and finding.step_end == 340
    assert finding.measured("places") == 4
    assert finding.measured("gradient_norm_peak") == 500.0


NAN_FROM_NOWHERE = series("loss", [2.3, 2.2] + [np.nan] * (STEPS - 2))
INTERPOLATES = series("grad_norm", np.where(np.arange(STEPS) % 60 == 59, 0.2, 1e-4) + 0.3 * (
    np.arange(STEPS) < 20))  # fmt: skip

QUIET = {
    "large gradients that do no harm": weights(net(learns(), depth=4), [3e4] * 4),
    "one large output layer": weights(net(breaks(), depth=4), [1.0, 1.0, 1.0, 90.0]),
    "NaN out of the blue": weights(net(NAN_FROM_NOWHERE, depth=4), [3e4] * 4),
    "one jump, which is a spike": net(shaken([200]), jumping([200])),
    "jumps that the loss does not feel": net(learns(), jumping((100, 180, 260, 340))),
    "a net that has learned all": net(shaken((119, 179, 239)), INTERPOLATES),
    "NaN gradients": net(stays(), series("grad_norm", np.full(STEPS, np.nan))),
}


@pytest.mark.parametrize("run", QUIET.values(), ids=QUIET)
def test_stays_silent_about(run):
    assert findings(ExplodingGradient(), run) == []


def test_without_norms_there_is_an_abstention():
    assert reasons(ExplodingGradient(), net(stays())) == ["no gradient norms were recorded"]
