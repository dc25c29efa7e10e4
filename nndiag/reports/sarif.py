"""The report as SARIF 2.1.0 (OASIS): for code scanning, and whatever else collects results.

One SARIF run for one call; each finding a result, its rule the page of `nndiag explain`. A result
is located at the log it was seen in, and at the layers it names.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import quote

from nndiag import __version__
from nndiag.errors import NndiagError
from nndiag.fingerprint import fingerprint
from nndiag.gate import Gate
from nndiag.records import Diagnosis, Finding, Remedy, Severity, Verdict
from nndiag.reports import json_report, wording
from nndiag.reports.rules import Rule
from nndiag.reports.wording import clean

SCHEMA = (
    "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
)
LEVELS = {Severity.INFO: "note", Severity.WARNING: "warning", Severity.CRITICAL: "error"}
FINGERPRINT = "nndiag/v1"
ROOT = "%SRCROOT%"  # the working directory, by the name that GitHub gives it

Object = dict[str, Any]


def text(
    diagnoses: Sequence[Diagnosis],
    errors: Sequence[NndiagError] = (),
    *,
    rules: Sequence[Rule] = (),
    gate: Gate | None = None,
    has_baseline: bool = False,
    directory: Path | None = None,
) -> str:
    """The document, ending in a newline; paths are relative to `directory`, the working one."""
    here = directory if directory is not None else Path.cwd()
    results = [
        _result(diagnosis, finding, here, has_baseline)
        for diagnosis in diagnoses
        for finding in diagnosis.findings
    ]
    known = list(rules)
    names = {rule.name for rule in known}
    for name in dict.fromkeys(result["ruleId"] for result in results):
        if name not in names:
            known.append(Rule(name, name, ""))
    places = {rule.name: index for index, rule in enumerate(known)}
    for result in results:
        result["ruleIndex"] = places[result["ruleId"]]
    run: Object = {
        "tool": {
            "driver": {
                "name": "nndiag",
                "version": __version__,
                "semanticVersion": __version__,
                "rules": [_rule(rule) for rule in known],
            }
        },
        "invocations": [_invocation(diagnoses, errors, here, gate)],
        "columnKind": "unicodeCodePoints",
        "results": results,
    }
    document = {"$schema": SCHEMA, "version": "2.1.0", "runs": [run]}
    return json.dumps(document, indent=2, allow_nan=False).replace("\x7f", "\\u007f") + "\n"


def _rule(rule: Rule) -> Object:
    headline = clean(rule.headline)
    page = rule.page or headline
    return {
        "id": clean(rule.name),
        "shortDescription": {"text": headline},
        "fullDescription": {"text": headline},
        "help": {"text": page, "markdown": f"```text\n{page}\n```"},
        "defaultConfiguration": {"level": "warning"},
        "properties": {"tags": ["training"]},
    }


def _invocation(
    diagnoses: Sequence[Diagnosis],
    errors: Sequence[NndiagError],
    here: Path,
    gate: Gate | None,
) -> Object:
    notifications = [
        {
            "level": "error",
            "message": {"text": ". ".join(clean(p) for p in (error.what, error.do) if p)},
            "locations": [_location(error.where, here)],
        }
        for error in errors
    ]
    notifications += [
        {
            "level": "note",
            "message": {"text": clean(f"undecided: {wording.verdict_line(diagnosis)}")},
            "locations": [_location(diagnosis.run.path, here)],
        }
        for diagnosis in diagnoses
        if diagnosis.verdict is Verdict.UNDECIDED
    ]
    invocation: Object = {"executionSuccessful": not errors}
    if gate is not None:
        invocation["exitCode"] = gate.status(diagnoses, len(errors))
    if notifications:
        invocation["toolExecutionNotifications"] = notifications
    return invocation


def _result(diagnosis: Diagnosis, finding: Finding, here: Path, has_baseline: bool) -> Object:
    location = _location(diagnosis.run.path, here)
    if finding.layers:
        location["logicalLocations"] = [_layer(name) for name in dict.fromkeys(finding.layers)]
    message = [wording.sentence(finding.message)]
    message += [f"-> {wording.advice(remedy)}" for remedy in finding.remedies[:1]]
    result: Object = {
        "ruleId": clean(finding.name),
        "level": LEVELS[finding.severity],
        "message": {"text": "\n".join(message)},
        "locations": [location],
        "partialFingerprints": {FINGERPRINT: fingerprint(finding, diagnosis.run).digest},
        "rank": round(100.0 * min(1.0, max(0.0, finding.confidence)), 1),
        "properties": dict(_properties(finding)),
    }
    if has_baseline:
        result["baselineState"] = "unchanged" if finding.known else "new"
    return result


def _properties(finding: Finding) -> Iterator[tuple[str, object]]:
    """The facts of a finding, under the names of the JSON report."""
    yield "confidence", json_report.value(finding.confidence)
    for key in ("step_start", "step_end"):
        if (step := getattr(finding, key)) is not None:
            yield key, int(step)
    for key in ("series", "owner"):
        if given := getattr(finding, key):
            yield key, clean(given)
    yield "evidence", {clean(e.name): json_report.value(e.measured) for e in finding.evidence}
    limits = {clean(e.name): e.limit for e in finding.evidence if e.limit is not None}
    if limits:
        yield "limits", {name: json_report.value(limit) for name, limit in limits.items()}
    if finding.remedies:
        yield "remedies", [_remedy(remedy) for remedy in finding.remedies]
    if finding.symptoms:
        yield "symptoms", [clean(symptom.name) for symptom in finding.symptoms]


def _remedy(remedy: Remedy) -> str:
    change = wording.change(remedy)
    return f"{clean(remedy.name)}{f' ({change})' if change else ''}: {wording.advice(remedy)}"


def _layer(name: str) -> Object:
    return {"fullyQualifiedName": clean(name) or "(the model)", "kind": "module"}


def _location(path: str, here: Path) -> Object:
    return {"physicalLocation": {"artifactLocation": _artifact(path, here)}}


def _artifact(path: str, here: Path) -> Object:
    """A path as a URI: relative to the working directory where it lies in it."""
    if path == "-":
        return {"uri": "stdin", "description": {"text": "standard input"}}
    store, mark, run = path.rpartition("#")  # a run of a store: mlflow.db#12
    file, fragment = (store, f"#{_quoted(run)}") if mark and store else (path, "")
    absolute = os.path.normpath(os.path.join(here, file))
    relative = os.path.relpath(absolute, here)
    if relative.split(os.sep)[0] == os.pardir:
        return {"uri": f"file://{_quoted(absolute)}{fragment}"}
    return {"uri": f"{_quoted(Path(relative).as_posix())}{fragment}", "uriBaseId": ROOT}


def _quoted(path: str) -> str:
    return quote(path.encode("utf-8", "surrogatepass"), safe="/")
