"""Attributions on the page of a run: bars, pictures and tokens, and text that stays text."""

from __future__ import annotations

import base64
import io
import zlib
from dataclasses import replace

import numpy as np
import pytest

from nndiag.records import Attribution
from nndiag.reports import html_page
from nndiag.reports.html import attributions as drawn
from nndiag.reports.html import picture
from nndiag.reports.wording import clean
from tests.reports.attributed import IMAGE, LAYER, MUSEUM, SPIKE, SPREAD, TOKENS, WRONG_LABEL
from tests.reports.html_data import Tags
from tests.reports.museum import MUSEUM as DIAGNOSES
from tests.reports.test_html_page import ATTACKS

[DIAGNOSIS] = DIAGNOSES["a_spike_with_its_symptom"]


def page(*attributions: Attribution) -> str:
    section = html_page.attribution_section(attributions)
    return html_page.text([DIAGNOSIS], sections={DIAGNOSIS.run.path: (section,)})


def decoded(address: str) -> np.ndarray:
    """(H, W, channels) of a PNG as `picture` writes it."""
    content = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    width, height = (int.from_bytes(content[i : i + 4], "big") for i in (16, 20))
    channels = 4 if content[25] == 6 else 3
    length = int.from_bytes(content[33:37], "big")
    rows = np.frombuffer(zlib.decompress(content[41 : 41 + length]), np.uint8)
    return rows.reshape(height, 1 + width * channels)[:, 1:].reshape(height, width, channels)


@pytest.mark.parametrize("name", MUSEUM)
def test_every_kind_makes_a_valid_page(name: str) -> None:
    tags = Tags(page(*MUSEUM[name]))

    assert "Attributions" in tags.text and "style" not in dict(tags.attributes)
    assert len(tags.ids) == len(set(tags.ids))


def test_the_sample_its_feature_and_the_quality_are_told() -> None:
    text = Tags(page(SPIKE)).text

    assert "1 of 32 samples carries 100 % of the loss: sample 7 (559, 100 %)." in text
    assert text.index("x[1] = 80 (usually 0.04)") < text.index("x[2] = -2.5")
    assert "convergence delta 0.2 % of the change" in text
    assert "look at its target" in Tags(page(WRONG_LABEL)).text


def test_only_carriers_are_marked_in_the_drawing_of_a_batch() -> None:
    [spike], [spread] = drawn.shown([SPIKE]), drawn.shown([SPREAD])

    assert [i for i, one in enumerate(spike.columns) if one.carries] == [7]
    assert spike.columns[7].height == drawn.BATCH_HEIGHT
    assert not any(one.carries for one in spread.columns)


def test_of_a_large_batch_the_largest_losses_are_drawn() -> None:
    losses = np.random.default_rng(0).uniform(0, 0.01, 5000)
    losses[4321] = 900.0
    [shown] = drawn.shown([replace(SPIKE, batch=losses)])

    assert len(shown.columns) == drawn.MOST_DRAWN
    assert [one.title for one in shown.columns if one.carries] == ["sample 4321: 900"]


def test_a_picture_is_orange_where_the_patch_is_and_clear_elsewhere() -> None:
    [shown] = drawn.shown([IMAGE])
    found = shown.samples[0].inputs[0].picture
    assert found is not None
    above = decoded(found.above)

    assert above.shape == (16, 24, 4)
    assert (above[4:8, 12:18] == [*drawn.RAISES, 255]).all()
    assert above[0, 0, 3] < 10
    assert decoded(found.below).shape == (16, 24, 3)


def test_the_pictures_are_pngs_that_others_read() -> None:
    image = pytest.importorskip("matplotlib.image", reason="another reader of PNG")
    rgba = np.random.default_rng(0).integers(0, 255, (7, 5, 4), dtype=np.uint8)
    content = base64.b64decode(picture.address_of(rgba).partition(",")[2])

    assert (np.round(image.imread(io.BytesIO(content)) * 255) == rgba).all()


def test_large_pictures_are_reduced_and_left_out_when_the_page_is_full() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(4, 3, 500, 700))
    samples = tuple(replace(IMAGE.samples[0], row=row) for row in range(4))
    given = replace(IMAGE.inputs[0], values=values, attributions=values)
    many = [replace(IMAGE, inputs=(given,), samples=samples)] * 12

    shown = drawn.shown(many)
    pictures = [s.inputs[0].picture for one in shown for s in one.samples]

    assert decoded(pictures[0].above).shape == (96, 96, 4)  # type: ignore[union-attr]
    assert pictures[-1].above == "" and "left out" in pictures[-1].words  # type: ignore[union-attr]
    assert len(page(*many)) < html_page.MOST_BYTES / 2


def test_a_spike_of_one_pixel_survives_the_reduction_in_proportion() -> None:
    map_HW = np.zeros((960, 960))
    map_HW[500, 100] = 7.0

    small = drawn._reduced(map_HW)

    assert small.shape == (96, 96) and small[50, 10] == pytest.approx(0.07)
    assert np.count_nonzero(small) == 1


def test_tokens_are_coloured_by_sign_and_size() -> None:
    [shown] = drawn.shown([TOKENS])
    tokens = shown.samples[0].inputs[0].tokens

    assert [token.text for token in tokens] == ["4", "8", "15", "16"]
    assert [token.colour for token in tokens] == ["up1", "down5", "", ""]


@pytest.mark.parametrize("nasty", ATTACKS)
def test_no_text_of_a_file_is_markup(nasty: str) -> None:
    harmless = Tags(page(LAYER, TOKENS))
    hostile = replace(
        LAYER, layer=nasty, method=nasty, notes=(nasty,), model=nasty, failed="", do=nasty
    )
    given = replace(TOKENS.inputs[0], name=nasty)
    samples = tuple(replace(one, what=nasty) for one in TOKENS.samples)

    tags = Tags(page(hostile, replace(TOKENS, inputs=(given,), samples=samples)))

    assert set(tags.tags) == set(harmless.tags)
    assert {name for name, _ in tags.attributes} == {name for name, _ in harmless.attributes}
    assert clean(nasty)[:12].strip() in tags.text
