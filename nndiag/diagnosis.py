"""diagnose(run, detectors): findings with their causes, symptoms and remedies, and a verdict.

Pure: the same run and the same detectors give the same diagnosis. No file, no clock, no terminal.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np

from nndiag import remedies
from nndiag.detectors.base import Detector
from nndiag.records import Abstention, Diagnosis, Finding, Run, Severity, Verdict

SAME_TIME = 10  # steps; an event in loss and gradients begins there at the same time. Our choice
LONG = 100  # points of the loss, from which on most loss rules judge. Our own choice
ENOUGH_POINTS = 20  # of the loss; with fewer, silence is no health. Our own choice

_CURVE = ("loss-spike", "loss-divergence", "loss-plateau", "slow-convergence", "loss-oscillation")


def diagnose(run: Run, detectors: Iterable[Detector]) -> Diagnosis:
    """What is wrong with `run`, causes first; the same run gives the same diagnosis.

    A detector that fails is an abstention with the reason: one fault of ours must not hide what
    the other detectors saw. `notes` are the run's own and, for `undecided`, why.
    """
    asked = sorted(detectors, key=lambda detector: detector.name)
    findings: list[Finding] = []
    abstained: list[Abstention] = []
    for detector in asked:
        seen, reasons = _examine(detector, run)
        findings += seen
        abstained += reasons
    causes = tie(findings, {detector.name: detector.explains for detector in asked})
    with np.errstate(all="ignore"):
        treated = [
            cause.with_(remedies=remedies.prescribe(cause, run, _others(cause, causes)))
            for cause in causes
        ]
    treated.sort(key=_worst_first)
    verdict, reason = _verdict(run, treated, abstained, {detector.name for detector in asked})
    notes = run.notes + ((reason,) if reason else ())
    return Diagnosis(run, verdict, tuple(treated), tuple(abstained), notes)


def _examine(detector: Detector, run: Run) -> tuple[list[Finding], list[Abstention]]:
    try:
        with np.errstate(all="ignore"):  # squares and sums of 1e300 are infinite, and may be
            said = list(detector.examine(run))
    except Exception as error:
        reason = f"could not judge: {type(error).__name__} {error}".rstrip()
        return [], [Abstention(detector.name, reason)]
    findings = [s for s in said if isinstance(s, Finding)]
    reasons = [s for s in said if isinstance(s, Abstention)]
    if findings:  # it did judge: that a part could not be judged is no abstention
        reasons = []
    return findings, list(dict.fromkeys(reasons))


def tie(findings: list[Finding], explains: dict[str, tuple[str, ...]]) -> list[Finding]:
    """Attach each symptom to its cause. One level: the symptoms of a symptom go to the cause.

    A finding may be the cause of another if its detector says so, it is not a mere remark, it began
    before the other ended, and the other was not there before it and long after it. Where two
    explain each other, the one that clearly began first is the cause; else the more certain one;
    else the first by name. So no circle can arise.
    """
    ranked = sorted(findings, key=_rank)
    cause_of: dict[int, int] = {}
    for i, symptom in reversed(list(enumerate(ranked))):  # so that a circle opens at the first
        for j, cause in enumerate(ranked):
            if i == j or not _may_explain(cause, symptom, explains):
                continue
            if _may_explain(symptom, cause, explains) and _precedes(symptom, cause):
                continue
            if not _leads_to(j, i, cause_of):
                cause_of[i] = j
                break
    symptoms: dict[int, list[Finding]] = {}
    for i, finding in enumerate(ranked):
        if i in cause_of:
            symptoms.setdefault(_root(i, cause_of), []).append(finding)
    tied = []
    for i, finding in enumerate(ranked):
        if i in cause_of:
            continue
        mine = tuple(sorted(symptoms.get(i, ()), key=_worst_first))
        # a cause is as grave as the gravest thing that it brings about
        severity = max([finding.severity, *(s.severity for s in mine)])
        tied.append(finding.with_(symptoms=finding.symptoms + mine, severity=severity))
    return tied


def _may_explain(cause: Finding, symptom: Finding, explains: dict[str, tuple[str, ...]]) -> bool:
    if symptom.name not in explains.get(cause.name, ()):
        return False
    if cause.severity is Severity.INFO and symptom.severity is not Severity.INFO:
        return False
    if cause.owner and symptom.owner and cause.owner != symptom.owner:
        return False
    if symptom.step_end is None:
        return True
    return _start(cause) <= symptom.step_end and not _outlasts(symptom, cause)


def _outlasts(symptom: Finding, cause: Finding) -> bool:
    """It was there before the cause, and for longer after it than until its end."""
    if symptom.step_start is None or symptom.step_end is None or cause.step_end is None:
        return False
    middle = (symptom.step_start + symptom.step_end) / 2
    return symptom.step_start < _start(cause) and cause.step_end < middle


def _start(finding: Finding) -> float:
    return -math.inf if finding.step_start is None else finding.step_start


def _precedes(one: Finding, other: Finding) -> bool:
    """Which of two that explain each other is the cause."""
    ahead = _start(other) - _start(one)
    if not math.isnan(ahead) and abs(ahead) > SAME_TIME:
        return ahead > 0
    return (-one.confidence, _rank(one)) < (-other.confidence, _rank(other))


def _rank(finding: Finding) -> tuple[float, float, str, str, tuple[str, ...]]:
    """Who is more of a cause: began first, surer, and then any fixed order."""
    return (_start(finding), -finding.confidence, finding.name, finding.owner, finding.layers)


def _leads_to(start: int, goal: int, cause_of: dict[int, int]) -> bool:
    """Whether the causes of `start`, followed upwards, come to `goal`."""
    while start in cause_of:
        start = cause_of[start]
        if start == goal:
            return True
    return start == goal


def _root(start: int, cause_of: dict[int, int]) -> int:
    while start in cause_of:
        start = cause_of[start]
    return start


def _others(finding: Finding, findings: list[Finding]) -> tuple[Finding, ...]:
    """All that was seen besides: the finding's own symptoms first, then the other causes."""
    rest = [other for other in findings if other is not finding]
    return (*finding.symptoms, *rest, *(s for other in rest for s in other.symptoms))


