"""Which optimizer steps get layer statistics: a fixed stride, or as many as the budget allows."""

from __future__ import annotations

DENSE_STEPS = 5  # the first steps show initialisation, so each is measured
STRIDE = 10  # steps; every 10th costs about 1 % on ordinary nets
UPDATE_STRIDE = 3  # steps between followed updates: a cosine is noisy, some dozens are needed
FREE_S = 0.15  # seconds that a run may cost whatever its length: a short run must be judged too
GROWTH = 1.15  # of the step number from one measurement to the next, once over the budget
UPDATE_GROWTH = 1.06
NORM_STRIDE = 4  # steps between gradient norms in a run that is over its budget: spikes must show
# Where several ranks train: steps up to which the strides hold. Then they double at each octave, so
# that half as many steps of each are measured, and half as many again: some 1,000 of a million.
SHARED_STEPS = 500  # for each percent of the budget
SHARED_UPDATE_STEPS = 50


class Schedule:
    """Says for each step whether its layers are measured, and keeps the cost within the budget.

    `every` is a number of steps or "auto". `overhead` is the share of the run's time (0..1) that
    observation may take under "auto"; the first `FREE_S` seconds of it are not counted. A run that
    is over its budget is still measured now and then, at step numbers that grow by a fixed factor:
    each stretch of a run, whatever its length, then has its measurements.

    Ranks that train together must measure the same steps, and no two clocks agree. Under "auto"
    such a run (`shared`) goes by step numbers alone, which get sparser as the run gets longer.
    """

    def __init__(self, every: int | str = "auto", overhead: float = 0.02) -> None:
        self.every = every
        self.overhead = overhead
        self._forced = 0

    def wants(
        self, step: int, last: int, *, cost_s: float, elapsed_s: float, shared: bool = False
    ) -> bool:
        """Whether step number `step` (from 0) is measured; `last` is the newest that was.

        `cost_s`: what observation has taken so far of the `elapsed_s` seconds of the run.
        """
        if self._forced:
            self._forced -= 1
            return True
        if isinstance(self.every, int):
            return step % self.every == 0
        if step < DENSE_STEPS:
            return True
        if shared:
            return step % self._stride(STRIDE, SHARED_STEPS, step) == 0
        if cost_s <= FREE_S + self.overhead * elapsed_s:
            return step % STRIDE == 0
        return step >= last * GROWTH + STRIDE

    def wants_update(self, step: int, last: int, *, cost_s: float, shared: bool = False) -> bool:
        """Whether at least the update of this step is followed; `last` is the newest that was."""
        if self.every != "auto":
            return False
        if shared:
            return step % self._stride(UPDATE_STRIDE, SHARED_UPDATE_STEPS, step) == 0
        if cost_s <= FREE_S:
            return step % UPDATE_STRIDE == 0
        return step >= last * UPDATE_GROWTH + UPDATE_STRIDE

    def wants_norm(
        self, step: int, *, cost_s: float, elapsed_s: float, shared: bool = False
    ) -> bool:
        """Whether the norm of all gradients is taken in this step, though its layers are not."""
        if shared or self.every != "auto" or step < DENSE_STEPS or step % NORM_STRIDE == 0:
            return True
        return cost_s <= FREE_S + self.overhead * elapsed_s

    def _stride(self, stride: int, steps_of_percent: int, step: int) -> int:
        """The stride at this step of a run that goes by step numbers alone."""
        until = max(20 * stride, round(100 * self.overhead * steps_of_percent))
        return stride << (step // until).bit_length()

    def force(self, steps: int = 1) -> None:
        """Measure the next steps whatever the budget says: something just went wrong."""
        self._forced = max(self._forced, steps)
