from __future__ import annotations

import numpy as np
import pytest

from nndiag.detectors.clip_always_active import ClipAlwaysActive
from nndiag.records import Severity
from tests.detectors.nets import STEPS, findings, learns, net, reasons, series, stays


def clipped(loss, norm, at, *, cosine=None, optimizer="SGD"):
    wave = 1 + 0.1 * np.sin(np.arange(STEPS))
    more = [series("grad_norm", norm * wave), series("clip_threshold", [at] * STEPS)]
    if cosine is not None:
        more.append(series("update_gradient_cosine", [cosine] * STEPS))
    return net(loss, *more, optimizer=optimizer)


def test_sgd_whose_every_step_is_cut_and_that_does_not_learn_is_a_warning():
    [finding] = findings(ClipAlwaysActive(), clipped(stays(), 0.5, 0.01, cosine=-0.2))

    assert finding.severity is Severity.WARNING
    assert finding.measured("clipped_fraction") == 1.0
    assert finding.measured("norm_to_threshold") == pytest.approx(50, rel=0.05)
    assert finding.measured("effective_lr") == pytest.approx(0.002, rel=0.05)
    assert "lr 0.1 acts like 0.002" in finding.message


REMARKS = {
    "Adam divides by the norm anyway": clipped(stays(), 0.5, 0.01, optimizer="AdamW"),
    "a net that learns well": clipped(learns(), 0.5, 0.01),
    "steps that are long enough": clipped(stays(), 0.5, 0.01, cosine=0.3),
}


@pytest.mark.parametrize("run", REMARKS.values(), ids=REMARKS)
def test_only_remarks_on(run):
    [finding] = findings(ClipAlwaysActive(), run)

    assert finding.severity is Severity.INFO


QUIET = {
    "a clip that cuts half of the steps": clipped(stays(), 1.0, 1.0),
    "a clip that cuts all steps by a little": clipped(stays(), 2.0, 1.0),
    "a clip that never cuts": clipped(stays(), 0.5, 10.0),
}


@pytest.mark.parametrize("run", QUIET.values(), ids=QUIET)
def test_stays_silent_about(run):
    assert findings(ClipAlwaysActive(), run) == []


def test_a_watched_run_without_clipping_is_judged_a_log_without_norms_is_not():
    norms = series("grad_norm", [1.0] * STEPS)

    assert reasons(ClipAlwaysActive(), net(learns(), norms)) == []
    assert reasons(ClipAlwaysActive(), net(learns())) == [
        "gradient norms and clip thresholds were not recorded"
    ]
