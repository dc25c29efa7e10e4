"""Which optimizer steps get layer statistics: a fixed stride, or as many as the budget allows."""

from __future__ import annotations

DENSE_STEPS = 5  # the first steps show initialisation, so each is measured
STRIDE = 10  # steps; every 10th costs about 1 % on ordinary nets
UPDATE_STRIDE = 3  # steps between followed updates, as long as the free seconds last
FREE_S = 0.5  # seconds that a run may cost whatever its length: a short run must be judged too


class Schedule:
    """Says for each step whether its layers are measured, and keeps the cost within the budget.

    `every` is a number of steps or "auto". `overhead` is the share of the run's time (0..1) that
    observation may take under "auto"; the first `FREE_S` seconds of it are not counted.
    """

    def __init__(self, every: int | str = "auto", overhead: float = 0.02) -> None:
        self.every = every
        self.overhead = overhead
        self._forced = 0

    def wants(self, step: int, *, cost_s: float, elapsed_s: float) -> bool:
        """Whether step number `step` (from 0) is measured, given what was spent so far."""
        if self._forced:
            self._forced -= 1
            return True
        if isinstance(self.every, int):
            return step % self.every == 0
        if step < DENSE_STEPS:
            return True
        return step % STRIDE == 0 and cost_s <= FREE_S + self.overhead * elapsed_s

    def wants_update(self, step: int, *, cost_s: float) -> bool:
        """Whether the update of step `step` is followed though its layers are not measured.

        The cosine between an update and the next gradient is noisy, and a mean over fewer than
        some dozens says little: short runs get it more often, while that is still free.
        """
        return self.every == "auto" and step % UPDATE_STRIDE == 0 and cost_s <= FREE_S

    def force(self, steps: int = 1) -> None:
        """Measure the next steps whatever the budget says: something just went wrong."""
        self._forced = max(self._forced, steps)
