"""converged: fell far, flat now."""

from __future__ import annotations

import numpy as np
import pytest

from nndiag.detectors.converged import Converged
from nndiag.records import Finding, Severity
from tests import synthetic


def found(run):
    return [f for f in Converged().examine(run) if isinstance(f, Finding)]


def finished():
    g = np.random.default_rng(0)
    loss = synthetic.falling(2000, end=0.45, pace=0.05) * np.exp(synthetic.noise(g, 2000, 0.05))
    return synthetic.run_of(loss=loss)


def test_a_fall_and_a_flat_end_are_a_finished_run():
    [finding] = found(finished())

    assert finding.severity is Severity.INFO
    assert finding.measured("level") == pytest.approx(0.45, rel=0.05)
    assert finding.step_start == 1600


QUIET = {
    "a loss that still falls": synthetic.run_of(loss=np.geomspace(2.3, 0.1, 800)),
    "a loss that never fell": synthetic.run("flat"),
    "a loss above its best level": synthetic.run("unrecovered spike"),
    "a loss that became NaN": synthetic.run("NaN from the middle"),
    "a blow-up back to the start": synthetic.run("blow-up at the start"),
    "noise too wide to tell": synthetic.run("noisy batch-1"),
    "a negative loss": synthetic.run("negative ELBO"),
}


@pytest.mark.parametrize("run", QUIET.values(), ids=QUIET)
def test_stays_silent_about(run):
    assert found(run) == []


def test_short_logs_and_rival_models_are_not_judged():
    [said] = Converged().examine(synthetic.run_of(loss=np.ones(41)))

    assert said.reason == "41 points; 100 needed"
    assert found(synthetic.gan()) == []
