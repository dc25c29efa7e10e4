"""What `check` says beside the pages of the runs: passed or failed, and what a baseline holds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nndiag.gate import FAILED, PASSED, Gate
from nndiag.records import Diagnosis, Severity
from nndiag.reports import wording
from nndiag.reports.lines import BLANK, FIXED, LABEL, SEVERITY, Line, Role, Span, labelled, wrapped
from nndiag.reports.wording import clean, number

SHOWN = 20  # runs, findings


@dataclass(frozen=True, slots=True)
class KnownFinding:
    """A finding of a baseline."""

    what: str
    severity: Severity
    runs: int


@dataclass(frozen=True, slots=True)
class LearnedBand:
    """The band of a curve at its end; without a limit where the runs are too few."""

    label: str
    runs: int  # different ones
    end: int  # step
    lowest: float = 0.0
    highest: float = 0.0
    limit: float | None = None


def gate_lines(
    gate: Gate, diagnoses: Sequence[Diagnosis], errors: int, baseline: str = ""
) -> list[Line]:
    """`FAILED  1 of 2 runs`, then each run that failed and for what."""
    status = gate.status(diagnoses, errors)
    stopped = [diagnosis for diagnosis in diagnoses if gate.stops(diagnosis)]
    known = sum(finding.known for diagnosis in diagnoses for finding in diagnosis.findings)
    rules = f"fails on {clean(', '.join(gate.settings.fail_on)) or 'nothing'}"
    rules += f"; baseline {clean(baseline)}, {known} known" if baseline else ""
    if status == PASSED:
        said = wording.counted(len(diagnoses), "run")
        return [BLANK, *_verdict("PASSED", Role.HEALTHY, said, rules)]
    if status == FAILED:
        said = f"{len(stopped)} of {wording.counted(len(diagnoses), 'run')}"
        word, role = "FAILED", Role.CRITICAL
    else:
        said = f"{wording.counted(errors, 'path')} could not be read"
        said += f"; {len(stopped)} of {wording.counted(len(diagnoses), 'run')} failed" * bool(
            stopped
        )
        word, role = "ERROR", Role.CRITICAL
    lines = [BLANK, *_verdict(word, role, said, rules)]
    for diagnosis in stopped[:SHOWN]:
        names = dict.fromkeys(finding.name for finding in gate.failing(diagnosis))
        why = wording.listed(names) if names else gate.doubt(diagnosis)
        spans = [Span(f"{clean(diagnosis.run.path)}:"), Span(why, Role.STRONG)]
        lines += wrapped(spans, FIXED, indent=2, hanging=4)
    if len(stopped) > SHOWN:
        lines.append((Span(f"  and {len(stopped) - SHOWN} more"),))
    return lines


def learned_lines(
    path: str,
    runs: int,
    known: Sequence[KnownFinding],
    bands: Sequence[LearnedBand],
    rate: float,
) -> list[Line]:
    """What was learned into a baseline, and how far a run may stray from it."""
    wrote = [Span(f"wrote {clean(path)}:", Role.STRONG), Span(wording.counted(runs, "run"))]
    lines = list(wrapped(wrote, FIXED))
    entries = [list(_known(one)) for one in known[:SHOWN]]
    if len(known) > SHOWN:
        entries.append([Span(f"and {len(known) - SHOWN} more", Role.DIM)])
    if known:
        said = "found in these runs; from now on they fail no check unless they get worse"
        entries.insert(0, [Span(said, Role.DIM)])
    lines += labelled("known", entries, FIXED)
    lines += labelled("curves", [[Span(_band(one))] for one in bands], FIXED)
    if not bands:
        lines += labelled("curves", [[Span("none: no loss that the runs have in common")]], FIXED)
    elif any(one.limit is not None for one in bands):
        odds = f"a healthy run leaves the bands about once in {round(1 / rate)}, or more seldom"
        lines.append((Span(" " * LABEL), Span(odds, Role.DIM)))
    lines.append(
        (
            Span("next".ljust(LABEL), Role.DIM),
            Span(f"nndiag check RUN --baseline {clean(path)}", Role.COMMAND),
        )
    )
    return lines


def _verdict(word: str, role: Role, said: str, rules: str) -> list[Line]:
    return wrapped([Span(word, role), Span(f" {said}"), Span(f" ({rules})", Role.DIM)], FIXED)


def _known(one: KnownFinding) -> Iterator[Span]:
    yield Span(clean(one.what), Role.STRONG)
    yield Span(str(one.severity), SEVERITY[one.severity])
    yield Span(f"in {wording.counted(one.runs, 'run')}", Role.DIM)


def _band(one: LearnedBand) -> str:
    label = clean(one.label)
    if one.limit is None:
        return (
            f"{label}: no band: {wording.counted(one.runs, 'different run')}, 3 are needed, with "
            "different seeds"
        )
    return (
        f"{label}: {number(one.lowest)} to {number(one.highest)} at the end (step {one.end}) of "
        f"{wording.counted(one.runs, 'run')}; fails above {number(one.limit)}"
    )
