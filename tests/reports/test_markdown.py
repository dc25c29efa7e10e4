"""The Markdown page: what it says, and that text from a log stays text in it."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nndiag.errors import UnreadableLog
from nndiag.gate import Gate
from nndiag.reports import markdown
from nndiag.settings import Settings
from tests.reports.museum import MUSEUM
from tests.reports.test_hostile_text import TEXTS, diagnosis

GOLDEN = Path(__file__).parent / "golden"
GATE = Gate(Settings())
NASTY = st.one_of(
    TEXTS,
    st.sampled_from(
        [
            "<script>alert(1)</script>",
            "</details><img src=x onerror=alert(1)>",
            "| a | b |",
            "```\n# heading",
            "@octocat and #12 and GH-3 and https://evil.example/x and www.evil.example",
            "[x](javascript:alert(1))",
            "![x](http://evil.example/x.png)",
            "--> <!-- $x$ ~~gone~~ **bold** _it_",
            "1. first",
            "- item",
            "`` ` ``",
        ]
    ),
).filter(str.strip)


@pytest.mark.parametrize("name", MUSEUM)
def test_the_page(name: str, golden: Callable[[Path, str], None]) -> None:
    error = UnreadableLog(where="x.csv", what="no column holds a loss", do="name it")

    golden(GOLDEN / f"{name}.md", markdown.text(MUSEUM[name], [error], gate=GATE))


def test_the_first_lines_say_what_failed_and_why() -> None:
    lines = markdown.text(MUSEUM["several_runs"], gate=GATE).splitlines()

    assert lines[:6] == [
        "## nndiag: failed",
        "",
        "3 runs: 1 critical, 1 warning, 1 healthy",
        "",
        "- `runs/b`: **loss-spike**",
        "- `runs/c`: **dead-relu**",
    ]


def test_what_is_known_is_called_known() -> None:
    one = MUSEUM["several_runs"][1]
    known = tuple(finding.with_(known=True) for finding in one.findings)
    text = markdown.text([type(one)(one.run, one.verdict, known)], gate=GATE)

    assert text.startswith("## nndiag: passed")
    assert "| **loss-spike** | critical, known |" in text


def test_many_sick_runs_fit_into_a_comment() -> None:
    text = markdown.text(MUSEUM["a_spike_with_its_symptom"] * 300, gate=GATE)

    assert len(text) < 65_536
    assert "more runs; `nndiag analyze` shows them." in text


def outside_of_code(line: str) -> str:
    """A line without its code spans, the comments that keep references apart, and escapes."""
    line = re.sub(r"(?<!\\)(`+)(?!`).*?(?<!`)\1(?!`)", "", line)
    return re.sub(r"\\.", "x", line)


@given(NASTY)
def test_no_text_of_a_log_is_markup(nasty: str) -> None:
    plain = markdown.text([diagnosis("plain")], gate=GATE)
    text = markdown.text([diagnosis(nasty)], gate=GATE)
    lines = text.splitlines()

    tags = re.findall(r"<[^>]*>", "\n".join(map(outside_of_code, lines)))
    assert set(tags) <= {"<br>", "<!-- -->", *re.findall(r"<[^>]*>", plain)}
    for line in map(outside_of_code, lines):
        assert not re.search(r"[@]\w|#\d|://|\]\(|\*\*\*|\$|~~", line), line
    # the layout is the same: no line, no row and no cell more
    assert len(lines) == len(plain.splitlines())
    assert [bars(one) for one in lines] == [bars(one) for one in plain.splitlines()]
    assert [line[:3] for line in lines if line[:1] in "#|"] == [
        line[:3] for line in plain.splitlines() if line[:1] in "#|"
    ]


def bars(line: str) -> int:
    return len(re.findall(r"(?<!\\)\|", line)) if line.startswith("|") else 0


@given(NASTY)
def test_code_spans_close(nasty: str) -> None:
    span = markdown.code(nasty)
    fence = re.match("`+", span)

    assert fence is not None and span.endswith(fence[0])
    inner = span[len(fence[0]) : -len(fence[0])]
    assert fence[0] not in re.findall("`+", inner)
