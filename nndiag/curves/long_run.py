"""How well a level is known that was averaged over noise with a memory.

The mean of n values that hang together is known less well than sigma / sqrt(n): its variance is
the long-run variance, the sum of all autocovariances, over n. It is estimated from the slowest
cosines of what is left when a trend is taken out; that many of them give an estimate with as many
degrees of freedom, so that Student's t is the right measure for the mean, however short the series
(the equal-weighted cosine estimate: Mueller 2014, "HAC corrections for strongly autocorrelated
time series"; Lazarus et al. 2018, "HAR inference: recommendations for practice").

Where the memory is so long that even these cosines are too fast, they miss a part of it. So the
same is done after the values are freed of the memory of one step (Andrews and Monahan 1992), and
the larger of the two counts.

Shapes: T points, K cosines.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from nndiag.curves.robust import running_median, upper_spread

Array = np.ndarray

# Cosines: fewer miss less of a long memory and widen the band. Our own choice, by false alarms on
# simulated noise: tests/curves/test_long_run.py
FREEDOM, MOST_FREEDOM = 6, 16
PER_POINTS = 0.12  # times T^(2/3), between these two
FEWEST = 5  # values; from fewer no noise is estimated
TREND = 2  # degree of the polynomial that is taken out; 1 below `SHORT` values
SHORT = 20
MOST_MEMORY = 0.98  # of one step that is believed; a series with more has no level to speak of
GROUPS = 40  # in which a weak but long memory is looked for
ENOUGH = 4.0  # memories that a stretch must hold. Our own choice, by the same simulation
CLIP = 4.0  # spreads; a value farther off is a spike
WIDEST = 201  # values in a running median
FEW = 0.1  # of the values may be spikes. Our own choice
MOST_POINTS = 4_000  # that are looked at; longer series are averaged in groups first


@dataclass(frozen=True, slots=True)
class LongRun:
    """The noise of a stretch of a series."""

    variance: float  # long-run: of the mean of n values it is variance / n
    freedom: float  # degrees of freedom of this estimate
    spread: float  # of the single values
    points: int
    memory: float  # about how many values count as one

    @property
    def is_known(self) -> bool:
        """Whether the stretch is long enough for its own memory."""
        return self.points >= ENOUGH * self.memory


def long_run(places_T: Array, values_T: Array) -> LongRun | None:
    """The noise of a stretch with a smooth trend; None where there are too few values.

    `places_T` are the steps of the values, increasing; all values are finite, and `calmed`.
    """
    count = values_T.size
    if count < FEWEST:
        return None
    group = -(-count // MOST_POINTS)
    if group > 1:
        whole = count // group * group
        places_T = places_T[:whole].reshape(-1, group).mean(axis=1)
        values_T = values_T[:whole].reshape(-1, group).mean(axis=1)
        count = values_T.size
    basis_TK, trend = _basis(places_T, count)
    residual_T = values_T - trend @ (trend.T @ values_T)
    plain = float(np.mean((basis_TK.T @ residual_T) ** 2))
    variance = max(plain, _freed(residual_T, basis_TK, trend.shape[1]))
    from_one_to_next = _memory(residual_T, trend.shape[1], 0.0)
    likely = (1.0 + from_one_to_next) / (1.0 - from_one_to_next)
    size = count // GROUPS
    if size > 1:  # a weak but long memory is seen only in means of several values
        mean_G = residual_T[: GROUPS * size].reshape(GROUPS, size).mean(axis=1)
        basis_GK, trend_G = _basis(np.arange(GROUPS, dtype=np.float64), GROUPS)
        variance = max(variance, size * _freed(mean_G, basis_GK, trend_G.shape[1], 0.0))
    spread = float(np.sqrt(np.sum(residual_T**2) / max(1, count - trend.shape[1])))
    return LongRun(
        variance * group,
        float(basis_TK.shape[1]),
        spread * group**0.5,
        count * group,
        group * likely,
    )


def calmed(values_T: Array) -> Array:
    """The values with a running median in place of spikes, which are neither level nor noise.

    Where far values are many, they are no spikes, and stay.
    """
    if values_T.size < SHORT:
        return values_T
    usual_T = running_median(values_T, min(WIDEST, values_T.size // 5))
    away_T = values_T - usual_T
    width = CLIP * max(upper_spread(away_T, far=True), upper_spread(-away_T, far=True))
    is_far = np.abs(away_T) > width
    if width <= 0 or np.mean(is_far) > FEW:
        return values_T
    return np.where(is_far, usual_T, values_T)


def _freed(residual_T: Array, basis_TK: Array, taken_out: int, caution: float = 1.0) -> float:
    """The long-run variance, estimated after the memory of one step is taken out.

    That memory is taken to be `caution` standard errors larger than it looks.
    """
    memory = _memory(residual_T, taken_out, caution)
    renewed_T = residual_T[1:] - memory * residual_T[:-1]
    return float(np.mean((basis_TK[1:].T @ renewed_T) ** 2)) / (1.0 - memory) ** 2


def _basis(places_T: Array, count: int) -> tuple[Array, Array]:
    """((T, K) slow waves, (T, D) trend), orthonormal and orthogonal to each other."""
    degree = TREND if count >= SHORT else 1
    wanted = min(MOST_FREEDOM, max(FREEDOM, round(PER_POINTS * count ** (2 / 3))))
    waves = max(2, min(wanted, (count - degree - 1) // 2))
    span = float(places_T[-1] - places_T[0]) or 1.0
    x_T = 2.0 * (places_T - places_T[0]) / span - 1.0
    t_T = (np.arange(count) + 0.5) / count
    columns = [x_T**d for d in range(degree + 1)]
    columns += [np.cos(np.pi * k * t_T) for k in range(1, waves + 1)]
    q, _ = np.linalg.qr(np.stack(columns, axis=1))
    return q[:, degree + 1 :], q[:, : degree + 1]


def _memory(residual_T: Array, taken_out: int, caution: float) -> float:
    """The autocorrelation from one value to the next, 0..MOST_MEMORY, freed of its bias."""
    square = float(residual_T @ residual_T)
    if square <= 0.0:
        return 0.0
    raw = float(residual_T[1:] @ residual_T[:-1]) / square
    # The detrended residuals of independent values are slightly anticorrelated; Kendall 1954.
    freed = raw + (taken_out + (taken_out + 2.0) * raw) / residual_T.size
    error = ((1.0 - min(1.0, freed**2)) / residual_T.size) ** 0.5
    return float(min(MOST_MEMORY, max(0.0, freed + caution * error)))
