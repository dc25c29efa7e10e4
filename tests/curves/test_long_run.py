"""How often a band of noise is left by noise alone, with and without a memory."""

from __future__ import annotations

import math

import numpy as np
import pytest

from nndiag.curves import long_run as module
from nndiag.curves.long_run import calmed, long_run
from nndiag.curves.student_t import two_sided

TRIALS, POINTS = 300, 500
QUANTILE = {freedom: two_sided(0.01, freedom) for freedom in range(2, module.MOST_FREEDOM + 1)}


def remembering(g: np.random.Generator, memory: float) -> np.ndarray:
    """(TRIALS, POINTS) of noise with variance 1 and this correlation from one to the next."""
    level = g.standard_normal(TRIALS)
    rows = np.empty((POINTS, TRIALS))
    for i in range(POINTS):
        level = memory * level + math.sqrt(1 - memory**2) * g.standard_normal(TRIALS)
        rows[i] = level
    return rows.T


def half_hidden(g: np.random.Generator) -> np.ndarray:
    return g.standard_normal((TRIALS, POINTS)) + 0.5 * remembering(g, 0.95)


NOISES = {
    "white": lambda g: g.standard_normal((TRIALS, POINTS)),
    "skewed": lambda g: g.gamma(1.0, 1.0, (TRIALS, POINTS)) - 1.0,
    "memory 0.5": lambda g: remembering(g, 0.5),
    "memory 0.9": lambda g: remembering(g, 0.9),
    "a memory hidden in white noise": half_hidden,
}


@pytest.mark.parametrize("name", NOISES)
def test_noise_alone_leaves_a_band_of_one_percent_at_most_so_often(name: str) -> None:
    """Of the mean of the newest fifth, with the noise of all; 300 times, so 9 are allowed."""
    alarms = 0
    steps = np.arange(POINTS, dtype=np.float64)
    window = POINTS // 5
    for values in NOISES[name](np.random.default_rng(5)):
        values = calmed(values)
        noise = long_run(steps, values)
        assert noise is not None
        band = QUANTILE[int(noise.freedom)] * math.sqrt(noise.variance / window)
        alarms += bool(noise.is_known and abs(values[-window:].mean()) > band)

    assert alarms <= 9


def test_white_noise_has_the_variance_that_it_has() -> None:
    g = np.random.default_rng(0)
    steps = np.arange(POINTS, dtype=np.float64)

    found = [long_run(steps, values) for values in g.standard_normal((100, POINTS))]

    assert 0.9 < np.median([one.variance for one in found if one]) < 1.6
    assert np.median([one.spread for one in found if one]) == pytest.approx(1.0, abs=0.05)


def test_a_trend_is_no_noise() -> None:
    steps = np.arange(200, dtype=np.float64)
    noise = 0.01 * np.random.default_rng(1).standard_normal(200)

    flat, falling = long_run(steps, noise), long_run(steps, 5.0 - steps / 50 + noise)

    assert flat is not None and falling is not None
    assert falling.variance == pytest.approx(flat.variance, rel=1e-6)


def test_a_drift_as_long_as_the_series_is_not_taken_for_known_noise() -> None:
    g = np.random.default_rng(2)
    steps = np.arange(100, dtype=np.float64)

    known = [long_run(steps, np.cumsum(g.standard_normal(100))) for _ in range(50)]

    assert np.mean([one is not None and one.is_known for one in known]) < 0.5


def test_a_spike_moves_neither_level_nor_noise() -> None:
    steps = np.arange(300, dtype=np.float64)
    calm = np.random.default_rng(3).standard_normal(300)
    spiky = calm.copy()
    spiky[20:35] += 60.0

    without, with_it = long_run(steps, calmed(calm)), long_run(steps, calmed(spiky))

    assert without is not None and with_it is not None
    assert with_it.variance < 1.5 * without.variance
    assert calmed(spiky).mean() == pytest.approx(calm.mean(), abs=0.15)


def test_a_new_level_is_no_spike() -> None:
    stepped = np.random.default_rng(4).standard_normal(300)
    stepped[150:] += 60.0

    assert calmed(stepped)[200:].mean() > 50.0


def test_few_values_tell_no_noise() -> None:
    assert long_run(np.arange(4.0), np.arange(4.0)) is None
    assert long_run(np.arange(6.0), np.ones(6)) is not None  # equal values: none


def test_a_long_series_is_looked_at_in_groups() -> None:
    g = np.random.default_rng(6)
    found = long_run(np.arange(50_000.0), g.standard_normal(50_000))

    assert found is not None
    assert 0.3 < found.variance < 3.0
    assert found.points > 40_000
