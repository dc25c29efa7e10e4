"""Workflow commands of GitHub Actions: each finding an annotation of the job.

    ::error title=loss-spike in runs/b::The loss rose from 0.42 to 7.9 ...%0A...

Critical findings are errors, warnings are warnings, remarks and what a baseline knows are notices.
GitHub shows ten of a kind for a step, so what fails the gate comes first.
"""

from __future__ import annotations

from collections.abc import Sequence

from nndiag.errors import NndiagError
from nndiag.gate import Gate
from nndiag.records import Diagnosis, Finding, Severity, Verdict
from nndiag.reports import wording
from nndiag.reports.lines import Line, Span
from nndiag.reports.wording import clean

LEVELS = {Severity.INFO: "notice", Severity.WARNING: "warning", Severity.CRITICAL: "error"}
_COMMANDS = ("::", "##[")  # what the runner obeys where a line of output begins with it


def text(
    diagnoses: Sequence[Diagnosis],
    errors: Sequence[NndiagError] = (),
    *,
    gate: Gate | None = None,
) -> str:
    """One command a line; empty where there is nothing to say."""
    said = [(0, _error(error)) for error in errors]
    for diagnosis in diagnoses:
        for finding in diagnosis.findings:
            fails = gate is not None and gate.fails(finding)
            said.append((1 if fails else 2, _annotation(diagnosis, finding)))
        doubt = gate.doubt(diagnosis) if gate is not None else ""
        if doubt or diagnosis.verdict is Verdict.UNDECIDED:
            said.append((1 if doubt else 2, _undecided(diagnosis, doubt)))
    said.sort(key=lambda one: one[0])
    return "".join(f"{command}\n" for _, command in said)


def harmless(lines: Sequence[Line]) -> list[Line]:
    """Lines of a report none of which the runner takes for a command, whatever a log is called."""
    return [_disarmed(line) if _is_command(line) else line for line in lines]


def _annotation(diagnosis: Diagnosis, finding: Finding) -> str:
    level = "notice" if finding.known else LEVELS[finding.severity]
    known = "known: " if finding.known else ""
    where = ", ".join(filter(None, (wording.place(finding), wording.step_range(finding))))
    body = [f"{where}: {wording.sentence(finding.message)}" if where else finding.message]
    if finding.remedies:
        first = finding.remedies[0]
        change = wording.change(first)
        body.append(f"-> {first.name}{f' ({change})' if change else ''}: {wording.advice(first)}")
    body.append(f"more: nndiag explain {finding.name}")
    return _command(level, f"{known}{finding.name} in {diagnosis.run.path}", body)


def _undecided(diagnosis: Diagnosis, doubt: str) -> str:
    level = "error" if doubt else "notice"
    if diagnosis.verdict is Verdict.UNDECIDED:
        return _command(
            level, f"undecided: {diagnosis.run.path}", [wording.verdict_line(diagnosis)]
        )
    reasons = [one.reason for one in diagnosis.abstained if one.name == "outside-baseline"]
    return _command(level, f"{doubt}: {diagnosis.run.path}", reasons)


def _error(error: NndiagError) -> str:
    return _command("error", f"nndiag: {error.where}", [error.what, error.do])


def _command(level: str, title: str, body: Sequence[str]) -> str:
    message = "\n".join(clean(part) for part in body if part)
    return f"::{level} title={_property(clean(title))}::{_data(message)}"


def _data(value: str) -> str:
    return value.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(value: str) -> str:
    return _data(value).replace(":", "%3A").replace(",", "%2C")


def _is_command(line: Line) -> bool:
    return "".join(span.text for span in line).lstrip().startswith(_COMMANDS)


def _disarmed(line: Line) -> Line:
    """Its first character that is no space, as an escape: what follows is no command any more."""
    text = "".join(span.text for span in line)
    start = len(text) - len(text.lstrip())
    return (Span(f"{text[:start]}\\x{ord(text[start]):02x}{text[start + 1 :]}"),)
