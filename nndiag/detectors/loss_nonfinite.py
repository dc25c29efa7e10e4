"""The detector of `loss-nonfinite`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nndiag.curves.courses import courses
from nndiag.detectors.base import Detector
from nndiag.records import Abstention, Evidence, Finding, NonfiniteOrigin, Run, Series, Severity


@dataclass(frozen=True, kw_only=True)
class LossNonfinite(Detector):
    """The loss is NaN or infinite.

    What it sees
        The first step whose loss is not a number, how many are not, and whether finite values
        come back. Where layers were recorded: the first tensor that went bad, and what kind.

    Why it happens
        A logarithm, root or division at 0, an overflow in half precision, a NaN in the data, or
        parameters that a too large step has thrown out of range. One NaN in a parameter makes
        all that follows NaN.

    Evidence
        reported at the first value that is not finite.
        critical when no finite value follows, or more than 1 % are not finite.

    Remedy
        1. Look at the origin: an input asks for clean data, a logarithm for an epsilon or for a
           loss that takes logits.
        2. If the loss climbed before, or a parameter went first: lower the learning rate, clip.
        3. In float16: use bfloat16 or a gradient scaler.

    Source
        Micikevicius et al. 2018, arXiv:1710.03740 (loss scaling). The limit of 1 % is our choice.
    """

    name = "loss-nonfinite"
    explains: ClassVar[tuple[str, ...]] = ("nonfinite-tensor", "loss-plateau", "overfitting")
    tolerated: float = 0.01  # share of values; more is critical even if it comes back. Our choice

    def examine(self, run: Run) -> Iterator[Finding | Abstention]:
        found = courses(run)
        if not found:
            yield Abstention(self.name, "no loss in this log")
        seen = False
        owners = {course.owner for course in found}
        for loss in run.series_of("loss"):
            finding = self.judged(run, loss, loss.owner if len(owners) > 1 else "")
            if finding is not None and not seen:
                seen = len(owners) == 1
                yield finding
        for val in run.series_of("val_loss"):
            finding = None if seen else self.judged(run, val, "")
            if finding is not None:
                seen = True
                yield finding.with_(severity=Severity.WARNING)

    def judged(self, run: Run, loss: Series, owner: str) -> Finding | None:
        bad = ~np.isfinite(loss.values)
        if not bad.any():
            return None
        rows = np.flatnonzero(bad)
        first, last = int(rows[0]), int(rows[-1])
        stays = last == len(loss) - 1
        share = float(bad.mean())
        mild = not stays and share <= self.tolerated
        value = loss.values[first]
        kind = "NaN" if np.isnan(value) else "infinite"
        origin = origin_of(run, int(loss.steps[first]))
        back = "" if stays else " Finite values come back later."
        return Finding(
            name=self.name,
            severity=Severity.WARNING if mild else Severity.CRITICAL,
            confidence=1.0,
            message=(
                f"{loss.label} is {kind} at step {loss.steps[first]} "
                f"({rows.size} of {len(loss)} values are not finite).{back}{told(origin)}"
            ),
            step_start=int(loss.steps[first]),
            step_end=int(loss.steps[last]),
            series=loss.label,
            owner=owner,
            layers=layer_of(run, origin),
            evidence=(
                Evidence("first_step", int(loss.steps[first])),
                Evidence("value", str(value)),
                Evidence("count", int(rows.size)),
                Evidence("share", round(share, 4), self.tolerated),
                Evidence("recovered", not stays),
                *(() if origin is None else described(origin)),
            ),
        )


def origin_of(run: Run, step: int) -> NonfiniteOrigin | None:
    """The first tensor that went bad, if it did so no later than the loss."""
    earlier = [o for o in run.nonfinite if o.step <= step]
    return min(earlier, key=lambda o: o.step, default=None)


def layer_of(run: Run, origin: NonfiniteOrigin | None) -> tuple[str, ...]:
    """The module an origin lies in; of a parameter or gradient, the module that owns it."""
    if origin is None or not origin.where:
        return ()
    owners = {p.name: p.layer for p in run.parameters}
    layer = owners.get(origin.where, origin.where)
    return (layer,) if layer else ()


def described(origin: NonfiniteOrigin) -> Iterator[Evidence]:
    yield Evidence("origin_kind", origin.kind)
    yield Evidence("origin_where", origin.where)
    yield Evidence("origin_step", origin.step)
    if origin.detail:
        yield Evidence("origin_detail", origin.detail)


def told(origin: NonfiniteOrigin | None) -> str:
    if origin is None:
        return ""
    place = f" of {origin.where}" if origin.where else ""
    cause = f" ({origin.detail})" if origin.detail else ""
    return (
        f" The first tensor that went bad: the {origin.kind}{place} at step {origin.step}{cause}."
    )
