"""SARIF: levels, places, fingerprints, rules. test_schemas.py has the form."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from nndiag.errors import UnreadableLog
from nndiag.gate import Gate
from nndiag.records import Diagnosis, Verdict
from nndiag.reports import sarif
from nndiag.reports.rules import Rule
from nndiag.settings import Settings
from tests.reports.museum import DEAD, SPIKE, run

HERE = Path("/home/somebody/project")


def sarif_run(*diagnoses: Diagnosis, **options: Any) -> dict[str, Any]:
    document = json.loads(sarif.text(diagnoses, directory=HERE, **options))
    return document["runs"][0]  # type: ignore[no-any-return]


def sick(path: str = "runs/b", **changes: Any) -> Diagnosis:
    found = tuple(finding.with_(**changes) for finding in (SPIKE, DEAD))
    return Diagnosis(run(path=path), Verdict.CRITICAL, found)


def test_a_finding_is_a_result_with_level_evidence_and_layers() -> None:
    spike, dead = sarif_run(sick())["results"]

    assert (spike["ruleId"], spike["level"], spike["rank"]) == ("loss-spike", "error", 97.0)
    assert spike["properties"]["evidence"]["peak"] == 7.9
    assert spike["properties"]["limits"] == {"score": 6.0}
    assert spike["message"]["text"].startswith("The loss rose from 0.42 to 7.9")
    assert dead["level"] == "warning"
    names = [one["fullyQualifiedName"] for one in dead["locations"][0]["logicalLocations"]]
    assert names[:2] == ["net.3.relu", "net.6.relu"]


def test_every_result_points_to_its_rule() -> None:
    rules = (Rule("dead-relu", "Dead units.", "The page."),)
    one = sarif_run(sick(), rules=rules)
    listed = one["tool"]["driver"]["rules"]

    assert [rule["id"] for rule in listed] == ["dead-relu", "loss-spike"]
    assert listed[0]["help"]["text"] == "The page."
    assert all(listed[result["ruleIndex"]]["id"] == result["ruleId"] for result in one["results"])


def test_fingerprints_do_not_depend_on_steps_or_numbers() -> None:
    first = sarif_run(sick())["results"][0]["partialFingerprints"]
    later = sarif_run(sick("runs/c", step_start=3, step_end=None, confidence=0.1))["results"][0]

    assert first == later["partialFingerprints"]


@pytest.mark.parametrize(
    ("path", "location"),
    [
        ("runs/a b%.csv", {"uri": "runs/a%20b%25.csv", "uriBaseId": "%SRCROOT%"}),
        (f"{HERE}/runs/x", {"uri": "runs/x", "uriBaseId": "%SRCROOT%"}),
        ("../elsewhere/x.csv", {"uri": "file:///home/somebody/elsewhere/x.csv"}),
        ("mlflow.db#12", {"uri": "mlflow.db#12", "uriBaseId": "%SRCROOT%"}),
        ("-", {"uri": "stdin", "description": {"text": "standard input"}}),
    ],
)
def test_a_path_is_relative_to_the_working_directory(path: str, location: dict[str, Any]) -> None:
    [spike, _] = sarif_run(sick(path))["results"]

    assert spike["locations"][0]["physicalLocation"]["artifactLocation"] == location


def test_with_a_baseline_results_are_new_or_unchanged() -> None:
    states = [
        one.get("baselineState")
        for known in (True, False)
        for one in sarif_run(sick(known=known), has_baseline=True)["results"]
    ]

    assert states == ["unchanged", "unchanged", "new", "new"]
    assert "baselineState" not in sarif_run(sick())["results"][0]


def test_what_could_not_be_read_is_a_notification() -> None:
    error = UnreadableLog(where="x.csv", what="no column holds a loss", do="name it")
    document = json.loads(sarif.text([], [error], gate=Gate(Settings()), directory=HERE))
    [invocation] = document["runs"][0]["invocations"]

    assert (invocation["executionSuccessful"], invocation["exitCode"]) == (False, 2)
    [said] = invocation["toolExecutionNotifications"]
    assert said["message"]["text"] == "no column holds a loss. name it"
