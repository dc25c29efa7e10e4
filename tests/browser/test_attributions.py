"""Attributions in a real browser: drawn, readable on a phone, and no text of a file obeyed."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest

from tests.reports.attributed import IMAGE, MUSEUM, SPIKE
from tests.reports.test_html_attributions import page
from tests.reports.test_html_page import ATTACKS

ALL = [one for each in MUSEUM.values() for one in each]


def test_bars_are_as_long_as_their_shares(opened: Any) -> None:
    shown = opened(page(SPIKE))
    widths = shown.page.eval_on_selector_all(
        ".bars rect", "bars => bars.map(bar => bar.getBoundingClientRect().width)"
    )

    assert len(widths) == 2
    assert widths[0] / widths[1] == pytest.approx(97.7 / 2.2, rel=0.05)


def test_the_picture_is_drawn_over_the_image(opened: Any) -> None:
    shown = opened(page(replace(IMAGE, samples=IMAGE.samples[:1])))
    shown.page.locator(".counts").first.scroll_into_view_if_needed()
    x, y = shown.place(".counts", 15 / 24, 6 / 16)  # within the patch
    seen = shown.page.screenshot(clip={"x": x - 2, "y": y - 2, "width": 4, "height": 4})
    image = pytest.importorskip("PIL.Image", reason="reads the screenshot")
    red, green, blue = image.open(io.BytesIO(seen)).convert("RGB").getpixel((2, 2))
    assert red > 150 > green > blue


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_scrolling_sideways(scheme: str, opened: Any) -> None:
    shown = opened(page(*ALL), viewport={"width": 390, "height": 800}, color_scheme=scheme)

    assert shown.page.evaluate("document.documentElement.scrollWidth") == 390


def test_no_text_of_a_file_is_obeyed(opened: Any) -> None:
    hostile = [replace(one, layer=text, method=text, notes=(text,)) for one, text in
               zip(ALL * 3, ATTACKS, strict=False)]  # fmt: skip
    shown = opened(page(*hostile))  # `opened` looks for dialogs and requests at the end

    assert shown.page.evaluate("document.images.length") == 0
