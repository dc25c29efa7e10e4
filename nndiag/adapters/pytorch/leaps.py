"""Whether a loss leaps: judged at once, from the losses before it alone.

Looser than `loss-spike`, which sees the whole run and has the last word when it is read: what that
will call a spike must have been kept.
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from itertools import pairwise

WINDOW, LEVEL = 50, 21  # losses whose noise is measured, and whose median is the usual one
FEWEST = 20  # losses before the first leap
HIGH = 4.0  # noise widths above the usual loss. `loss-spike` asks for 5 of a level that is lower
RISE = 0.18  # and so much of it, in log(loss). `loss-spike`: 0.2
LEAST_NOISE = 1e-3  # of log(loss): a loss that hardly moves has no noise to speak of


class Leaps:
    """The losses of the last steps."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=WINDOW)

    def clear(self) -> None:
        self._recent.clear()

    def add(self, loss: float) -> None:
        if math.isfinite(loss):
            self._recent.append(loss)

    @property
    def usual(self) -> float:
        """Median of the last losses; NaN: there were none."""
        return statistics.median(list(self._recent)[-LEVEL:] or [math.nan])

    def score(self, loss: float) -> float:
        """By how many noise widths a loss leaps; 0: it does not, infinity: it is not finite."""
        if not math.isfinite(loss):
            return math.inf
        if len(self._recent) < FEWEST:
            return 0.0
        has_log = loss > 0 and min(self._recent) > 0
        level = self.usual
        height = math.log(loss / level) if has_log else loss - level
        if height < (RISE if has_log else 0.0):
            return 0.0
        seen = [math.log(one) for one in self._recent] if has_log else list(self._recent)
        score = height / max(_noise(seen), LEAST_NOISE if has_log else LEAST_NOISE * abs(level))
        return score if score > HIGH else 0.0


def _noise(values: list[float]) -> float:
    """Their width, by the differences of neighbours: a loss that falls is no noise."""
    changes = sorted(abs(b - a) for a, b in pairwise(values))
    middle = changes[len(changes) // 2] / 0.954  # median of |N(0, 2)|
    tail = changes[int(0.9 * len(changes))] / 2.326  # its 90 % point
    return max(middle, tail, 1e-12)
