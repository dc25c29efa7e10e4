"""Each diagnosis of the museum, in each report, as it was last read and found good."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from nndiag.errors import UnreadableLog
from nndiag.reports import json_report, page, plain, terminal
from tests.reports.museum import MUSEUM

GOLDEN = Path(__file__).parent / "golden"
Compare = Callable[[Path, str], None]


@pytest.mark.parametrize("name", MUSEUM)
def test_plain_text(name: str, golden: Compare) -> None:
    golden(GOLDEN / f"{name}.txt", plain.text(page.report(MUSEUM[name])))


@pytest.mark.parametrize("width", [80, 120])
def test_every_line_fits_the_screen(width: int) -> None:
    # Hostile text has words without a space that are longer than a screen; those may stick out.
    tame = [diagnoses for name, diagnoses in MUSEUM.items() if name != "hostile_text"]
    lines = [line for diagnoses in tame for line in page.report(diagnoses, width=width)]

    assert max(sum(len(span.text) for span in line) for line in lines) <= width


def test_ascii_terminals_get_ascii(golden: Compare) -> None:
    text = plain.text(page.report(MUSEUM["a_spike_with_its_symptom"], width=80, ascii_only=True))

    golden(GOLDEN / "a_spike_in_ascii.txt", text)
    assert text.isascii()


def test_colours(golden: Compare, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLORTERM", "")
    stream = io.StringIO()

    terminal.show(page.report(MUSEUM["a_spike_with_its_symptom"], width=80), stream)

    golden(GOLDEN / "a_spike_in_colour.txt", stream.getvalue().replace("\x1b", "<ESC>"))


@pytest.mark.parametrize("name", MUSEUM)
def test_json(name: str, golden: Compare) -> None:
    error = UnreadableLog(where="x.csv", what="no column holds a loss", do="name it")

    golden(GOLDEN / f"{name}.json", json_report.text(MUSEUM[name], [error]))


@pytest.mark.parametrize("name", MUSEUM)
def test_json_has_the_keys_of_the_contract(name: str) -> None:
    """Independent of the golden texts, which somebody might refresh without reading."""
    document = json.loads(json_report.text(MUSEUM[name]), parse_constant=_refuse)

    assert list(document) == ["schema", "nndiag", "runs", "errors", "skipped"]
    assert document["schema"] == "nndiag.report/1"
    for run in document["runs"]:
        assert set(run) >= {
            *("path", "format", "verdict", "steps", "series", "layers"),
            *("findings", "abstained", "notes"),
        }
        assert set(run["steps"]) == {"first", "last", "recorded"}
        for finding in run["findings"]:
            assert set(finding) >= {
                *("name", "severity", "confidence", "series", "layers", "step_start", "step_end"),
                *("message", "evidence", "symptoms", "remedies"),
            }
            for remedy in finding["remedies"]:
                assert set(remedy) >= {"name", "setting", "from", "to", "text", "why"}


def _refuse(constant: str) -> None:
    raise AssertionError(f"{constant} is not JSON")
