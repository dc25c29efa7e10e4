from __future__ import annotations

import pytest

from nndiag.detectors.vanishing_gradient import VanishingGradient
from nndiag.records import Severity
from tests.detectors.nets import crawls, findings, learns, net, reasons, stays, weights

SHRINKS = [1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 0.1]
EVEN = [0.2, 0.15, 0.1, 0.1, 0.15, 0.3]


def grads(loss, values, **about):
    return weights(net(loss, depth=len(values), **about), values)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam"])
def test_gradients_that_shrink_towards_the_input_of_a_stuck_net_are_critical(optimizer):
    [finding] = findings(VanishingGradient(), grads(stays(), SHRINKS, optimizer=optimizer))

    assert finding.severity is Severity.CRITICAL
    assert finding.measured("gradient_ratio") == pytest.approx(1e-6)
    assert finding.layers[0] == "0"
    assert "`0` gets 1e-06 of the gradient of `10`" in finding.message


def test_the_same_profile_starves_sgd_but_not_adam():
    """A ReLU net of 8 layers by default: SGD stays at ln 10, Adam learns."""
    profile = [1e-3, 7e-4, 7e-4, 8e-4, 1e-3, 2e-3, 3e-3, 1e-2, 2e-2]

    assert findings(VanishingGradient(), grads(stays(), profile, optimizer="SGD"))
    assert not findings(VanishingGradient(), grads(stays(), profile, optimizer="Adam"))


def test_gradients_under_adams_eps_are_too_small_whatever_their_ratio():
    even = [1e-9] * 6

    [finding] = findings(VanishingGradient(), grads(stays(), even, optimizer="Adam", eps=1e-8))

    assert finding.measured("gradient_ratio") == pytest.approx(1.0)


def test_a_gradient_of_exactly_zero_everywhere_is_told_as_such():
    [finding] = findings(VanishingGradient(), grads(stays(), [0.0] * 4))

    assert "exactly 0" in finding.message


QUIET = {
    "an even profile": grads(stays(), EVEN),
    "a net that learns all the same": grads(learns(), SHRINKS),
    "gradients that shrink towards the output": grads(stays(), [0.2, 0.1, 0.01, 0.005]),
    "too few weights": grads(stays(), SHRINKS[:2]),
    "no gradients at all": grads(stays(), [-1.0] * 5),
    "a loss that fell to a high floor": grads(crawls(), SHRINKS),
}


@pytest.mark.parametrize("run", QUIET.values(), ids=QUIET)
def test_stays_silent_about(run):
    assert findings(VanishingGradient(), run) == []


def test_without_layers_there_is_an_abstention():
    assert reasons(VanishingGradient(), net(stays())) == ["layers were not recorded"]
