"""Quantiles of Student's t: how far a mean of few values may lie off. Standard library only.

The distribution function is the regularised incomplete beta function, as a continued fraction
(Abramowitz and Stegun 26.7.1 and 26.5.8); its inverse is found by bisection.
"""

from __future__ import annotations

import math
from functools import lru_cache

_MOST_TERMS = 500
_TINY = 1e-300
_NORMAL_FROM = 1e6  # degrees of freedom; from there on t is the normal distribution


@lru_cache(maxsize=4096)
def quantile(probability: float, freedom: float) -> float:
    """The t that lies above a share `probability` of the distribution; 0 < probability < 1."""
    if not 0.0 < probability < 1.0 or not freedom > 0.0:
        raise ValueError(f"no quantile {probability} of t with {freedom} degrees of freedom")
    if probability < 0.5:
        return -quantile(1.0 - probability, freedom)
    low, high = 0.0, 1.0
    while distribution(high, freedom) < probability and high < 1e12:
        low, high = high, 2.0 * high
    for _ in range(200):
        middle = 0.5 * (low + high)
        if middle in (low, high):
            break
        if distribution(middle, freedom) < probability:
            low = middle
        else:
            high = middle
    return 0.5 * (low + high)


def two_sided(alpha: float, freedom: float) -> float:
    """The half width, in standard errors, of an interval that misses with probability `alpha`."""
    return quantile(1.0 - alpha / 2.0, freedom)


def distribution(t: float, freedom: float) -> float:
    """P(T <= t)."""
    if freedom >= _NORMAL_FROM:
        return 0.5 * math.erfc(-t / math.sqrt(2.0))
    tail = 0.5 * _incomplete_beta(freedom / (freedom + t * t), freedom / 2.0, 0.5)
    return 1.0 - tail if t >= 0 else tail


def _incomplete_beta(x: float, a: float, b: float) -> float:
    """I_x(a, b), regularised."""
    if x <= 0.0 or x >= 1.0:
        return 0.0 if x <= 0.0 else 1.0
    front = math.exp(
        math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b)
        + a * math.log(x) + b * math.log1p(-x)
    )  # fmt: skip
    if x < (a + 1.0) / (a + b + 2.0):  # where the fraction converges fast
        return front * _fraction(x, a, b) / a
    return 1.0 - front * _fraction(1.0 - x, b, a) / b


def _fraction(x: float, a: float, b: float) -> float:
    """The continued fraction of the incomplete beta function, by Lentz's method."""
    c, d = 1.0, 1.0 / _away(1.0 - (a + b) * x / (a + 1.0))
    value = d
    for m in range(1, _MOST_TERMS):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        for term in (even, odd):
            d = 1.0 / _away(1.0 + term * d)
            c = _away(1.0 + term / c)
            value *= c * d
        if abs(c * d - 1.0) < 1e-15:
            break
    return value


def _away(value: float) -> float:
    return value if abs(value) > _TINY else _TINY
