"""The report for programs: one JSON document.

History of the format:
    nndiag.report/1    first
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

from nndiag import __version__
from nndiag.errors import NndiagError
from nndiag.gate import Gate
from nndiag.records import Diagnosis, Finding, Number, Remedy, Run
from nndiag.reports.wording import recorded_steps

SCHEMA = "nndiag.report/1"


def text(
    diagnoses: Sequence[Diagnosis],
    errors: Sequence[NndiagError] = (),
    skipped: Sequence[NndiagError] = (),
    unfinished: int = 0,
    gate: Gate | None = None,
    more: Sequence[Mapping[str, object]] = (),
) -> str:
    """The document, ending in a newline. The same diagnoses give the same text.

    With a `gate` it has a key more, "check": the exit status, and which runs failed for what.
    `more` holds further keys for each run.
    """
    document: dict[str, object] = {
        "schema": SCHEMA,
        "nndiag": __version__,
        "runs": [
            {**_run(diagnosis), **(more[index] if index < len(more) else {})}
            for index, diagnosis in enumerate(diagnoses)
        ],
        "errors": [_error(error) for error in errors],
        "skipped": [_error(error) for error in skipped],
    }
    if unfinished:  # runs that were found and, because of a Ctrl-C, not analysed
        document["unfinished"] = unfinished
    if gate is not None:
        document["check"] = _check(gate, diagnoses, len(errors))
    # ASCII only, and DEL escaped too: so no text from data can do anything to a terminal.
    return json.dumps(document, indent=2, allow_nan=False).replace("\x7f", "\\u007f") + "\n"


def _error(error: NndiagError) -> dict[str, str]:
    return {"path": _text(error.where), "what": _text(error.what), "do": _text(error.do)}


def _check(gate: Gate, diagnoses: Sequence[Diagnosis], errors: int) -> dict[str, object]:
    return {
        "status": gate.status(diagnoses, errors),
        "fail_on": list(gate.settings.fail_on),
        "strict": gate.strict,
        "failed": [
            {
                "path": _text(diagnosis.run.path),
                "findings": [_text(finding.name) for finding in gate.failing(diagnosis)],
                "reason": gate.doubt(diagnosis),
            }
            for diagnosis in diagnoses
            if gate.stops(diagnosis)
        ],
    }


def _run(diagnosis: Diagnosis) -> dict[str, Any]:
    run = diagnosis.run
    return {
        "path": _text(run.path),
        "format": _text(run.format),
        "verdict": str(diagnosis.verdict),
        "steps": _steps(run),
        "series": list(dict.fromkeys(_text(s.label) for s in run.series if not s.where)),
        "layers": len(run.layers),
        "findings": [finding(one) for one in diagnosis.findings],
        "abstained": [
            {"name": _text(a.name), "reason": _text(a.reason)} for a in diagnosis.abstained
        ],
        "notes": [_text(note) for note in diagnosis.notes],
        "blind": [_text(metric) for metric in run.blind],
    }


def _steps(run: Run) -> dict[str, int | None]:
    first, last, count = recorded_steps(run) or (None, None, 0)
    return {"first": first, "last": last, "recorded": count}


def finding(one: Finding) -> dict[str, Any]:
    """A finding as this report tells it: what JSON cannot hold is a text."""
    known = {"known": True} if one.known else {}  # by a baseline
    return {
        "name": _text(one.name),
        "severity": str(one.severity),
        **known,
        "confidence": value(one.confidence),
        "series": _text(one.series),
        "owner": _text(one.owner),
        "layers": [_text(layer) for layer in one.layers],
        "step_start": _step(one.step_start),
        "step_end": _step(one.step_end),
        "message": _text(one.message),
        "evidence": {_text(e.name): value(e.measured) for e in one.evidence},
        "limits": {_text(e.name): value(e.limit) for e in one.evidence if e.limit is not None},
        "symptoms": [finding(symptom) for symptom in one.symptoms],
        "remedies": [_remedy(remedy) for remedy in one.remedies],
    }


def _remedy(remedy: Remedy) -> dict[str, Any]:
    return {
        "name": _text(remedy.name),
        "setting": _text(remedy.setting),
        "from": value(remedy.old),
        "to": value(remedy.new),
        "text": _text(remedy.text),
        "why": _text(remedy.why),
    }


def _step(step: int | None) -> int | None:
    return None if step is None else int(step)


def _text(value: object) -> str:
    """A string that every JSON parser takes: halves of surrogate pairs become U+FFFD."""
    return str(value).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def value(given: Number | bool | str | None) -> Number | bool | str | None:
    """A JSON value: numpy's numbers become Python's, what JSON has no number for a string."""
    given = getattr(given, "item", lambda: given)()
    if given is None or isinstance(given, bool | int):
        return given
    if isinstance(given, str):
        return _text(given)
    if math.isfinite(given):
        return float(given)
    return "NaN" if math.isnan(given) else "Infinity" if given > 0 else "-Infinity"
