"""Which of the batches whose loss leaps are worth their room on the disk."""

from __future__ import annotations

import math
from dataclasses import dataclass

MOST = 3  # kept of one model
MOST_IN_ALL = 12  # of all models of a run: folds, searches
MOST_WRITES = 40  # of one run, those that others replace included
REST = 50  # steps after one: the noise that made a leap makes another; only a higher one counts
HIGHER = 1.1  # times the least score that is kept: so much more is worth another write


@dataclass(slots=True)
class Room:
    """What is left for all models of a run together."""

    batches: int = MOST_IN_ALL
    writes: int = MOST_WRITES


class Shortlist:
    """The highest leaps of one model. Of a loss that climbs and climbs, the beginning counts."""

    def __init__(self, room: Room | None = None) -> None:
        self._room = room or Room()
        self._scores: dict[str, float] = {}  # by name
        self._last = -math.inf, 0.0  # step and score of the newest one
        self._came_back = True  # whether the loss was a usual one since

    def saw_usual(self) -> None:
        """A loss that does not leap."""
        self._came_back = True

    def wants(self, step: int, score: float) -> bool:
        """Whether a leap of that score is to be kept."""
        if self._room.writes <= 0 or not self._came_back or not (self._scores or self._has_room):
            return False
        if math.isinf(score):  # of losses that are not finite the first counts
            return math.inf not in self._scores.values()
        last, height = self._last
        if step < last + REST and score <= height:
            return False
        return self._has_room or score > HIGHER * min(self._scores.values())

    def take(self, name: str, step: int, score: float) -> str:
        """Note that it is kept; the name of the one that has to go for it, or ""."""
        self._room.writes -= 1
        self._last, self._came_back = (step, score), False
        replaced = ""
        if self._has_room:
            self._room.batches -= 1
        else:
            replaced = min(self._scores, key=self._scores.__getitem__)
            del self._scores[replaced]
        self._scores[name] = score
        return replaced

    @property
    def _has_room(self) -> bool:
        """Whether one more can be kept, and nothing has to go for it."""
        return len(self._scores) < MOST and self._room.batches > 0
