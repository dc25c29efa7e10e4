"""SARIF and JUnit reports validate: see schemas/README.md for which schemas these are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import jsonschema
import pytest
import xmlschema

from nndiag.errors import UnreadableLog
from nndiag.gate import Gate
from nndiag.records import Diagnosis
from nndiag.reports import junit, sarif
from nndiag.reports.rules import Rule
from nndiag.settings import Settings
from tests.reports.museum import HOSTILE, MUSEUM

SCHEMAS = Path(__file__).parent / "schemas"
ORIGINALS = Path(os.environ.get("NNDIAG_SCHEMAS", ""))
ERROR = UnreadableLog(where=f"logs/{HOSTILE}", what=HOSTILE, do=HOSTILE)
RULES = (Rule("loss-spike", "A spike.", "A spike.\n\nLonger."), Rule("dead-relu", "Dead.", "Dead."))
KNOWN = {
    f"{name}, known": tuple(
        Diagnosis(
            one.run,
            one.verdict,
            tuple(finding.with_(known=True) for finding in one.findings),
            one.abstained,
            one.notes,
        )
        for one in diagnoses
    )
    for name, diagnoses in MUSEUM.items()
}
ALL = {**MUSEUM, **KNOWN, "nothing": ()}
original = pytest.mark.skipif(
    "NNDIAG_SCHEMAS" not in os.environ, reason="NNDIAG_SCHEMAS names no folder with the originals"
)


def sarif_of(name: str) -> object:
    text = sarif.text(
        ALL[name],
        [ERROR],
        rules=RULES,
        gate=Gate(Settings(), strict=True),
        has_baseline=name in KNOWN,
        directory=Path("/home/somebody"),
    )
    return json.loads(text)


def junit_of(name: str) -> str:
    return junit.text(ALL[name], [ERROR], rules=RULES, gate=Gate(Settings(), strict=True))


def sarif_schema(path: Path) -> Callable[[object], None]:
    schema = json.loads(path.read_text(encoding="utf-8"))
    kind = jsonschema.validators.validator_for(schema)
    kind.check_schema(schema)
    return kind(schema).validate  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ALL)
def test_sarif_is_what_we_mean_to_write(name: str) -> None:
    sarif_schema(SCHEMAS / "sarif-subset.schema.json")(sarif_of(name))


@pytest.mark.parametrize("name", ALL)
def test_junit_is_what_we_mean_to_write(name: str) -> None:
    xmlschema.XMLSchema(str(SCHEMAS / "junit-subset.xsd")).validate(junit_of(name))


@original
@pytest.mark.parametrize("name", ALL)
def test_sarif_is_valid_by_the_schema_of_oasis(name: str) -> None:
    sarif_schema(ORIGINALS / "sarif-schema-2.1.0.json")(sarif_of(name))


@original
@pytest.mark.parametrize("name", ALL)
def test_junit_is_valid_by_the_schema_of_jenkins(name: str) -> None:
    xmlschema.XMLSchema(str(ORIGINALS / "junit-10.xsd")).validate(junit_of(name))


def test_the_check_can_fail() -> None:
    document = json.loads(json.dumps(sarif_of("several_runs")))
    document["runs"][0]["results"][0]["level"] = "critical"
    with pytest.raises(jsonschema.ValidationError):
        sarif_schema(SCHEMAS / "sarif-subset.schema.json")(document)

    broken = junit_of("several_runs").replace("testcase", "test")
    with pytest.raises(xmlschema.XMLSchemaValidationError):
        xmlschema.XMLSchema(str(SCHEMAS / "junit-subset.xsd")).validate(broken)
