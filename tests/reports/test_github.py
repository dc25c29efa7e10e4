"""Annotations of GitHub Actions: one line each, and nothing in them that the runner obeys."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from nndiag.errors import UnreadableLog
from nndiag.gate import Gate
from nndiag.records import Diagnosis
from nndiag.reports import github
from nndiag.reports.lines import Line, Span
from nndiag.settings import Settings
from tests.reports.museum import DEAD, MUSEUM, SPIKE, run
from tests.reports.test_hostile_text import TEXTS, diagnosis

COMMAND = re.compile(r"::(error|warning|notice) title=([^:,\r\n]*)::([^\r\n]*)")
NASTY = st.one_of(TEXTS, st.sampled_from(["::set-env name=x::y", "100 %25, a:b\r\n::error::x"]))


def commands(text: str) -> list[tuple[str, str, str]]:
    found = [COMMAND.fullmatch(line) for line in text.splitlines()]
    assert all(found), text
    return [match.groups() for match in found if match]  # type: ignore[misc]


def test_each_finding_is_an_annotation_of_its_severity() -> None:
    text = github.text(MUSEUM["a_spike_with_its_symptom"])

    assert [(level, title) for level, title, _ in commands(text)] == [
        ("error", "loss-spike in runs/resnet"),
        ("warning", "dead-relu in runs/resnet"),
    ]
    assert "%0A-> lower-clip (clip_grad_norm_.max_norm 10 -> 0.8)" in text.splitlines()[0]


def test_what_fails_comes_first_and_what_is_known_is_a_notice() -> None:
    one = Diagnosis(run(), MUSEUM["several_runs"][1].verdict, (SPIKE.with_(known=True), DEAD))
    text = github.text([one], gate=Gate(Settings()))

    assert [(level, title) for level, title, _ in commands(text)] == [
        ("warning", "dead-relu in runs/resnet"),
        ("notice", "known%3A loss-spike in runs/resnet"),
    ]


def test_what_cannot_be_read_or_judged_is_said() -> None:
    error = UnreadableLog(where="a,b:c.csv", what="no column holds a loss", do="name it")
    short = MUSEUM["too_short_to_judge"]
    strict = Gate(Settings(), strict=True)

    assert github.text([], [error]) == (
        "::error title=nndiag%3A a%2Cb%3Ac.csv::no column holds a loss%0Aname it\n"
    )
    assert commands(github.text(short))[0][0] == "notice"
    assert commands(github.text(short, gate=strict))[0][0] == "error"
    assert github.text(MUSEUM["a_healthy_run"]) == ""


@given(NASTY)
def test_a_line_stays_one_command(nasty: str) -> None:
    text = github.text([diagnosis(nasty)], [UnreadableLog(where=nasty, what=nasty, do=nasty)])

    assert len(commands(text)) == 2
    assert re.sub("%(25|0A|0D|3A|2C)", "", text).count("%") == 0


def test_no_line_of_a_report_is_a_command() -> None:
    lines: list[Line] = [
        (Span("  "), Span("::error::x")),
        (Span("##[group]x"),),
        (Span("a ::error::x"),),
    ]

    assert ["".join(span.text for span in line) for line in github.harmless(lines)] == [
        "  \\x3a:error::x",
        "\\x23#[group]x",
        "a ::error::x",
    ]
