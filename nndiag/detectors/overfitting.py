"""The detector of `overfitting`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from nndiag.curves import robust
from nndiag.curves.courses import courses
from nndiag.curves.robust import probability
from nndiag.curves.shape import Curve, curve_of
from nndiag.detectors.base import Detector
from nndiag.records import Abstention, Evidence, Finding, Run, Series, Severity


@dataclass(frozen=True, kw_only=True)
class Overfitting(Detector):
    """The validation loss turns up while the training loss goes on falling.

    What it sees
        A validation loss that has passed its minimum and rises beyond its own noise, over several
        validations. One uptick is not evidence, and neither is a gap alone: dropout and
        augmentation make the training loss the higher one, or the lower, as they please.

    Why it happens
        The model learns what is particular to the training examples: too many steps, too many
        parameters or too few data for them.

    Evidence
        w = log of the validation loss, after its minimum (a running median over a twentieth)
        reported when the newest third of w lies above the minimum by more than 8 % and 1.5 times
        the noise of one validation, rising (Mann-Kendall z > 1.65) or nearly always above, and
        the training loss fell meanwhile. With fewer than 6 validations after the minimum: all
        above, 12 % and 3 times the noise.

    Remedy
        1. Stop at the minimum, or keep the checkpoint from there.
        2. More data or augmentation; weight decay, dropout; a smaller model.
        3. Where the validation accuracy still rises the model grows over-confident: smooth the
           labels rather than stop.

    Source
        Prechelt 1998, "Early Stopping - But When?". The limits are our choice; one uptick as
        evidence is what makes older tools blame healthy runs.
    """

    name = "overfitting"
    fewest: int = 5  # validations; our experiments
    later: int = 3  # validations after the minimum; our experiments
    rise: float = 0.08  # in log; 5 % is mild in small runs. Our choice
    few_rise: float = 0.12  # the same with fewer than 6 validations after the minimum
    noise_factor: float = 1.5  # noise of one validation; the rise is a median of several
    few_noise_factor: float = 3.0  # the same with fewer than 6 after the minimum; our experiments
    trend: float = 1.65  # Mann-Kendall z, one-sided 5 %; our experiments
    strong_rise: float = 0.5  # in log; above, it is certain. Our choice

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        losses = [c for c in courses(run) if not c.validation]
        vals = list(run.series_of("val_loss"))
        if not vals:
            yield Abstention(self.name, "no validation loss in this log")
            return
        if any(c.rival for c in losses):
            yield Abstention(self.name, "several losses are trained in this run")
            return
        train = losses[0].curve if losses else None
        for val in vals[:1]:
            curve = curve_of(val)
            if len(curve) < self.fewest:
                yield Abstention(self.name, f"{len(curve)} validations; {self.fewest} needed")
            elif not curve.positive:
                yield Abstention(
                    self.name, "the validation loss may be negative; ratios mean nothing"
                )
            else:
                yield from self.judged(run, val, curve, train)

    def judged(self, run: Run, val: Series, curve: Curve, train: Curve | None) -> Iterator[Finding]:
        w = np.log(np.maximum(curve.values, 1e-300))
        held = robust.running_median(w, max(3, w.size // 20)) if w.size >= 7 else w
        lowest = int(np.argmin(held))
        after = w[lowest + 1 :]
        if after.size < self.later:
            return
        many = after.size >= 6
        rise = float(np.median(after[-max(self.later, after.size // 3) :]) - held[lowest])
        noise = robust.step_noise(w) * (self.noise_factor if many else self.few_noise_factor)
        limit = max(self.rise if many else self.few_rise, noise)
        trend = robust.mann_kendall(robust.block_medians(after, 30))
        above = float(np.mean(after > held[lowest] + self.rise))
        in_a_row = bool((after[-self.later :] > held[lowest] + self.rise).all())
        rising = trend > self.trend or (trend > 0 and above > 0.9) if many else in_a_row
        if rise < limit or not rising or not self.learns(train, int(curve.steps[lowest])):
            return
        yield self.finding(run, val, curve, lowest, rise, trend)

    def learns(self, train: Curve | None, since: int) -> bool:
        """The training loss fell after the validation's minimum; unknown counts as yes."""
        if train is None or len(train) < self.fewest:
            return True
        row = train.row_of(since)
        if len(train) - row < 3:
            return False
        before = robust.middle(train.u[max(0, row - max(2, len(train) // 20)) : row + 1])
        now = robust.middle(train.u[-max(3, len(train) // 20) :])
        return now < before - 0.02

    def finding(
        self, run: Run, val: Series, curve: Curve, lowest: int, rise: float, trend: float
    ) -> Finding:
        steps = curve.steps
        best, end = float(curve.values[lowest]), float(curve.values[-1])
        accuracy = run.one("val_accuracy")
        still = accuracy is not None and improving(accuracy, int(steps[lowest]))
        message = (
            f"{val.label} was lowest at step {steps[lowest]} ({best:.3g}) and is at "
            f"{end:.3g} now ({100 * (np.exp(rise) - 1):.0f} % higher over the newest validations), "
            "while the training loss went on falling."
        )
        if still:
            message += " The validation accuracy still rises: the model grows over-confident."
        return Finding(
            name=self.name,
            severity=Severity.WARNING,
            confidence=probability(0.2, 3.0 * min(1.0, rise / self.strong_rise), 0.4 * trend),
            message=message,
            step_start=int(steps[lowest]),
            step_end=int(steps[-1]),
            series=val.label,
            evidence=(
                Evidence("best", best),
                Evidence("best_step", int(steps[lowest])),
                Evidence("end", end),
                Evidence("rise_fraction", round(float(np.exp(rise) - 1), 4), self.rise),
                Evidence("validations_after", len(curve) - lowest - 1, self.later),
                Evidence("accuracy_still_rises", still),
            ),
        )


def improving(accuracy: Series, since: int) -> bool:
    """The metric is higher at the end than it was at step `since`."""
    curve = curve_of(accuracy)
    row = curve.row_of(since)
    if len(curve) - row < 3:
        return False
    return bool(np.median(curve.values[-3:]) > curve.values[row] + 1e-9)
