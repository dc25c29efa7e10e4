"""What became of each finding from one side to the other."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from nndiag.comparison.facts import Change, FindingChange
from nndiag.fingerprint import Fingerprint, fingerprint
from nndiag.records import Diagnosis, Finding

WORSE = 2.0  # times as far beyond its limit. Our own choice: scores of two seeds differ by less
_ORDER = (Change.APPEARED, Change.WORSE, Change.GONE, Change.BETTER, Change.SAME)


def finding_changes(a: Sequence[Diagnosis], b: Sequence[Diagnosis]) -> tuple[FindingChange, ...]:
    """Every finding of either side by its fingerprint; what appeared first, what stayed last."""
    before, after = _by_fingerprint(a), _by_fingerprint(b)
    changes = [
        _change(print_, before.get(print_, []), after.get(print_, []))
        for print_ in sorted({*before, *after})
    ]
    return tuple(sorted(changes, key=lambda one: (_ORDER.index(one.change), -_severity(one))))


def _severity(change: FindingChange) -> int:
    return max(int(f.severity) for f in (change.before, change.after) if f is not None)


def _by_fingerprint(diagnoses: Sequence[Diagnosis]) -> dict[Fingerprint, list[Finding]]:
    """For each fingerprint the worst finding of each run that has it."""
    found: dict[Fingerprint, list[Finding]] = {}
    for diagnosis in diagnoses:
        of_run: dict[Fingerprint, Finding] = {}
        for finding in diagnosis.findings:
            key = fingerprint(finding, diagnosis.run)
            if key not in of_run or finding.severity > of_run[key].severity:
                of_run[key] = finding
        for key, finding in of_run.items():
            found.setdefault(key, []).append(finding)
    return found


def _change(
    print_: Fingerprint, before: Sequence[Finding], after: Sequence[Finding]
) -> FindingChange:
    old, new = _worst(before), _worst(after)
    change, why = Change.SAME, ""
    if old is None:
        change = Change.APPEARED
    elif new is None:
        change = Change.GONE
    else:
        change, why = _compared(old, new)
    return FindingChange(change, print_, old, new, len(before), len(after), why)


def _worst(findings: Sequence[Finding]) -> Finding | None:
    return max(findings, key=lambda finding: finding.severity, default=None)


def _compared(old: Finding, new: Finding) -> tuple[Change, str]:
    if new.severity != old.severity:
        change = Change.WORSE if new.severity > old.severity else Change.BETTER
        return change, f"{old.severity} -> {new.severity}"
    for name, was, now, limit in _beyond(old, new):
        ratio = now / was
        if ratio >= WORSE or ratio <= 1.0 / WORSE:
            change = Change.WORSE if ratio > 1.0 else Change.BETTER
            words = name.replace("_", " ")
            return change, f"{words} {was * limit:.4g} -> {now * limit:.4g} (limit {limit:.4g})"
    return Change.SAME, ""


def _beyond(old: Finding, new: Finding) -> Iterator[tuple[str, float, float, float]]:
    """(name, old and new measure in units of the limit, limit) of evidence above a limit."""
    known = {e.name: e for e in old.evidence}
    for proof in new.evidence:
        other = known.get(proof.name)
        if other is None or proof.limit is None or other.limit != proof.limit:
            continue
        limit = float(proof.limit)
        numbers = [other.measured, proof.measured]
        if any(isinstance(n, bool | str) for n in numbers) or not limit > 0:
            continue
        was, now = (float(n) / limit for n in numbers)
        if was >= 1.0 and now >= 1.0 and math.isfinite(was) and math.isfinite(now):
            yield proof.name, was, now, limit