def _worst_first(finding: Finding) -> tuple[int, float, float, str, str]:
    return (
        -finding.severity,
        -round(finding.confidence, 1),
        _start(finding),
        finding.name,
        finding.owner,
    )


def _verdict(
    run: Run, findings: list[Finding], abstained: list[Abstention], asked: set[str]
) -> tuple[Verdict, str]:
    """One word, and for `undecided` the reason."""
    worst = max((finding.severity for finding in findings), default=Severity.INFO)
    if worst >= Severity.WARNING:
        return (Verdict.CRITICAL if worst is Severity.CRITICAL else Verdict.WARNING), ""
    points = max((_finite(s.values) for s in run.series_of("loss")), default=0)
    if points == 0:
        held_out = max((_finite(s.values) for s in run.series_of("val_loss")), default=0)
        if held_out < ENOUGH_POINTS:
            return Verdict.UNDECIDED, "undecided: no loss was found"
    elif points < ENOUGH_POINTS:
        return (
            Verdict.UNDECIDED,
            f"undecided: the loss has {points} points; {ENOUGH_POINTS} are needed",
        )
    curve = asked.intersection(_CURVE)
    silent = {a.name: a.reason for a in abstained if a.name in curve}
    # A long run whose losses play against each other is no short one: the rest could be judged.
    if curve and points < LONG and len(silent) > len(curve) / 2:
        name = min(silent)
        return (
            Verdict.UNDECIDED,
            f"undecided: {len(silent)} of {len(curve)} loss rules could not judge "
            f"({name}: {silent[name]})",
        )
    return Verdict.HEALTHY, ""


def _finite(values: np.ndarray) -> int:
    return int(np.isfinite(values).sum())
