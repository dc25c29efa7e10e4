"""Attributions in words: whose loss it was, which features count, how far to trust it."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nndiag.records import Finding, Severity
from nndiag.reports import attribution, attribution_facts, attribution_json, plain
from tests.reports.attributed import (
    BAD_NUMBERS,
    IMAGE,
    LAYER,
    MUSEUM,
    ODD_BATCH,
    SPIKE,
    SPREAD,
    TEXT,
    TOKENS,
    TWO_INPUTS,
    UNKNOWN_LOSS,
    WRONG_LABEL,
)
from tests.reports.test_hostile_text import TEXTS, harmful

GOLDEN = Path(__file__).parent / "golden"


def text(*attributions: object) -> str:
    return plain.text(attribution.report(attributions))  # type: ignore[arg-type]


@pytest.mark.parametrize("name", MUSEUM)
def test_the_lines(name: str, golden: Callable[[Path, str], None]) -> None:
    golden(GOLDEN / f"attribution_{name}.txt", text(*MUSEUM[name]))


def test_one_sample_that_carries_the_loss_is_named_with_its_feature() -> None:
    said = text(SPIKE)

    assert "1 of 32 samples carries 100 % of the loss: sample 7 (559, 100 %)" in said
    assert said.index("x[1] = 80 (usually 0.04)") < said.index("x[2]")


def test_a_loss_that_all_samples_share_blames_none() -> None:
    carried = attribution_facts.carriers(SPREAD)

    assert carried is not None and not carried.stand_out
    assert "no sample stands out" in text(SPREAD)


def test_a_sample_that_made_all_of_the_rise_stands_out_with_less_than_half_of_the_loss() -> None:
    losses = np.full(32, 0.4)
    losses[7] = 10.0
    carried = attribution_facts.carriers(
        replace(SPIKE, batch=losses, loss=float(losses.mean()), before=0.4)
    )

    assert carried is not None and carried.stand_out
    assert carried.rows == (7,) and carried.shares[0] < 0.5


@given(st.lists(st.floats(0, 1e6), min_size=1, max_size=200))
def test_carriers_hold_most_of_the_loss_and_no_fewer_would(losses: list[float]) -> None:
    carried = attribution_facts.carriers(replace(SPIKE, batch=np.array(losses)))

    if carried is None:
        assert sum(losses) == 0
        return
    assert sum(carried.shares) >= attribution_facts.MOST_OF_IT - 1e-9
    assert sum(carried.shares[:-1]) < attribution_facts.MOST_OF_IT
    largest = sorted(losses, reverse=True)[: len(carried.rows)]
    assert [losses[row] for row in carried.rows] == largest


def test_the_places_that_make_a_loss_are_named_where_they_are_few() -> None:
    found = attribution_facts.places(TEXT, 0)

    assert found is not None
    assert (found.indices, found.total) == (((2,), (5,)), 5)  # what is ignored does not count
    assert "made at 2 of 5 places: 2 (8.2), 5 (3.1)" in text(TEXT)
    even = replace(TEXT, elements=np.full((1, 6), 2.0))
    assert attribution_facts.places(even, 0) is None
    assert attribution_facts.places(replace(TEXT, elements=np.zeros((1, 6))), 0) is None
    [told] = json.loads(attribution_json.text([TEXT]))["attributions"]
    assert told["samples"][0]["places"]["indices"] == [[2], [5]]


def test_an_odd_sample_is_named_where_no_loss_stands_out() -> None:
    """By batch statistics one sample moves the loss of all: the advice must not clear it."""
    said = text(ODD_BATCH)

    assert "sample 25 has x[0, 3] = 200; the largest of the others are around 1.8" in said
    assert "not at its samples" not in said and "not at its samples" in text(SPREAD)
    assert "dropout or batch statistics" in text(replace(SPREAD, differs_at_rest=True))


def test_shares_are_of_all_inputs_together_and_the_largest_input_comes_first() -> None:
    said = text(TWO_INPUTS)

    assert said.index("num[1] = 80") < said.index("mask: less than 1 %")
    assert "cat: less than 1 %" in said
    found = [
        part
        for given in TWO_INPUTS.inputs
        for part in attribution_facts.parts(TWO_INPUTS, given, 0, 9)
    ]
    assert sum(part.share for part in found) == pytest.approx(1.0)


def test_an_ordinary_sample_is_not_blamed_for_its_target() -> None:
    ordinary = replace(WRONG_LABEL.samples[0], row=8)

    assert attribution_facts.is_about_the_target(WRONG_LABEL, WRONG_LABEL.samples[0])
    assert not attribution_facts.is_about_the_target(WRONG_LABEL, ordinary)


def test_an_integral_that_did_not_converge_says_so() -> None:
    assert "not converged, do not rely on it" in text(UNKNOWN_LOSS)
    assert "not converged" not in text(SPIKE)


def test_a_region_of_an_image_is_where_it_was_planted() -> None:
    map_HW = attribution_facts.sizes_of_pixels(IMAGE.inputs[0], 0)
    assert map_HW is not None
    found = attribution_facts.region(map_HW)

    assert found is not None
    assert (found.rows, found.columns) == ((4, 7), (12, 17))
    assert found.share == pytest.approx(24 * 0.99 / (24 * 0.99 + 360 * 0.01))


def test_a_map_keeps_the_largest_cell_and_the_shape() -> None:
    map_HW = np.zeros((100, 60))
    map_HW[99, 0] = 5.0

    cells = attribution_facts.pooled(map_HW, 12, 24)

    assert cells.shape == (12, 24)
    assert cells[11, 0] == 1.0 and cells.sum() == 1.0


def finding(start: int | None, end: int | None) -> Finding:
    return Finding("loss-spike", Severity.WARNING, 0.9, "rose", step_start=start, step_end=end)


@pytest.mark.parametrize(
    ("start", "end", "belongs"),
    [(199, 201, True), (202, 240, True), (150, None, True), (203, 240, False), (None, None, False)],
)
def test_a_batch_belongs_to_a_finding_about_its_step(
    start: int | None, end: int | None, belongs: bool
) -> None:
    assert attribution_facts.belongs_to(SPIKE, [finding(start, end)]) is belongs
    assert attribution_facts.belongs_to(IMAGE, [finding(start, end)])  # the last batch always


def test_a_batch_does_not_belong_to_the_finding_of_another_optimizer() -> None:
    of_other = [replace(finding(199, 201), owner="Adam-1")]

    assert not attribution_facts.belongs_to(replace(SPIKE, owner="Adam"), of_other)
    assert attribution_facts.belongs_to(replace(SPIKE, owner="Adam-1"), of_other)
    assert attribution_facts.belongs_to(SPIKE, of_other)  # of a run with one optimizer


@given(TEXTS, TEXTS)
def test_text_of_a_file_moves_no_cursor(name: str, note: str) -> None:
    one = replace(
        LAYER,
        layer=name,
        model=name,
        notes=(note,),
        inputs=(replace(LAYER.inputs[0], name=name),),
        samples=(replace(LAYER.samples[0], what=note), LAYER.samples[1]),
    )
    said = text(one, replace(TOKENS, inputs=(replace(TOKENS.inputs[0], name=name),)))

    assert harmful(said) == set()
    assert harmful(attribution_json.text([one])) == set()


@pytest.mark.parametrize("name", MUSEUM)
def test_json_is_valid_and_holds_the_same(name: str) -> None:
    told = json.loads(attribution_json.text(MUSEUM[name]))

    assert told["schema"] == "nndiag.attributions/1"
    assert [one["method"] for one in told["attributions"]] == [a.method for a in MUSEUM[name]]


def test_json_names_the_sample_and_the_feature() -> None:
    [told] = json.loads(attribution_json.text([SPIKE]))["attributions"]

    assert told["carriers"]["rows"] == [7] and told["carriers"]["stand_out"] is True
    [feature, *_] = told["samples"][0]["inputs"][0]["features"]
    assert feature["index"] == [1] and feature["sign"] == 1 and feature["value"] == 80.0
    assert told["converged"] is True
    [bad] = json.loads(attribution_json.text([BAD_NUMBERS]))["attributions"]
    assert bad["loss"] == "NaN" and bad["carriers"]["nonfinite"] == [5]
