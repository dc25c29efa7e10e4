"""The report as Markdown: for a comment on a pull request, or the summary page of a CI job.

    ## nndiag: failed
    1 of 2 runs failed: loss-spike in `runs/b`

    | run | verdict | steps | findings |            where there are several runs

    ### `runs/b`: critical
    | finding | severity | where | evidence | first remedy |

    <details><summary>Details</summary> ... </details>

Text from a log stays text: it is escaped for Markdown and for HTML, and it can neither mention
anybody (`@name`), nor refer to an issue (`#12`), nor become a link.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator, Sequence

from nndiag.errors import NndiagError
from nndiag.gate import Gate
from nndiag.records import Diagnosis, Finding, Verdict
from nndiag.reports import wording
from nndiag.reports.wording import clean

RUNS_SHOWN = 20  # with their own part; a comment may have 65 536 characters, a summary 1 MiB
MOST_CHARACTERS = 60_000
_SPECIAL = re.compile(r"([\\`*_\[\]|~$])")
_STARTS_A_BLOCK = re.compile(r"^([-+=]|\d+(?=[.)]))")
_REFERENCE = re.compile(r"([@#]|:(?=//)|\bwww(?=\.)|!(?=\d)|\bGH-(?=\d))", re.I)
_APART = "<!-- -->"  # between two characters it is seen by nobody, and no reference is made


def text(
    diagnoses: Sequence[Diagnosis],
    errors: Sequence[NndiagError] = (),
    *,
    gate: Gate | None = None,
    skipped: Sequence[NndiagError] = (),
) -> str:
    """The page, ending in a newline; with a `gate` it begins with pass or fail."""
    blocks = [_title(diagnoses, errors, gate)]
    if len(diagnoses) > 1:
        blocks.append("\n".join(_overview(diagnoses)))
    ordered = sorted(diagnoses, key=lambda one: _worst_first(one, gate))
    parts = ["\n\n".join(_run(diagnosis, gate)) for diagnosis in ordered if _is_told(diagnosis)]
    told = ["\n\n".join([*blocks, *_errors(errors)])]
    length = len(told[0])
    for count, part in enumerate(parts):
        length += len(part) + 2
        if count >= RUNS_SHOWN or length > MOST_CHARACTERS:
            rest = wording.counted(len(parts) - count, "more run")
            told.append(f"... and {rest}; `nndiag analyze` shows them.")
            break
        told.append(part)
    if skipped:
        told.append(f"{wording.counted(len(skipped), 'file')} in the folders searched left out.")
    return "\n\n".join(told) + "\n"


def prose(given: object) -> str:
    """Text from data as Markdown that shows it, character for character."""
    line = html.escape(wording.told(given), quote=False)
    line = _REFERENCE.sub(lambda match: f"{match[0]}{_APART}", line)
    escaped = _APART.join(_SPECIAL.sub(r"\\\1", part) for part in line.split(_APART))
    return _STARTS_A_BLOCK.sub(lambda match: _numbered(match[0]), escaped.strip())


def code(given: object) -> str:
    """Text from data as code; also safe in the cell of a table."""
    line = clean(given).strip() or " "
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if line[0] == "`" or line[-1] == "`" else ""
    return f"{fence}{pad}{line}{pad}{fence}".replace("|", "\\|")


def _bold(given: object) -> str:
    return f"**{prose(given) or '(no name)'}**"


def _numbered(start: str) -> str:
    return f"\\{start}" if not start.isdecimal() else f"{start}{_APART}"


def _title(diagnoses: Sequence[Diagnosis], errors: Sequence[NndiagError], gate: Gate | None) -> str:
    if gate is None:
        word = wording.tally(diagnoses, len(errors))
        return f"## nndiag: {prose(word)}"
    word = ("passed", "failed", "could not judge all")[gate.status(diagnoses, len(errors))]
    lines = [f"## nndiag: {word}", "", prose(wording.tally(diagnoses, len(errors)))]
    stopped = [diagnosis for diagnosis in diagnoses if gate.stops(diagnosis)]
    for diagnosis in stopped[:RUNS_SHOWN]:
        names = dict.fromkeys(finding.name for finding in gate.failing(diagnosis))
        why = wording.listed(names) if names else gate.doubt(diagnosis)
        lines += [f"- {code(diagnosis.run.path)}: {_bold(why)}"]
    if stopped:
        lines.insert(3, "")
    return "\n".join(lines)


def _overview(diagnoses: Sequence[Diagnosis]) -> Iterator[str]:
    yield "| run | verdict | steps | findings |"
    yield "| --- | --- | --- | --- |"
    for diagnosis in diagnoses[: 10 * RUNS_SHOWN]:
        names = wording.listed(dict.fromkeys(_name(finding) for finding in diagnosis.findings))
        cells = (
            code(diagnosis.run.path),
            f"{diagnosis.verdict}",
            prose(wording.steps_read(diagnosis.run)),
            prose(names),
        )
        yield f"| {' | '.join(cells)} |"


def _is_told(diagnosis: Diagnosis) -> bool:
    return bool(diagnosis.findings) or diagnosis.verdict is not Verdict.HEALTHY


def _worst_first(diagnosis: Diagnosis, gate: Gate | None) -> tuple[bool, int]:
    order = (Verdict.CRITICAL, Verdict.WARNING, Verdict.UNDECIDED, Verdict.HEALTHY)
    return (gate is None or not gate.stops(diagnosis), order.index(diagnosis.verdict))


def _run(diagnosis: Diagnosis, gate: Gate | None) -> Iterator[str]:
    run = diagnosis.run
    yield f"### {code(run.path)}: {diagnosis.verdict}"
    yield f"{prose(wording.verdict_line(diagnosis))}<br>{prose(wording.loss_read(run))}"
    if diagnosis.findings:
        rows = [_row(finding) for finding in diagnosis.findings]
        head = "| finding | severity | where | evidence | first remedy |\n" + "| --- " * 5 + "|"
        yield "\n".join([head, *rows])
    details = "\n".join(_details(diagnosis))
    if details:
        yield f"<details><summary>Details</summary>\n\n{details}\n\n</details>"


def _row(finding: Finding) -> str:
    where = ", ".join(filter(None, (wording.place(finding), wording.step_range(finding))))
    proof = ", ".join(wording.evidence_item(item) for item in finding.evidence)
    first = finding.remedies[0] if finding.remedies else None
    remedy = ""
    if first is not None:
        change = wording.change(first)
        remedy = f"{_bold(first.name)}" + (f" {code(change)}" if change else "")
    cells = (f"{_bold(finding.name)}", _severity(finding), prose(where), prose(proof), remedy)
    return f"| {' | '.join(cells)} |"


def _name(finding: Finding) -> str:
    return f"{finding.name} (known)" if finding.known else finding.name


def _severity(finding: Finding) -> str:
    return f"{finding.severity}, known" if finding.known else f"{finding.severity}"


def _details(diagnosis: Diagnosis) -> Iterator[str]:
    for finding in diagnosis.findings:
        yield f"- {_bold(finding.name)}: {prose(wording.sentence(finding.message))}"
        for rank, remedy in enumerate(finding.remedies, start=1):
            change = wording.change(remedy)
            value = f" {code(change)}" if change else ""
            yield f"  {rank}. {_bold(remedy.name)}{value}: {prose(wording.advice(remedy))}"
        for symptom in finding.symptoms:
            said = prose(wording.sentence(symptom.message))
            yield f"  - symptom {_bold(symptom.name)}: {said}"
        yield f"  - more: {code(f'nndiag explain {finding.name}')}"
    reasons: dict[str, list[str]] = {}
    for one in diagnosis.abstained:
        reasons.setdefault(one.reason, []).append(one.name)
    for reason, names in reasons.items():
        yield f"- not judged: {prose(wording.listed(names))}: {prose(reason)}"
    for note in diagnosis.notes:
        if note != wording.undecided_note(diagnosis):
            yield f"- note: {prose(note)}"


def _errors(errors: Sequence[NndiagError]) -> Iterator[str]:
    if errors:
        lines = [f"- {code(error.where)}: {prose(error.what)}" for error in errors[:RUNS_SHOWN]]
        if len(errors) > RUNS_SHOWN:
            lines.append(f"- and {len(errors) - RUNS_SHOWN} more")
        yield "\n".join(["### Could not be read", "", *lines])
