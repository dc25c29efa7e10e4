"""The fenced-off rows: what is written, and which bytes of the script end the view."""

from __future__ import annotations

import pytest

from nndiag.watcher.screen import Output, Screen

TAKE_OVER = {
    "the alternate screen": b"\x1b[?1049h",
    "the old alternate screen": b"\x1b[?47h",
    "a scroll region": b"\x1b[2;10r",
    "a reset": b"\x1bc",
    "addressing": b"\x1b[5;1H",
    "addressing by row": b"\x1b[12d",
    "the saved cursor": b"\x1b7",
}
HARMLESS = {
    "text": b"loss 0.3\n",
    "colour": b"\x1b[1;31mred\x1b[0m",
    "a bar": b"\r 10%|###",
    "nested bars": b"\n\x1b[A\x1b[2K",
    "the cursor hidden": b"\x1b[?25l",
    "a cleared screen": b"\x1b[H\x1b[2J\x1b[3J",
    "home": b"\x1b[1;1H",
    "bracketed paste": b"\x1b[?2004h",
    "a hyperlink": b"\x1b]8;;https://example.org\x1b\\text\x1b]8;;\x1b\\",
    "no UTF-8": b"\xff\xfe\x80",
}


@pytest.mark.parametrize("sequence", TAKE_OVER.values(), ids=TAKE_OVER)
@pytest.mark.parametrize("cut", [0, 1, 2, 3])
def test_a_script_that_takes_the_screen_is_seen_even_in_two_pieces(
    sequence: bytes, cut: int
) -> None:
    cut = min(cut, len(sequence) - 1)
    output = Output()
    before = output.pass_on(b"text" + sequence[:cut])
    assert not output.takes_over
    assert before == b"text"  # nothing of the sequence: the view must go first

    after = output.pass_on(sequence[cut:] + b"more")
    assert output.takes_over
    assert before + after == b"text" + sequence + b"more"


@pytest.mark.parametrize("text", HARMLESS.values(), ids=HARMLESS)
def test_other_output_passes_whole_however_it_is_cut(text: bytes) -> None:
    for cut in range(len(text) + 1):
        output = Output()
        passed = output.pass_on(text[:cut]) + output.pass_on(text[cut:]) + output.rest()
        assert passed == text
        assert not output.takes_over


def test_we_never_draw_inside_a_sequence_or_a_character() -> None:
    output = Output()
    for half in (b"\x1b", b"\x1b[3", b"\xe2\x96", b"\xf0\x9f\x98", b"\x1b]0;title"):
        assert output.pass_on(b"x" + half) == b"x"
        assert output.rest() == half


def test_a_long_unfinished_text_is_not_held_back() -> None:
    output = Output()

    assert output.pass_on(b"\x1b]0;" + b"a" * 1000) != b""


def test_the_view_takes_the_lower_rows_and_gives_them_back() -> None:
    screen = Screen(24, 80)
    height = screen.height

    assert screen.rows_for_script == 24 - height
    assert b"\x1b[1;%dr" % (24 - height) in screen.open()
    assert screen.open() == b""  # once
    painted = screen.draw(["first", "second"])
    assert b"\x1b[%d;1H" % (24 - height + 1) in painted
    assert painted.count(b"\x1b7") == painted.count(b"\x1b8") == 1
    closing = screen.close()
    assert b"\x1b[r" in closing
    assert b"\x1b[J" in closing
    assert screen.close() == b""


def test_only_lines_that_changed_are_painted() -> None:
    screen = Screen(24, 80)
    screen.open()
    screen.draw(["one", "two"])

    assert b"two" not in screen.draw(["ONE", "two"])
    assert screen.draw(["ONE", "two"]) == b""
    assert b"two" in screen.draw(["ONE", "two"], everything=True)


@pytest.mark.parametrize(("rows", "columns"), [(10, 80), (24, 30), (2, 2)])
def test_a_small_terminal_has_no_view(rows: int, columns: int) -> None:
    screen = Screen(rows, columns)

    assert screen.open() == b""
    assert screen.rows_for_script == rows
    assert screen.draw(["text"]) == b""


def test_the_view_comes_back_when_the_terminal_grows_again() -> None:
    screen = Screen(24, 80)
    screen.open()
    screen.resize(10, 80)
    assert not screen.is_open

    screen.resize(40, 120)
    screen.open()
    assert screen.is_open
    assert screen.rows_for_script == 40 - screen.height
