"""A baseline: what is known of a training from some runs of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from nndiag.curves import band
from nndiag.curves.band import Learned
from nndiag.fingerprint import Fingerprint, fingerprint
from nndiag.records import Diagnosis, Finding, Run, Series, Severity

CURVES = ("loss", "val_loss")
SAME = 1e-9  # of a level: runs of one seed on one machine are one run


@dataclass(frozen=True, slots=True)
class Known:
    """A finding that some runs of the baseline have."""

    what: Fingerprint
    severity: Severity  # the gravest
    runs: int  # that have it


@dataclass(frozen=True, slots=True)
class Baseline:
    """The findings and the curves of some runs."""

    runs: int
    findings: tuple[Known, ...] = ()  # by fingerprint
    curves: tuple[Learned, ...] = ()  # by metric and owner

    def knows(self, finding: Finding, run: Run) -> bool:
        """Whether the runs have this finding already, as grave or graver.

        Of layers the forms count: a finding in some of the layers that are known is known. A cause
        made graver by symptoms that are known is no graver.
        """
        gravest = max(
            (self._severity(fingerprint(one, run)) for one in (finding, *finding.symptoms)),
            default=0,
        )
        return self._severity(fingerprint(finding, run)) > 0 and finding.severity <= gravest

    def _severity(self, what: Fingerprint) -> int:
        same = [
            known
            for known in self.findings
            if (known.what.name, known.what.series, known.what.owner)
            == (what.name, what.series, what.owner)
        ]
        layers = {layer for known in same for layer in known.what.layers}
        if not same or not set(what.layers) <= layers:
            return 0
        return max(int(known.severity) for known in same)


def learn(diagnoses: Sequence[Diagnosis]) -> Baseline:
    """A baseline of these runs; `Diagnosis.run` must be whole."""
    return Baseline(
        runs=len(diagnoses),
        findings=tuple(sorted(_known(diagnoses), key=lambda known: known.what)),
        curves=tuple(_learned(diagnoses)),
    )


def flat(findings: Sequence[Finding]) -> Iterator[Finding]:
    """Causes and their symptoms, all in one row."""
    for finding in findings:
        yield finding
        yield from flat(finding.symptoms)


def _known(diagnoses: Sequence[Diagnosis]) -> Iterator[Known]:
    seen: dict[Fingerprint, list[Severity]] = {}
    for diagnosis in diagnoses:
        of_run: dict[Fingerprint, Severity] = {}
        for finding in flat(diagnosis.findings):
            what = fingerprint(finding, diagnosis.run)
            of_run[what] = max(finding.severity, of_run.get(what, finding.severity))
        for what, severity in of_run.items():
            seen.setdefault(what, []).append(severity)
    for what, severities in seen.items():
        yield Known(what, max(severities), len(severities))


def _learned(diagnoses: Sequence[Diagnosis]) -> Iterator[Learned]:
    """The curves that the runs have in common under one name, each run's only once."""
    groups: dict[tuple[str, str, str], list[Series]] = {}
    for diagnosis in diagnoses:
        for metric in CURVES:
            for series in diagnosis.run.series_of(metric):
                key = (metric, series.owner, series.label)
                groups.setdefault(key, []).append(series)
    for key in sorted(groups):
        learned = band.learn(groups[key])
        if learned is not None:
            yield _distinct(learned)


def _distinct(learned: Learned) -> Learned:
    """Each different row once, in an order that does not depend on that of the paths."""
    order = np.lexsort(np.nan_to_num(learned.levels, nan=np.inf).T[::-1])
    kept: list[int] = []
    for i in order.tolist():
        row = learned.levels[i]
        if np.isfinite(row).any() and not any(_same(row, learned.levels[j]) for j in kept):
            kept.append(i)
    return replace(learned, levels=learned.levels[kept], errors=learned.errors[kept])


def _same(one: np.ndarray, other: np.ndarray) -> bool:
    return bool(np.allclose(one, other, rtol=SAME, atol=0.0, equal_nan=True))
