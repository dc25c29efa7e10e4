"""What README.md shows is what the program prints. `--refresh-golden` writes the blocks anew."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from nndiag.cli import planned

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
BLOCK = re.compile(
    r"(?<=^```console\n)\$ nndiag (?P<command>[^\n]*)\n(?P<output>.*?)(?=^```$)", re.M | re.S
)


def blocks() -> list[re.Match[str]]:
    return list(BLOCK.finditer(README.read_text(encoding="utf-8")))


@pytest.mark.parametrize("block", blocks(), ids=lambda block: block["command"])
def test_the_readme_shows_what_the_program_prints(
    block: re.Match[str], nndiag: Callable[..., object], request: pytest.FixtureRequest
) -> None:
    done = nndiag(*block["command"].split(), cwd=ROOT)

    assert done.returncode == 0, done.stderr
    if request.config.getoption("--refresh-golden"):
        text = README.read_text(encoding="utf-8")
        shown = f"$ nndiag {block['command']}\n"
        README.write_text(text.replace(block[0], shown + done.stdout), encoding="utf-8")
    else:
        assert block["output"] == done.stdout


def test_the_first_screen_has_a_command_and_its_output() -> None:
    first_screen = "\n".join(README.read_text(encoding="utf-8").splitlines()[:40])

    assert "$ nndiag analyze" in first_screen and len(blocks()) >= 2


def test_what_is_not_built_is_said() -> None:
    text = README.read_text(encoding="utf-8")
    promised = text[text.index("Not built yet") :].lower()

    assert all(f"`{command}`" in promised for command in planned.COMMANDS)
    assert all(name in promised for name in planned.FORMATS)
