"""JUnit: a rule is a test case. test_schemas.py has the form."""

from __future__ import annotations

import xml.etree.ElementTree as ET

from hypothesis import given

from nndiag.errors import UnreadableLog
from nndiag.gate import Gate
from nndiag.records import Abstention, Diagnosis, Verdict
from nndiag.reports import junit
from nndiag.reports.rules import Rule
from nndiag.settings import Settings
from tests.reports.museum import DEAD, EXPLODED, MUSEUM, SPIKE, run
from tests.reports.test_hostile_text import TEXTS, diagnosis

RULES = tuple(
    Rule(name, name, name) for name in ("loss-spike", "dead-relu", "overfitting", "loss-plateau")
)
SICK = Diagnosis(
    run(),
    Verdict.CRITICAL,
    (SPIKE, DEAD.with_(known=True)),
    (Abstention("overfitting", "no validation loss"),),
    ("a note",),
)


def suites(*diagnoses: Diagnosis, **options: object) -> ET.Element:
    return ET.fromstring(junit.text(diagnoses, rules=RULES, **options))  # type: ignore[arg-type]


def outcomes(suite: ET.Element) -> dict[str, str]:
    return {
        case.get("name", ""): next((child.tag for child in case), "passed")
        for case in suite.iter("testcase")
    }


def test_a_rule_is_a_test_case_that_passed_failed_or_was_skipped() -> None:
    root = suites(SICK)

    assert outcomes(root) == {
        "loss-spike": "failure",
        "dead-relu": "system-out",  # known: told, but no failure
        "overfitting": "skipped",
        "loss-plateau": "passed",
        EXPLODED.name: "system-out",
    }
    failure = root.find(".//failure")
    assert failure is not None and failure.get("type") == "critical"
    assert "clip_grad_norm_.max_norm 10 -> 0.8" in (failure.text or "")
    skipped = root.find(".//skipped")
    assert skipped is not None and skipped.get("message") == "no validation loss"


def test_the_gate_decides_what_is_a_failure() -> None:
    lenient = Gate(Settings(fail_on=("dead-relu",)))

    assert "failure" not in outcomes(suites(SICK, gate=lenient)).values()


def test_the_counts_are_those_of_the_cases() -> None:
    error = UnreadableLog(where="x.csv", what="no column holds a loss", do="name it")
    root = ET.fromstring(junit.text([SICK, *MUSEUM["a_healthy_run"]], [error], rules=RULES))

    assert [root.get(key) for key in ("tests", "failures", "errors")] == ["10", "1", "1"]
    assert [suite.get("name") for suite in root] == ["runs/resnet", "runs/resnet", "x.csv"]
    for suite in root:
        assert int(suite.get("tests", "")) == len(suite.findall("testcase"))
        assert int(suite.get("skipped", "")) == len(suite.findall("testcase/skipped"))


def test_in_doubt_a_strict_gate_has_a_case_that_fails() -> None:
    [short] = MUSEUM["too_short_to_judge"]

    assert "verdict" not in outcomes(suites(short))
    strict = outcomes(suites(short, gate=Gate(Settings(), strict=True)))
    assert strict["verdict"] == "failure"


@given(TEXTS)
def test_any_text_gives_xml_that_can_be_read(text: str) -> None:
    error = UnreadableLog(where=text, what=text, do=text)
    root = ET.fromstring(junit.text([diagnosis(text)], [error], rules=RULES))

    assert len(root) == 2
    assert len(root[0].findall("testcase")) <= len(RULES) + 1
