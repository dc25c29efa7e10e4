"""The report of `preflight`: one line for each check, then the findings with their remedies.

WARNING  train.py  first 20 steps, then stopped; 4.1 s in all
1 wrong, 1 to look at, 1 ok, 1 not seen

  wrong    zero_grad     12 gradients of the last step were still there in the next
  look     updates       0.32 of the weight a step; about 1e-3 is usual
  ok       variance      0.33 -> 0.21 over 4 layers, x 0.86 a layer  [bars]
  not seen dead units    no ReLU was seen

1  missing-zero-grad  warning  ...
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from nndiag.errors import NndiagError
from nndiag.gate import FAILED, PASSED, Gate
from nndiag.preflight.check import Check, State
from nndiag.records import Diagnosis, Severity, Verdict
from nndiag.reports import json_report, page, wording
from nndiag.reports.lines import (
    BLANK,
    FIXED,
    LABEL,
    NARROWEST,
    VERDICT,
    WIDEST,
    Line,
    Role,
    Span,
    labelled,
    wrapped,
)
from nndiag.reports.wording import clean, counted, told

STATE = {
    State.OK: Role.HEALTHY,
    State.LOOK: Role.WARNING,
    State.WRONG: Role.CRITICAL,
    State.UNSEEN: Role.DIM,
}
_ORDER = (State.WRONG, State.LOOK, State.OK, State.UNSEEN)
_COUNTED = {State.LOOK: "to look at"}
_STATE, _NAME = 9, 14  # columns
_BARS = "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588"
_ASCII_BARS = "_.:-=+*#"
_DECADES = 8.0  # below the largest, that the bars of a profile span


@dataclass(frozen=True, slots=True)
class Trial:
    """How the first steps were run."""

    script: str
    asked: int  # steps
    made: int  # steps
    seconds: float
    why: str  # it ended: "stopped", "itself", "time" or "failed"
    notes: tuple[str, ...] = ()
    arguments: str = ""  # the command line of the script, to be pasted into a shell


def report(
    diagnosis: Diagnosis,
    checks: Sequence[Check],
    trial: Trial,
    gate: Gate,
    *,
    width: int = FIXED,
    ascii_only: bool = False,
) -> list[Line]:
    """All that is said of a first look."""
    width = max(NARROWEST, min(width, WIDEST))
    lines = [*_header(diagnosis, checks, trial, width), BLANK]
    for check in checks:
        lines += _check(check, width, ascii_only)
    lines += page.finding_lines(diagnosis, width)
    notes = [note for note in (*trial.notes, *diagnosis.notes) if "undecided: " not in note]
    if notes:
        entries = [[Span(told(note), Role.DIM)] for note in notes]
        lines += [BLANK, *labelled("notes", entries, width)]
    lines += [BLANK, *_outcome(diagnosis, gate, trial, width), *_next(diagnosis, trial)]
    return lines


def json_text(
    diagnosis: Diagnosis,
    checks: Sequence[Check],
    trial: Trial,
    gate: Gate,
    errors: Sequence[NndiagError] = (),
) -> str:
    """The same for programs: the run's JSON with `checks` and `preflight` beside its findings."""
    more = {
        "preflight": {
            "script": trial.script,
            "steps_asked": trial.asked,
            "steps": trial.made,
            "seconds": round(trial.seconds, 3),
            "ended": trial.why,
            "notes": list(trial.notes),
        },
        "checks": [
            {
                "name": check.name,
                "state": str(check.state),
                "text": check.text,
                "findings": list(check.findings),
                "values": {one.name: json_report.value(one.measured) for one in check.values},
                "profile": [json_report.value(number) for number in check.profile],
            }
            for check in checks
        ],
    }
    return json_report.text([diagnosis], errors, gate=gate, more=[more])


