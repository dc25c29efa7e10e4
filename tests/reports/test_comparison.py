"""Comparisons made by hand, in each report, as they were last read and found good."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from nndiag.comparison.facts import (
    Basis,
    Change,
    Comparison,
    CurveDifference,
    Difference,
    Drawn,
    Extreme,
    FindingChange,
    LayerDifference,
    Layers,
    Outcome,
    Pair,
    Rank,
    Reached,
    SettingDifference,
    Side,
    WayPoint,
)
from nndiag.errors import UnreadableLog
from nndiag.fingerprint import fingerprint
from nndiag.records import Diagnosis, Finding, Run, Series, Severity, Verdict
from nndiag.reports import comparison as report
from nndiag.reports import comparison_json, comparison_markdown, plain
from nndiag.reports.comparison_wording import difference, plus_minus

GOLDEN = Path(__file__).parent / "golden"
NAN = math.nan
Compare = Callable[[Path, str], None]

HOSTILE = "\x1b[31mred\u202e[bold]<script>|`@all`\nend"
SPIKE = Finding("loss-spike", Severity.WARNING, 0.9, "rose", 419, 441, "loss")
DEAD = Finding("dead-relu", Severity.CRITICAL, 0.9, "dead", 10, 99, layers=("net.1", "net.3"))


def run(path: str, steps: int = 1000) -> Run:
    return Run(path, "csv", (Series("loss", np.arange(steps), np.linspace(2, 1, steps)),))


def side(mark: str, *paths: str, findings: tuple[Finding, ...] = ()) -> Side:
    verdict = Verdict.WARNING if findings else Verdict.HEALTHY
    return Side(mark, tuple(Diagnosis(run(path), verdict, findings) for path in paths))


def noise(outcome: Outcome, a: float, b: float, band: float) -> Difference:
    return Difference(outcome, a, b, b - a, band, Basis.NOISE)


LOWER = noise(Outcome.LOWER, 0.4203, 0.3011, 0.031)
CURVES = (
    CurveDifference(
        "loss", "", "loss", "train_ce", False, "lower", 0.0, 999.0, 899.0, LOWER,
        way=(WayPoint(0.0, 500.0, noise(Outcome.SAME, 1.0, 0.99, 0.1)),
             WayPoint(500.0, 999.0, LOWER)),
        since=500.0, best_a=Extreme(0.391, 940.0), best_b=Extreme(0.284, 988.0), target=0.4203,
        reached_a=Reached(960.0, 900.0, 999.0, 12.0), reached_b=Reached(620.0, 580.0, 655.0, 7.75),
        is_paired=True,
    ),
    CurveDifference(
        "val_loss", "", "val_loss", "val_loss", False, "lower", 0.0, 999.0, 500.0,
        Difference(Outcome.UNDECIDED, 0.5, 0.6, 0.1, NAN, Basis.NONE, "3 values; 5 are needed"),
    ),
    CurveDifference(
        "grad_norm", "", "grad_norm", "grad_norm", True, "", 0.0, 999.0, 899.0,
        Difference(Outcome.HIGHER, 1.0, 2.0, math.log(2.0), 0.1, Basis.NOISE),
    ),
    CurveDifference(
        "other", "", HOSTILE, HOSTILE, False, "", 0.0, 999.0, 899.0,
        noise(Outcome.SAME, 1.0, 1.01, 0.1),
    ),
)  # fmt: skip
PAIR = Pair(
    side("A", "runs/base/metrics.csv", findings=(SPIKE,)),
    side("B", "runs/lr3/metrics.csv", findings=(DEAD,)),
    "step",
    "step",
    findings=(
        FindingChange(Change.APPEARED, fingerprint(DEAD), None, DEAD, 0, 1),
        FindingChange(Change.GONE, fingerprint(SPIKE), SPIKE, None, 1, 0),
    ),
    curves=CURVES,
    only_a=("lr_scale",),
    layers=Layers(
        12,
        (
            LayerDifference(
                "net.1", "gradient norm", True, "end",
                Difference(Outcome.LOWER, 0.44, 0.22, -math.log(2.0), 0.2, Basis.NOISE),
            ),
            LayerDifference(
                HOSTILE, "dead units", False, "middle", noise(Outcome.HIGHER, 0.1, 0.7, 0.05)
            ),
        ),
        renamed=(("head", "classifier"),),
        added=("net.9",),
    ),
    settings=(
        SettingDifference("learning rate", ("0.1",), ("0.3",)),
        SettingDifference(HOSTILE, ("",), (HOSTILE,)),
    ),
    settings_compared=7,
    drawn=Drawn(
        "loss", 0.0, 1500.0, 999.0,
        tuple(2.0 * math.exp(-i / 16) + 0.4 for i in range(64)),
        tuple(2.0 * math.exp(-i / 16) + 0.3 if i < 43 else NAN for i in range(64)),
    ),
    notes=("left out: A after step 999, to 1500",),
)  # fmt: skip
TWO = Comparison((PAIR.a, PAIR.b), (PAIR,))
SEEDS = Pair(
    side("A", "a1.csv", "a2.csv", "a3.csv"),
    side("B", "b1.csv", "b2.csv", findings=(SPIKE,)),
    "progress",
    "share",
    findings=(FindingChange(Change.APPEARED, fingerprint(SPIKE), None, SPIKE, 0, 2),),
    curves=(
        CurveDifference(
            "loss", "", "loss", "loss", False, "lower", 0.0, 1.0, 0.9,
            Difference(Outcome.SAME, 0.5, 0.45, -0.05, 0.21, Basis.SEEDS),
        ),
    ),
    settings_compared=2,
)  # fmt: skip
MANY = Comparison(
    (PAIR.a, PAIR.b, side("C", "runs/deep/metrics.csv")),
    (PAIR, Pair(PAIR.a, side("C", "runs/deep/metrics.csv"), "step", "step",
                not_comparable="they have no steps in common")),
    (Rank("B", 0.3011, 0.02, 999.0), Rank("A", 0.4203, 0.03, 999.0), Rank("C", NAN, NAN, 999.0)),
    "loss",
)  # fmt: skip
COMPARISONS = {
    "comparison_of_two": TWO,
    "comparison_of_seeds": Comparison((SEEDS.a, SEEDS.b), (SEEDS,)),
    "comparison_of_many": MANY,
}
ERROR = UnreadableLog(where="x.csv", what="no column holds a loss", do="name it")


@pytest.mark.parametrize("name", COMPARISONS)
def test_plain_text(name: str, golden: Compare) -> None:
    golden(GOLDEN / f"{name}.txt", plain.text(report.report(COMPARISONS[name], verbose=True)))


@pytest.mark.parametrize("name", COMPARISONS)
def test_markdown(name: str, golden: Compare) -> None:
    golden(GOLDEN / f"{name}.md", comparison_markdown.text(COMPARISONS[name], [ERROR]))


@pytest.mark.parametrize("name", COMPARISONS)
def test_json(name: str, golden: Compare) -> None:
    golden(GOLDEN / f"{name}.json", comparison_json.text(COMPARISONS[name], [ERROR]))


def test_json_is_strict_and_has_the_keys_that_are_promised() -> None:
    document = json.loads(comparison_json.text(TWO), parse_constant=pytest.fail)

    assert list(document) == [
        "schema", "nndiag", "confidence", "sides", "ranking", "pairs", "errors",
    ]  # fmt: skip
    assert document["schema"] == "nndiag.compare/1"
    [pair] = document["pairs"]
    assert set(pair) >= {"a", "b", "align", "unit", "findings", "curves", "layers", "settings"}
    loss, val_loss, norm, _ = pair["curves"]
    assert (loss["outcome"], loss["band"], loss["basis"]) == ("lower", 0.031, "noise")
    assert val_loss["band"] is None and val_loss["outcome"] == "undecided"
    assert (norm["scale"], norm["difference"]) == ("ratio", math.log(2.0))


def test_json_without_a_comparison_holds_the_errors() -> None:
    document = json.loads(comparison_json.text(None, [ERROR]))

    assert document["pairs"] == [] and document["errors"][0]["path"] == "x.csv"


@pytest.mark.parametrize("width", [60, 80, 120])
def test_lines_fit_the_screen(width: int) -> None:
    lines = report.report(COMPARISONS["comparison_of_seeds"], width=width)
    lines += report.report(MANY, width=width)
    shown = ["".join(span.text for span in line) for line in lines]

    assert max(len(line) for line in shown if "script" not in line) <= width


def test_ascii_terminals_get_ascii() -> None:
    assert plain.text(report.report(COMPARISONS["comparison_of_seeds"], ascii_only=True)).isascii()


def test_hostile_names_reach_no_terminal() -> None:
    text = plain.text(report.report(TWO, verbose=True))

    assert "\x1b" not in text and "\u202e" not in text
    page = comparison_markdown.text(TWO)
    assert "\x1b" not in page and "\u202e" not in page


def test_of_many_runs_only_the_best_other_is_told_in_detail() -> None:
    short = plain.text(report.report(MANY))
    long = plain.text(report.report(MANY, verbose=True))

    assert "A against B" in short and "A against C" not in short
    assert "A against C" in long and "no steps in common" in long


NUMBERS = {
    (0.11921, 0.0312): "0.119 ± 0.031",
    (-0.0001, 0.05): "0.000 ± 0.050",
    (468123.0, 80123.0): "468000 ± 80000",
    (1.5, 0.0): "1.5 ± 0",
    (0.25, NAN): "0.25",
}


@pytest.mark.parametrize(("given", "text"), NUMBERS.items())
def test_a_band_has_two_digits_and_its_value_no_more(given: tuple[float, float], text: str) -> None:
    assert plus_minus(*given) == text


def test_a_huge_ratio_is_still_a_sentence() -> None:
    huge = Difference(Outcome.HIGHER, 1.0, math.inf, 800.0, 5.0, Basis.NOISE)

    assert "times A" in difference(huge, is_ratio=True)
