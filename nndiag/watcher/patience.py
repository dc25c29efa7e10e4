"""A disk that hangs must not hang the training: after one slow write we leave it alone for a while.

A write cannot be given up, and a thread that writes for us would be one more thing that can hang at
exit or after a fork. So the training waits for the one write that is stuck, as it would for its own
checkpoint, and then for no other of ours until `REST` times as long has passed. What would have
been written meanwhile is dropped and counted.
"""

from __future__ import annotations

from time import perf_counter as _clock  # bound here: a script may patch time

SLOW_S = 1.0  # a write that takes this long was stuck; usual are 10 microseconds
REST = 50  # so that a slow disk takes 2 % of the time at most, as all of our overhead
MAX_REST_S = 600.0  # a process that was suspended during a write looks the same


class Patience:
    """Knows when the disk is left alone, and what that cost."""

    def __init__(self) -> None:
        self.dropped = 0  # records, since this was last told
        self.until_s = 0.0  # of the clock; 0 while no write has hung

    def resting(self) -> bool:
        """Whether the disk is left alone."""
        return self.until_s > 0 and _clock() < self.until_s

    def refuses(self) -> bool:
        """Whether a record is to be dropped; it is counted then."""
        resting = self.resting()
        self.dropped += resting
        return resting

    def took(self, seconds: float) -> None:
        """A write took so long; if that was too long, a rest begins."""
        if seconds >= SLOW_S:
            self.until_s = _clock() + min(REST * seconds, MAX_REST_S)

    def rest_s(self) -> float:
        """What is left of the rest."""
        return max(self.until_s - _clock(), 0.0)
