"""No text that comes from a log may reach a terminal as anything but text."""

from __future__ import annotations

import io
import json
import re
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nndiag.errors import NndiagError
from nndiag.records import Abstention, Diagnosis, Evidence, Finding, Remedy, Severity, Verdict
from nndiag.reports import json_report, page, plain, terminal
from tests.reports.museum import HOSTILE, run

COLOUR = re.compile(r"\x1b\[[0-9;]*m")
BIDI = set("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
TEXTS = st.text(
    st.one_of(
        st.characters(),  # surrogates too
        st.sampled_from("\x00\x07\x08\x1b\x7f\x85\x9b\r\n\t\u202e\u2066\u2028\ufeff[]{}<>&%\\"),
    ),
    max_size=12,
)


def diagnosis(text: str) -> Diagnosis:
    """A diagnosis that has `text` in every place where text can come from."""
    finding = Finding(
        text,
        Severity.WARNING,
        0.5,
        text,
        series=text,
        owner=text,
        layers=(text, text),
        evidence=(Evidence(text, text, 1.0),),
        remedies=(Remedy(text, text, text, text, text, text),),
    )
    return Diagnosis(
        run(path=text, format=text),
        Verdict.WARNING,
        (finding.with_(symptoms=(finding,)),),
        (Abstention(text, text),),
        (text,),
    )


def harmful(text: str) -> set[str]:
    """Characters of a finished report that are not plain text."""
    return {c for c in text if unicodedata.category(c) in ("Cc", "Cs") and c != "\n"} | BIDI & set(
        text
    )


@given(TEXTS)
def test_plain_reports_hold_nothing_but_text(text: str) -> None:
    errors = page.error_lines([NndiagError(where=text, what=text, do=text)])
    written = plain.text([*page.report([diagnosis(text)]), *errors])

    assert harmful(written) == set()
    written.encode("utf-8")


@given(TEXTS)
def test_coloured_reports_hold_nothing_but_text_and_colour(text: str) -> None:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("FORCE_COLOR", "1")
        environment.delenv("NO_COLOR", raising=False)
        stream = io.StringIO()
        terminal.show(page.report([diagnosis(text)]), stream)

    assert harmful(COLOUR.sub("", stream.getvalue())) == set()


@given(TEXTS)
def test_json_reports_are_printable_ascii_and_give_the_text_back(text: str) -> None:
    written = json_report.text([diagnosis(text)], [NndiagError(where=text, what=text)])

    assert harmful(written) == set() and written.isascii()
    back = json.loads(written)["runs"][0]["findings"][0]["message"]
    assert back == text or any(0xD800 <= ord(c) < 0xE000 for c in text)
    back.encode("utf-8")


def test_markup_is_shown_not_obeyed() -> None:
    stream = io.StringIO()
    terminal.show(page.report([diagnosis("[bold]x[/bold] :smile:")]), stream)

    assert "[bold]x[/bold] :smile:" in stream.getvalue()


def test_this_check_can_fail() -> None:
    assert harmful(HOSTILE) >= {"\x1b", "\x9b", "\u202e", "\ud800", "\r"}
