"""The report as JUnit XML, as Jenkins and GitLab read it: a run is a suite, a rule a test case.

A finding that fails the gate is a failure. One that does not (a remark, a known one, a symptom) is
a passed case that tells of it in its output. A rule that could not judge is skipped, with the
reason. A path that could not be read is a suite of one error.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence

from nndiag.errors import NndiagError
from nndiag.gate import Gate
from nndiag.records import Diagnosis, Finding
from nndiag.reports import wording
from nndiag.reports.rules import Rule
from nndiag.reports.wording import clean

_NOT_XML = re.compile("[^\t\n\r -\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
COUNTS = ("tests", "failures", "errors")


def text(
    diagnoses: Sequence[Diagnosis],
    errors: Sequence[NndiagError] = (),
    *,
    rules: Sequence[Rule] = (),
    gate: Gate | None = None,
) -> str:
    """The document, ending in a newline; without a gate, that of the default settings."""
    judge = gate if gate is not None else Gate()
    root = ET.Element("testsuites", name="nndiag")
    for diagnosis in diagnoses:
        root.append(_suite(diagnosis, [rule.name for rule in rules], judge))
    for error in errors:
        root.append(_unread(error))
    for key in COUNTS:
        root.set(key, str(sum(int(suite.get(key, "0")) for suite in root)))
    ET.indent(root)
    body = ET.tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="UTF-8"?>\n{body}\n'


def _suite(diagnosis: Diagnosis, rules: Sequence[str], gate: Gate) -> ET.Element:
    cases = list(_cases(diagnosis, rules, gate))
    suite = _counted(diagnosis.run.path, cases)
    properties = ET.Element("properties")
    for name, value in (
        ("verdict", str(diagnosis.verdict)),
        ("format", diagnosis.run.format),
        ("steps", wording.steps_read(diagnosis.run)),
        ("loss", wording.loss_read(diagnosis.run)),
    ):
        ET.SubElement(properties, "property", name=name, value=_xml(value))
    suite[:] = [properties, *cases]
    if notes := diagnosis.notes:
        ET.SubElement(suite, "system-out").text = "\n".join(_xml(note) for note in notes)
    return suite


def _cases(diagnosis: Diagnosis, rules: Sequence[str], gate: Gate) -> Iterator[ET.Element]:
    path = diagnosis.run.path
    found: dict[str, list[Finding]] = {}
    causes: dict[str, list[str]] = {}
    for finding in diagnosis.findings:
        found.setdefault(finding.name, []).append(finding)
        for symptom in finding.symptoms:
            causes.setdefault(symptom.name, []).append(finding.name)
    reasons: dict[str, list[str]] = {}
    for one in diagnosis.abstained:
        reasons.setdefault(one.name, []).append(one.reason)
    for name in dict.fromkeys([*rules, *found, *causes, *reasons]):
        case = _case(path, name)
        failing = [finding for finding in found.get(name, ()) if gate.fails(finding)]
        told = "\n\n".join(_told(finding) for finding in found.get(name, ()))
        if failing:
            message = "; ".join(clean(finding.message) for finding in failing)
            _outcome(case, "failure", str(max(f.severity for f in failing)), message, told)
        elif told:
            ET.SubElement(case, "system-out").text = told
        elif name in causes:
            says = f"seen, as a symptom of {wording.listed(dict.fromkeys(causes[name]))}"
            ET.SubElement(case, "system-out").text = _xml(says)
        elif name in reasons:
            ET.SubElement(case, "skipped", message=_xml("; ".join(reasons[name])))
        yield case
    if doubt := gate.doubt(diagnosis):
        case = _case(path, "verdict")
        said = wording.verdict_line(diagnosis) if doubt == "undecided" else doubt
        _outcome(case, "failure", "undecided", said, said)
        yield case


def _told(finding: Finding) -> str:
    where = ", ".join(filter(None, (wording.place(finding), wording.step_range(finding))))
    known = ", known" if finding.known else ""
    lines = [f"{clean(finding.name)} ({finding.severity}{known}) {where}".rstrip()]
    lines.append(wording.sentence(finding.message))
    lines += [f"{wording.evidence_item(item)}" for item in finding.evidence]
    for rank, remedy in enumerate(finding.remedies, start=1):
        change = wording.change(remedy)
        setting = f" ({change})" if change else ""
        lines.append(f"{rank}. {clean(remedy.name)}{setting}: {wording.advice(remedy)}")
    lines += [f"symptom {clean(s.name)}: {wording.sentence(s.message)}" for s in finding.symptoms]
    lines.append(f"more: nndiag explain {clean(finding.name)}")
    return "\n".join(_xml(line) for line in lines)


def _unread(error: NndiagError) -> ET.Element:
    case = _case(error.where, "read")
    _outcome(case, "error", type(error).__name__, error.what, f"{error.what}\n{error.do}")
    suite = _counted(error.where, [case])
    suite.append(case)
    return suite


def _counted(name: str, cases: Sequence[ET.Element]) -> ET.Element:
    def having(tag: str) -> str:
        return str(sum(case.find(tag) is not None for case in cases))

    return ET.Element(
        "testsuite",
        name=_xml(name),
        tests=str(len(cases)),
        failures=having("failure"),
        errors=having("error"),
        skipped=having("skipped"),
    )


def _case(path: str, name: str) -> ET.Element:
    return ET.Element("testcase", classname=_xml(path), name=_xml(name))


def _outcome(case: ET.Element, tag: str, kind: str, message: str, body: str) -> None:
    element = ET.SubElement(case, tag, type=_xml(kind), message=_xml(message))
    element.text = "\n".join(_xml(line) for line in body.splitlines())


def _xml(given: str) -> str:
    """Text that XML can hold, on one line."""
    return _NOT_XML.sub("\ufffd", clean(given))