def _header(
    diagnosis: Diagnosis, checks: Sequence[Check], trial: Trial, width: int
) -> Iterator[Line]:
    verdict = Span(str(diagnosis.verdict).upper(), VERDICT[diagnosis.verdict])
    if trial.why == "failed" and diagnosis.verdict is Verdict.HEALTHY:
        verdict = Span("ERROR", Role.CRITICAL)
    how = {
        "stopped": "then stopped",
        "itself": "then it ended by itself",
        "time": "then the time was over",
        "failed": "then it failed",
    }[trial.why]
    said = f" first {counted(trial.made, 'step')}, {how}; {trial.seconds:.1f} s in all"
    yield from wrapped([verdict, Span(f" {clean(trial.script)}", Role.STRONG), Span(said)], width)
    counts = {state: sum(check.state is state for check in checks) for state in _ORDER}
    shown = [f"{n} {_COUNTED.get(state, state)}" for state, n in counts.items() if n]
    yield from wrapped([Span(", ".join(shown))], width)
    if diagnosis.verdict is Verdict.UNDECIDED:
        reason = wording.undecided_note(diagnosis).partition(": ")[2]
        yield from wrapped([Span(f"undecided: {told(reason)}")], width)


def _check(check: Check, width: int, ascii_only: bool) -> Iterator[Line]:
    indent = 2 + _STATE + _NAME
    shown = told(check.text)
    role = Role.DIM if check.state is State.UNSEEN else Role.PLAIN
    entry = [Span(shown, role)]
    if check.profile:
        entry.append(Span(f" {bars(check.profile, ascii_only)}", Role.CURVE))
    if check.findings:
        entry.append(Span(f"-> {', '.join(check.findings)}", Role.STRONG))
    state = str(check.state)
    first, *others = wrapped(entry, width, indent=indent, hanging=indent)
    yield (
        Span("  "),
        Span(state, STATE[check.state]),
        Span(" " * (_STATE - len(state))),
        Span(check.name.ljust(_NAME), role if role is Role.DIM else Role.STRONG),
        *first[1:],
    )
    yield from others


def bars(profile: Sequence[float], ascii_only: bool = False) -> str:
    """A bar for each layer, by the decades that it lies below the largest; `!` for NaN."""
    glyphs = _ASCII_BARS if ascii_only else _BARS
    top = max((value for value in profile if math.isfinite(value)), default=0.0)
    drawn = []
    for value in profile:
        if math.isnan(value):
            drawn.append("!")
        elif math.isinf(value):
            drawn.append(glyphs[-1])
        elif value <= 0 or top <= 0:
            drawn.append(glyphs[0])
        else:
            height = 1 + math.log10(value / top) / _DECADES  # 1 at the top, 0 eight decades down
            drawn.append(glyphs[max(0, min(len(glyphs) - 1, round(height * (len(glyphs) - 1))))])
    return "".join(drawn)


def _outcome(diagnosis: Diagnosis, gate: Gate, trial: Trial, width: int) -> Iterator[Line]:
    """Passed or failed, and for what: what the exit status says."""
    status = gate.status([diagnosis], errors=int(trial.why == "failed"))
    rules = Span(f" (fails on {clean(', '.join(gate.settings.fail_on)) or 'nothing'})", Role.DIM)
    if status == PASSED:
        yield from wrapped([Span("PASSED", Role.HEALTHY), rules], width)
    elif status == FAILED:
        names = dict.fromkeys(finding.name for finding in gate.failing(diagnosis))
        why = wording.listed(names) if names else gate.doubt(diagnosis)
        yield from wrapped([Span("FAILED", Role.CRITICAL), Span(f" {why}"), rules], width)
    else:
        yield from wrapped([Span("ERROR", Role.CRITICAL), Span(" the script failed")], width)


def _next(diagnosis: Diagnosis, trial: Trial) -> Iterator[Line]:
    worst = next((one for one in diagnosis.findings if one.severity > Severity.INFO), None)
    if worst is not None:
        command = f"nndiag explain {clean(worst.name)}"
    elif diagnosis.verdict is Verdict.HEALTHY and trial.why in ("stopped", "time"):
        command = f"nndiag watch {clean(trial.arguments or trial.script)}"
    else:
        return
    yield (Span("next".ljust(LABEL), Role.DIM), Span(command, Role.COMMAND))
