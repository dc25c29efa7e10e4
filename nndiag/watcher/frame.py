"""The pieces that the live view is drawn with: curves and numbers in a few characters.

Texts that come from a run go through `clean`: what would move the cursor cannot reach the terminal.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Sequence

BLOCKS = "▁▂▃▄▅▆▇█"
ROUNDING = 1e-9  # relative
LOGARITHMIC_FROM = 20.0  # highest / lowest mean; our own choice, so that a late descent is seen


def sparkline(values: Sequence[float]) -> str:
    """One block for each value; a value that is not finite is a cross."""
    finite = [value for value in values if math.isfinite(value)]
    if not finite:
        return "×" * len(values)
    low, high = min(finite), max(finite)
    if low > 0 and high / low >= LOGARITHMIC_FROM:
        return sparkline([math.log(value) if value > 0 else math.nan for value in values])
    middle, reach = low / 2 + high / 2, high / 2 - low / 2  # halves: high - low may be infinite
    if reach <= ROUNDING * abs(middle):  # means of a constant differ in their last digits
        reach = 0.0
    highest = len(BLOCKS) - 1
    return "".join(
        BLOCKS[round(((value - middle) / reach + 1) / 2 * highest) if reach else 0]
        if math.isfinite(value)
        else "×"
        for value in values
    )


def stretched(values: list[float], room: int) -> list[float]:
    """Means of a run that has outgrown its bins fill between half and all of the room: fill it."""
    if len(values) < room // 2:
        return values
    return [values[index * len(values) // room] for index in range(room)]


def number(value: float) -> str:
    if not math.isfinite(value):
        return "NaN" if math.isnan(value) else "inf" if value > 0 else "-inf"
    return f"{value:.4g}"


def percent(share: float) -> str:
    return f"{100 * share:.2g} %" if share >= 1e-4 or not share else f"{share:.0e}"


def speed(steps_per_s: float) -> str:
    if steps_per_s >= 1:
        return f"{steps_per_s:.3g} steps/s" if steps_per_s < 1000 else f"{steps_per_s:.0f} steps/s"
    return f"{1 / steps_per_s:.3g} s/step" if steps_per_s > 0 else "no steps"


def count(number: int) -> str:
    for size, unit in ((10**9, "G"), (10**6, "M"), (10**3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return str(number)


def clean(text: str) -> str:
    """`text` of somebody else without what would move the cursor."""
    return "".join(c if unicodedata.category(c)[0] != "C" else "�" for c in text[:300])
