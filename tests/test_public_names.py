from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import nndiag

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize("name", nndiag.__all__)
def test_every_public_name_is_there(name: str) -> None:
    assert getattr(nndiag, name) is not None
    assert name in dir(nndiag)


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'analyse'"):
        _ = nndiag.analyse  # type: ignore[attr-defined]


def test_python_m_nndiag_and_the_installed_command_are_the_same_program() -> None:
    module = subprocess.run(
        [sys.executable, "-m", "nndiag", "--version"], capture_output=True, text=True, cwd=ROOT
    )

    assert module.stdout == f"nndiag {nndiag.__version__}\n"
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'nndiag = "nndiag.cli.app:main"' in project


def test_what_is_injected_is_part_of_the_package() -> None:
    """The wheel takes everything under nndiag/, so it must be there and be named .py."""
    assert list((ROOT / "nndiag" / "watcher" / "bootstrap").glob("*.py"))
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert 'packages = ["nndiag"]' in project
