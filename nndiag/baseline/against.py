"""A run beside a baseline: which findings are known, and whether its curves lie in the band."""

from __future__ import annotations

from dataclasses import replace

from nndiag.baseline.contents import Baseline
from nndiag.curves.band import Learned
from nndiag.curves.resample import interval
from nndiag.detectors.outside_baseline import OutsideBaseline, counterpart
from nndiag.records import Abstention, Diagnosis, Finding, Series, Severity, Verdict


def judged_against(
    diagnosis: Diagnosis, baseline: Baseline, detector: OutsideBaseline | None
) -> Diagnosis:
    """The diagnosis with known findings marked, and with what `detector` says of the curves.

    `Diagnosis.run` must be whole. Without a detector (it is not asked for) only findings count.
    """
    run = diagnosis.run
    findings = [
        _marked(finding, baseline.knows(finding, run), diagnosis, baseline)
        for finding in diagnosis.findings
    ]
    said = list(detector.compare(run, baseline.curves)) if detector else []
    outside = [one for one in said if isinstance(one, Finding)]
    abstained = [one for one in said if isinstance(one, Abstention)]
    if detector and not baseline.curves:
        abstained.append(Abstention(detector.name, "the baseline holds no curve"))
    compared = [
        (one, curve)
        for one in (baseline.curves if detector else ())
        if isinstance(curve := counterpart(one, run), Series)
    ]
    notes = [note for pair in compared if (note := _note(*pair))]
    return replace(
        diagnosis,
        verdict=_verdict(diagnosis.verdict, outside),
        findings=tuple(sorted([*findings, *outside], key=lambda finding: -finding.severity)),
        abstained=(*diagnosis.abstained, *abstained),
        notes=(*diagnosis.notes, *notes),
    )


def _marked(finding: Finding, known: bool, diagnosis: Diagnosis, baseline: Baseline) -> Finding:
    symptoms = tuple(
        _marked(one, baseline.knows(one, diagnosis.run), diagnosis, baseline)
        for one in finding.symptoms
    )
    return finding.with_(known=known, symptoms=symptoms)


def _verdict(verdict: Verdict, outside: list[Finding]) -> Verdict:
    if not outside or verdict is Verdict.CRITICAL:
        return verdict
    worst = max(finding.severity for finding in outside)
    return Verdict.CRITICAL if worst is Severity.CRITICAL else Verdict.WARNING


def _note(learned: Learned, curve: Series) -> str:
    """What was compared, where the run and the baseline are not of one length."""
    if learned.is_last_value:
        return ""
    last, slack = int(curve.steps[-1]), max(1.0, learned.interval, interval(curve))
    if last < learned.last - slack:
        return (
            f"{learned.label} stops at step {last}, the baseline goes on to {learned.last}: only "
            "what both cover was compared"
        )
    if last > learned.last + slack:
        return f"{learned.label} was compared with the baseline up to step {learned.last}"
    return ""
