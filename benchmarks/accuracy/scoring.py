"""The rules by which findings are scored against the labels of a run.

A label of a person is a set of findings of which one must be seen. A finding of any severity counts
as seen; only a warning or worse is an alarm. What a reasonable person could say as well (`also_ok`)
is never a false alarm, and saying it instead of the label is no miss; nor is silence, where
"healthy" or "converged" would do as well. A finding that hangs below another as its symptom is not
counted: a reader sees it as an explanation, not as a verdict.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

QUIET = frozenset({"healthy", "converged"})  # labels that ask for no finding

# A label, the finding that it is counted under, and what is as good.
FINDING = {
    "slow_convergence": "slow-convergence",
    "plateau": "loss-plateau",
    "oscillation": "loss-oscillation",
    "overfitting": "overfitting",
    "spike_recovered": "loss-spike",
    "spike_unrecovered": "loss-spike",
    "divergence": "loss-divergence",
    "nan_inf": "loss-nonfinite",
}
AS_GOOD = {"spike_unrecovered": frozenset({"loss-divergence"})}
CURVE = frozenset(FINDING.values())  # findings that a loss curve alone can show


@dataclass(frozen=True, kw_only=True)
class Truth:
    """A run, and what is true of it."""

    name: str
    path: Path
    format: str
    source: str  # repository it was taken from
    expected: tuple[tuple[str, frozenset[str]], ...]  # (counted under, accepted findings)
    allowed: frozenset[str] = frozenset()  # findings that are not wrong either
    silence_allowed: bool = False
    sure: bool = True

    @property
    def is_healthy(self) -> bool:
        return not self.expected


@dataclass(frozen=True)
class Said:
    """What was found in a run."""

    seen: frozenset[str] = frozenset()
    alarms: frozenset[str] = frozenset()  # those of `seen` that are warnings or worse


@dataclass(frozen=True)
class Judgement:
    """Right, false and missed findings of one run."""

    right: tuple[str, ...]
    false: tuple[str, ...]
    missed: tuple[str, ...]
    is_healthy: bool


def judge(truth: Truth, said: Said) -> Judgement:
    right, missed = [], []
    forgiven = bool(said.seen & truth.allowed) or (truth.silence_allowed and not said.alarms)
    for name, accepted in truth.expected:
        if said.seen & accepted:
            right.append(name)
        elif not forgiven:
            missed.append(name)
    accepted_anywhere = frozenset().union(*(accepted for _, accepted in truth.expected))
    false = said.alarms - accepted_anywhere - truth.allowed
    return Judgement(tuple(right), tuple(sorted(false)), tuple(missed), truth.is_healthy)


@dataclass
class Tally:
    """Judgements of many runs, counted."""

    right: Counter[str] = field(default_factory=Counter)
    false: Counter[str] = field(default_factory=Counter)
    missed: Counter[str] = field(default_factory=Counter)
    healthy: int = 0
    blamed: int = 0  # healthy runs with a false alarm

    @classmethod
    def of(cls, judgements: Iterable[Judgement]) -> Tally:
        tally = cls()
        for judgement in judgements:
            tally.right.update(judgement.right)
            tally.false.update(judgement.false)
            tally.missed.update(judgement.missed)
            tally.healthy += judgement.is_healthy
            tally.blamed += judgement.is_healthy and bool(judgement.false)
        return tally

    @property
    def names(self) -> list[str]:
        return sorted({*self.right, *self.false, *self.missed})

    def precision(self, name: str) -> float:
        return self.right[name] / max(1, self.right[name] + self.false[name])

    def recall(self, name: str) -> float:
        return self.right[name] / max(1, self.right[name] + self.missed[name])

    def f1(self, name: str) -> float:
        wrong = self.false[name] + self.missed[name]
        return 2 * self.right[name] / max(1, 2 * self.right[name] + wrong)

    @property
    def macro_f1(self) -> float:
        """The mean over the findings that were expected or said; NaN where there is none."""
        names = self.names
        return sum(map(self.f1, names)) / len(names) if names else float("nan")

    @property
    def blamed_share(self) -> float:
        return self.blamed / max(1, self.healthy)


def truths_in(place: Path, root: Path | None = None) -> list[Truth]:
    """Labelled runs: a manifest (one JSON object a line), or a folder of sample runs.

    A manifest's files are relative to `root`, by default its own folder. In a folder of sample runs
    each run has an `expected.json` beside it.
    """
    if place.is_dir() and (place / "MANIFEST.jsonl").is_file():
        place = place / "MANIFEST.jsonl"
    if place.is_dir():
        return list(_samples(place))
    lines = place.read_text(encoding="utf-8").splitlines()
    return [truth_of(json.loads(line), root or place.parent) for line in lines if line.strip()]


def truth_of(entry: dict[str, Any], root: Path) -> Truth:
    """One line of a manifest."""
    labels, also = entry["labels"], set(entry.get("also_ok", ()))
    return Truth(
        name=entry["id"],
        path=root / entry["file"],
        format=entry.get("format", ""),
        source=entry.get("source_repo", ""),
        expected=tuple(
            (FINDING[label], AS_GOOD.get(label, frozenset()) | {FINDING[label]})
            for label in labels
            if label not in QUIET
        ),
        allowed=frozenset(FINDING[label] for label in also - QUIET),
        silence_allowed=bool(also & QUIET),
        sure=entry.get("confidence", "sure") == "sure",
    )


def _samples(folder: Path) -> Iterator[Truth]:
    for file in sorted(folder.glob("*/expected.json")):
        findings = json.loads(file.read_text(encoding="utf-8"))["findings"]
        alarms = [f["name"] for f in findings if f["severity"] != "info"]
        yield Truth(
            name=file.parent.name,
            path=file.parent / "run",
            format="nndiag",
            source="sample_runs",
            expected=tuple((name, frozenset({name})) for name in alarms if name in CURVE),
            allowed=frozenset(_symptoms(findings)) & CURVE,
        )


def _symptoms(findings: Iterable[dict[str, Any]]) -> Iterator[str]:
    for finding in findings:
        for symptom in finding.get("symptoms", ()):
            yield symptom if isinstance(symptom, str) else symptom["name"]
