from __future__ import annotations

import numpy as np
import pytest

from nndiag.records import Finding, Remedy, Severity
from nndiag.reports import wording

NUMBERS: list[tuple[object, str]] = [
    (0.82174, "0.8217"),
    (12345.6, "12346"),
    (1234567, "1234567"),
    (3e-5, "3e-5"),
    (1.23456e-7, "1.235e-7"),
    (0.0001, "0.0001"),
    (1e12, "1e12"),
    (10.0, "10"),
    (-2.5, "-2.5"),
    (0.0, "0"),
    (-0.0, "0"),
    (True, "yes"),
    (float("nan"), "NaN"),
    (float("inf"), "infinity"),
    (float("-inf"), "-infinity"),
    ("SGD", "SGD"),
    (None, "-"),
    (99.996, "100"),
    (9999.96, "10000"),
]


@pytest.mark.parametrize(("value", "text"), NUMBERS)
def test_numbers_read_as_a_person_writes_them(value: float | str | None, text: str) -> None:
    assert wording.number(value) == text


def test_numbers_of_numpy_read_like_python_ones() -> None:
    assert wording.number(np.float64(0.5)) == "0.5"
    assert wording.number(np.int64(7)) == "7"
    assert wording.number(np.bool_(True)) == "yes"


def test_text_from_data_stays_on_its_line_and_cannot_steer_a_terminal() -> None:
    assert wording.clean("a\r\nb\tc") == "a b c"
    assert wording.clean("\x1b[31mred") == r"\x1b[31mred"
    assert wording.clean("\x9b2J") == r"\x9b2J"
    assert wording.clean("abc\u202ecba") == r"abc\u202ecba"
    assert wording.clean("\udcff") == r"\udcff"
    assert wording.clean("Größe 損失 →") == "Größe 損失 →"


def finding(**facts: object) -> Finding:
    return Finding("loss-spike", Severity.WARNING, 0.9, "...", **facts)  # type: ignore[arg-type]


def test_step_ranges() -> None:
    assert wording.step_range(finding()) == ""
    assert wording.step_range(finding(step_start=5, step_end=5)) == "step 5"
    assert wording.step_range(finding(step_start=5, step_end=9)) == "steps 5-9"
    assert wording.step_range(finding(step_start=5)) == "from step 5"


def test_a_remedy_shows_its_change_only_where_the_run_tells_a_value() -> None:
    assert wording.change(Remedy("lower-lr", "", "", "lr", 0.003, 0.001)) == "lr 0.003 -> 0.001"
    assert wording.change(Remedy("add-clip", "", "", "max_norm", None, 0.8)) == "max_norm -> 0.8"
    assert wording.change(Remedy("lower-lr", "", "", "lr", 0.003, None)) == ""


def test_sentences_keep_code_words_small() -> None:
    assert wording.sentence("lower the learning rate") == "Lower the learning rate."
    assert wording.sentence("net.3.relu is dead") == "net.3.relu is dead."
    assert wording.sentence("lr is flat!") == "lr is flat!"


def test_long_lists_are_cut_where_that_is_shorter() -> None:
    assert wording.listed("abcde") == "a, b, c, d, e"
    assert wording.listed("abcdefg") == "a, b, c, d and 3 more"
    assert wording.listed([""]) == "(the model)"


def test_a_reason_is_told_once() -> None:
    first, second = (Remedy(name, "do it", "it is dead") for name in ("lower-lr", "add-warmup"))

    assert wording.advice(first) == "Do it. It is dead."
    assert wording.advice(second, before=first) == "Do it."


def test_a_place_says_that_a_number_is_a_layer() -> None:
    assert wording.place(finding(layers=("11",))) == "layer 11"
    assert wording.place(finding(layers=("11", "13"), owner="Adam")) == "layers 11, 13 of Adam"
    assert wording.place(finding(series="loss")) == "loss"


TOLD = {
    "loss rose to 8.2e+16": "loss rose to 8.2e16",
    "lr 1e-05, then 1E5 and -3.1e+007.": "lr 1e-5, then 1E5 and -3.1e7.",
    "1 validations; 5 needed": "1 validation; 5 needed",
    "21 steps, 0.1 steps and 1 steps": "21 steps, 0.1 steps and 1 step",
    "layer conv1e+05.weight": "layer conv1e+05.weight",
    "\x1b[2Jred": r"\x1b[2Jred",
}


@pytest.mark.parametrize(("text", "shown"), TOLD.items())
def test_texts_of_detectors_and_readers_have_our_numbers_and_a_right_singular(
    text: str, shown: str
) -> None:
    assert wording.told(text) == shown


def test_long_names_lose_their_middle_and_fit() -> None:
    assert wording.shortened("short", 10) == "short"
    assert wording.shortened("runs/sweep/seed-0001/metrics.csv", 16) == "runs/\u2026etrics.csv"
    for width in range(3, 12):
        for text in ("損失損失損失損失", "a損b失c損d失e", "abcdefghijklmnop"):
            assert wording.cells(wording.shortened(text, width)) <= width


def test_wide_characters_and_accents_are_counted_as_a_terminal_does() -> None:
    assert [wording.cells(text) for text in ("loss", "損失", "e\u0301")] == [4, 4, 1]
    assert wording.padded("損失", 6) == "損失  "


def test_a_command_names_a_path_so_that_a_shell_and_we_take_it_for_one() -> None:
    assert wording.command("runs/a.csv") == "nndiag analyze runs/a.csv"
    assert wording.command("it's") == """nndiag analyze 'it'"'"'s'"""
    assert wording.command("-x") == "nndiag analyze ./-x"
    assert wording.command("-") == "nndiag analyze -"
