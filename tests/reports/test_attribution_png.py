"""The picture of attributions: drawn for each kind, its colours where the attributions are."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pytest

from tests.reports.attributed import IMAGE, MUSEUM, SPIKE

pytest.importorskip("matplotlib", reason="pictures are drawn by matplotlib, which captum brings")

from matplotlib.image import imread

from nndiag.reports.attribution_png import png


def pixels(attributions: object) -> np.ndarray:
    return np.asarray(imread(io.BytesIO(png(attributions)))[..., :3])  # type: ignore[arg-type]


def orange(picture: np.ndarray) -> np.ndarray:
    red, green, blue = picture[..., 0], picture[..., 1], picture[..., 2]
    return (red > 0.7) & (green < 0.4) & (blue < 0.1)


@pytest.mark.parametrize("name", MUSEUM)
def test_every_kind_is_drawn(name: str) -> None:
    picture = pixels(MUSEUM[name])

    assert picture.shape[1] == 1260
    assert (picture < 0.5).any()  # there is ink


def test_what_raises_the_score_is_orange_and_nothing_else_is() -> None:
    lowered = replace(
        SPIKE, inputs=(replace(SPIKE.inputs[0], attributions=-SPIKE.inputs[0].attributions),)
    )

    assert orange(pixels([SPIKE])).sum() > 10 * orange(pixels([lowered])).sum()


def test_the_map_of_an_image_is_coloured_where_the_patch_is() -> None:
    rows, columns = np.nonzero(orange(pixels([replace(IMAGE, samples=IMAGE.samples[:1])])))

    assert rows.size > 100
    assert np.ptp(columns) < 1.8 * np.ptp(rows) < 400  # one patch, 6 wide and 4 high


def test_a_name_that_looks_like_mathematics_is_text() -> None:
    hostile = replace(SPIKE, method=r"$\frac{", layer="$x$", notes=("$$",))

    assert pixels([hostile]).any()
