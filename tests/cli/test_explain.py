from __future__ import annotations

import subprocess
from collections.abc import Callable

import pytest

from nndiag.cli import planned
from nndiag.detectors import catalogue
from nndiag.detectors.base import HEADINGS
from nndiag.readers.catalogue import READERS

Run = Callable[..., "subprocess.CompletedProcess[str]"]


def test_a_page_is_the_docstring_with_the_thresholds(nndiag: Run) -> None:
    page = nndiag("explain", "dead-relu").stdout

    assert page.startswith("dead-relu\n\nMost units of a ReLU layer output zero")
    assert all(f"\n{heading}\n" in page for heading in (*HEADINGS, "Settings"))
    assert "[tool.nndiag.thresholds.dead-relu]\n    limit = 0.5\n" in page


def test_a_name_may_be_spelt_as_python_does(nndiag: Run) -> None:
    assert nndiag("explain", "Dead_ReLU").stdout == nndiag("explain", "dead-relu").stdout


def test_a_typo_gets_the_closest_name(nndiag: Run) -> None:
    done = nndiag("explain", "ded-relu")

    assert done.returncode == 2
    assert "dead-relu" in done.stderr and "Traceback" not in done.stderr


def test_a_planned_finding_says_so(nndiag: Run) -> None:
    done = nndiag("explain", "gradient-noise-high")

    assert done.returncode == 2
    assert "planned, but not built yet" in done.stderr


def test_rules_lists_every_finding_once_with_a_sentence(nndiag: Run) -> None:
    lines = nndiag("rules").stdout.splitlines()
    named = [line.split()[0] for line in lines if not line.startswith(" ")]

    assert tuple(named) == catalogue.names()
    assert all(len(line) <= 100 for line in lines)


@pytest.mark.parametrize("name", planned.FINDINGS)
def test_what_is_built_is_not_called_planned(name: str) -> None:
    assert name not in catalogue.names()


def test_formats_lists_every_reader_once_with_a_sentence(nndiag: Run) -> None:
    lines = nndiag("formats").stdout.splitlines()
    names = [line.split()[0] for line in lines if not line.startswith(" ")]

    assert names == [reader.name for reader in READERS]
    assert all(len(line.split()) > 4 for line in lines if not line.startswith(" "))


def test_a_format_is_explained_by_its_page(nndiag: Run) -> None:
    told = nndiag("explain", "mlflow-db").stdout

    assert told.startswith("mlflow-db\n")
    assert "is_nan" in told
