"""A run of a few steps -> its diagnosis and its checklist.

The findings are those of every diagnosis, by the same detectors, with limits that fit a first look:
what needs only wiring is judged after fewer steps, what a healthy training may still show after
twenty steps (a loss that has not fallen yet) must be far beyond its usual limit.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

from nndiag.detectors import catalogue
from nndiag.detectors.base import Detector
from nndiag.diagnosis import diagnose
from nndiag.preflight import layers, start, wiring
from nndiag.preflight.check import Check, Findings, State
from nndiag.records import Diagnosis, Run, Severity, Verdict

FEW = 10  # steps, before "never gets a gradient" means anything: parts may be left out at random

# What only a course of hundreds of steps shows.
LEFT_OUT = ("converged", "loss-oscillation", "loss-plateau", "outside-baseline", "overfitting",
            "slow-convergence")  # fmt: skip

# Limits for a first look, where they differ; a threshold in the project's settings comes first.
# "It does not learn yet" says little after twenty steps, so the signal itself must say more: ReLU
# nets of 8 layers with torch's own initialisation have 2e-6 and 1e-2, and learn under Adam.
FIRST_LOOK: Mapping[str, Mapping[str, float]] = {
    "unused-parameters": {"steps": FEW, "recorded": FEW},
    "untrained-parameters": {"steps": FEW, "recorded": 5},
    "dead-relu": {"samples": layers.SAMPLES},
    "activation-vanishing": {"limit": 1e-7, "limit_output": 1e-9},
    "update-too-large": {"limit": 0.2},
    "update-too-small": {"limit": 1e-7, "steps": FEW},
    "vanishing-gradient": {"limit": 1e-4, "limit_adaptive": 1e-6, "limit_relative": 1e-7},
}

# Without these nothing was seen that a verdict could rest on.
NEEDED = ("parameters", "has gradient", "loss")


@dataclass(frozen=True, slots=True)
class FirstLook:
    """What the first steps show."""

    diagnosis: Diagnosis
    checks: tuple[Check, ...]


def detectors(
    select: Iterable[str] = (),
    ignore: Iterable[str] = (),
    thresholds: Mapping[str, Mapping[str, float]] | None = None,
) -> tuple[Detector, ...]:
    """The detectors that are asked, with limits for a first look. Raises `BadUsage`."""
    given = thresholds or {}
    known = catalogue.names()
    limits = {
        name: {**FIRST_LOOK.get(name, {}), **given.get(name, {})}
        for name in (*given, *FIRST_LOOK)
        if name in given or name in known
    }
    asked = catalogue.selected(select, ignore, limits)
    return tuple(one for one in asked if one.name not in LEFT_OUT)


def look(run: Run, asked: Iterable[Detector]) -> FirstLook:
    """Judge a run of a few steps."""
    diagnosis = diagnose(run, asked)
    found = Findings.of(diagnosis.findings)
    checks = (
        wiring.parameters(run, found),
        wiring.gradients(run, found),
        wiring.zero_grad(run, found),
        wiring.modes(run, found),
        wiring.inputs(run, found),
        layers.variance(run, found),
        layers.gradient_norms(run, found),
        layers.dead_units(run, found),
        start.loss_at_start(run, found),
        start.first_updates(run, found),
        start.loss_moves(run, found),
    )
    return FirstLook(_with_verdict(diagnosis, checks), checks)


def _with_verdict(diagnosis: Diagnosis, checks: Iterable[Check]) -> Diagnosis:
    """The verdict of a first look: a short run is no reason for doubt, an unseen part of it is."""
    worst = max((finding.severity for finding in diagnosis.findings), default=Severity.INFO)
    if worst >= Severity.WARNING:
        return diagnosis
    notes = tuple(note for note in diagnosis.notes if not note.startswith("undecided: "))
    unseen = [one for one in checks if one.state is State.UNSEEN and one.name in NEEDED]
    if not unseen:
        return replace(diagnosis, verdict=Verdict.HEALTHY, notes=notes)
    reason = "; ".join(f"{one.name}: {one.text}" for one in unseen)
    return replace(diagnosis, verdict=Verdict.UNDECIDED, notes=(*notes, f"undecided: {reason}"))
