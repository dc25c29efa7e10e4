"""docs/faults.md promises no more than is tested."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"\| (.+) \| (.+) \| `(tests/[\w/]+\.py)::(\w+)(?:\[(.+)\])?` \|")


@cache
def names_in(path: str) -> tuple[set[str], set[str]]:
    """The tests of a file, and all its texts: the ids of parameters are among them."""
    nodes = list(ast.walk(ast.parse((ROOT / path).read_text(encoding="utf-8"))))
    tests = {node.name for node in nodes if isinstance(node, ast.FunctionDef)}
    texts = {node.value for node in nodes if isinstance(node, ast.Constant)}
    return tests, {text for text in texts if isinstance(text, str)}


def test_every_line_names_a_test_that_exists() -> None:
    lines = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8").splitlines()
    promised = [line for line in lines if "`tests/" in line]
    for line in promised:
        row = ROW.fullmatch(line)
        assert row is not None, line
        tests, texts = names_in(row[3])
        assert row[4] in tests, line
        assert row[5] is None or row[5] in texts, line

    assert len(promised) >= 40
