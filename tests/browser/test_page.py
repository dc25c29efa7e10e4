"""The page in a real browser: it draws, answers to pointer and keys, and obeys no text of a log."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

from benchmarks.page.run import SPIKE, long_run
from nndiag.records import Diagnosis, Finding, Layer, Run, Series, Severity, Verdict
from nndiag.reports import html_page
from tests.reports.museum import MUSEUM
from tests.reports.test_hostile_text import diagnosis
from tests.reports.test_html_page import ATTACKS

STEPS = 700
AT = 420  # of the spike
LEFT, RIGHT = 54, 10  # of axis.js: what labels take of a plot
PLOT, CELLS = ".tracks .plot", ".cells"


def sick() -> Diagnosis:
    """A spike in the loss, and a layer whose gradient breaks at the same step."""
    steps = np.arange(STEPS)
    loss = 2.0 * np.exp(-steps / 100) + 0.5
    loss[AT] = 40.0
    grown = np.full(STEPS, 2.0)
    grown[AT:] = np.nan
    series = (
        Series("loss", steps, loss),
        Series("val_loss", steps[::50], loss[::50] * 1.5),
        Series("lr", steps, np.full(STEPS, 0.01)),
        Series("grad_norm", steps, np.full(STEPS, 0.5)),
        Series("step_time_s", steps, np.full(STEPS, 0.1)),
        Series("activation_variance", steps[::10], np.full(70, 0.25), where="a"),
        Series("activation_variance", steps[::10], grown[::10], where="b"),
    )
    spike = Finding("loss-spike", Severity.CRITICAL, 0.9, "It rose.", AT, AT + 5, series="loss")
    broken = Finding(
        "activation-exploding", Severity.WARNING, 0.9, "It broke.", AT, None,
        series="activation_variance", layers=("b",),
    )  # fmt: skip
    layers = (Layer("a", "Linear", 0), Layer("b", "ReLU", 1))
    return Diagnosis(Run("runs/sick", "nndiag", series, layers), Verdict.CRITICAL, (spike, broken))


@pytest.fixture(scope="module")
def html() -> str:
    return html_page.text([sick()])


def across(step: float, low: float = 0, high: float = STEPS - 1, width: float = 0) -> float:
    """Where a step is on a plot, as a share of its width."""
    return (LEFT + (step - low) / (high - low) * (width - LEFT - RIGHT)) / width


def hover(page: Any, step: float, selector: str = PLOT) -> None:
    width = page.page.locator(selector).first.bounding_box()["width"]
    page.page.mouse.move(*page.place(selector, across(step, width=width), 0.5))
    page.frame()


def colour_at(page: Any, selector: str, x: float, y: float) -> list[int]:
    """RGBA of a canvas, at shares of its size."""
    return list(
        page.page.evaluate(
            """([selector, x, y]) => {
                const canvas = document.querySelector(selector);
                const at = [x * canvas.width, y * canvas.height].map(Math.floor);
                return [...canvas.getContext('2d').getImageData(...at, 1, 1).data];
            }""",
            [selector, x, y],
        )
    )


def highest_drawn(page: Any, x: float) -> float:
    """How far up the line is drawn around a share of the width; 1 is the top, -1 nowhere."""
    return float(
        page.page.evaluate(
            """(x) => {
                const canvas = document.querySelector('.tracks .plot canvas');
                const line = getComputedStyle(document.documentElement)
                    .getPropertyValue('--series-1').trim();
                const wanted = [1, 3, 5].map((i) => parseInt(line.slice(i, i + 2), 16));
                const left = Math.max(0, Math.round(x * canvas.width) - 2);
                const data = canvas.getContext('2d').getImageData(left, 0, 5, canvas.height).data;
                for (let i = 0; i < data.length; i += 4) {
                    const near = wanted.every((c, k) => Math.abs(c - data[i + k]) < 40);
                    if (data[i + 3] > 100 && near) return 1 - Math.floor(i / 20) / canvas.height;
                }
                return -1;
            }""",
            x,
        )
    )


def axis_text(page: Any) -> list[str]:
    """What `Show all steps` and the values beside the loss say: the state of the axis."""
    page.frame()
    return [str(page.page.locator("button:has-text('show all steps')").first.is_disabled())]


def legend(page: Any) -> str:
    page.frame()
    return str(page.page.locator(".tracks .legend output").first.inner_text())


def test_the_spike_is_drawn_where_it_was(opened: Any, html: str) -> None:
    page = opened(html)
    width = page.page.locator(PLOT).first.bounding_box()["width"]

    assert highest_drawn(page, across(AT, width=width)) > 0.8
    assert 0 < highest_drawn(page, across(AT + 60, width=width)) < 0.4
    assert page.page.locator(".tracks .track:not(.foot)").count() == 3


def test_pointing_reads_step_and_value(opened: Any, html: str) -> None:
    page = opened(html)
    hover(page, AT)

    assert legend(page) == "40"
    assert page.page.locator(".tracks .legend output").nth(1).inner_text() == "0.8049 @400"
    # the rate never changed and has two points: between them it is what it is at both
    assert page.page.locator(".tracks .legend output").nth(2).inner_text() == "0.01"
    hover(page, 0)
    assert legend(page) == "2.5"


def test_the_keyboard_reads_values_and_zooms(opened: Any, html: str) -> None:
    page = opened(html)
    page.page.locator(PLOT).first.focus()
    page.page.keyboard.press("Home")
    page.page.keyboard.press("ArrowRight")
    assert legend(page) == f"{2.0 * np.exp(-1 / 100) + 0.5:.3f}".rstrip("0")

    page.page.keyboard.press("+")
    assert axis_text(page) == ["False"]
    page.page.keyboard.press("0")
    assert axis_text(page) == ["True"]


def test_a_drag_zooms_and_a_double_click_shows_all(opened: Any, html: str) -> None:
    page = opened(html)
    width = page.page.locator(PLOT).first.bounding_box()["width"]
    page.page.mouse.move(*page.place(PLOT, across(400, width=width), 0.5))
    page.page.mouse.down()
    page.page.mouse.move(*page.place(PLOT, across(440, width=width), 0.5), steps=4)
    page.page.mouse.up()

    assert axis_text(page) == ["False"]
    middle = across(AT, 400, 440, width)
    assert highest_drawn(page, middle) > 0.8  # the spike stands in the middle now
    page.page.mouse.dblclick(*page.place(PLOT, 0.5, 0.5))
    assert axis_text(page) == ["True"]
    assert highest_drawn(page, across(AT, width=width)) > 0.8


def test_a_wheel_scrolls_the_page_and_with_ctrl_zooms(opened: Any, html: str) -> None:
    page = opened(html)
    page.page.mouse.move(*page.place(PLOT, 0.5, 0.5))
    page.page.mouse.wheel(0, 120)
    page.wait_for("scrollY > 0")
    assert axis_text(page) == ["True"]

    page.page.mouse.move(*page.place(PLOT, 0.5, 0.5))
    page.page.keyboard.down("Control")
    page.page.mouse.wheel(0, -120)
    page.page.keyboard.up("Control")
    page.wait_for("!document.querySelector('.tools .toggle:last-child').disabled")


def test_the_scale_of_the_loss_changes_on_a_click(opened: Any, html: str) -> None:
    page = opened(html)
    button = page.page.locator(".track-head .toggle").first
    width = page.page.locator(PLOT).first.bounding_box()["width"]
    before = highest_drawn(page, across(100, width=width))
    assert button.get_attribute("aria-pressed") == "true"  # 0.5 to 40 asks for a logarithm
    button.click()
    page.frame()

    assert button.get_attribute("aria-pressed") == "false"
    assert highest_drawn(page, across(100, width=width)) < before - 0.1


def test_lines_and_further_series_are_shown_on_demand(opened: Any, html: str) -> None:
    page = opened(html)
    width = page.page.locator(PLOT).first.bounding_box()["width"]
    page.page.locator(".legend button").first.click()
    page.frame()
    assert highest_drawn(page, across(AT, width=width)) == -1

    more = page.page.locator(".tools button:has-text('Step time')")
    more.click()
    assert page.page.locator(".tracks .track:not(.foot)").count() == 4
    more.click()
    assert page.page.locator(".tracks .track:not(.foot)").count() == 3


def test_a_heat_map_tells_layer_steps_and_value(opened: Any, html: str) -> None:
    page = opened(html)
    page.page.mouse.move(*page.place(CELLS, 0.3, 0.25))
    page.frame()
    tip = page.text(".tip")
    [step] = re.findall(r"step (\d+): 0\.25", tip)
    assert tip.startswith("aLinear") and abs(int(step) - 210) <= 5

    page.page.mouse.move(*page.place(CELLS, 0.9, 0.75))
    page.frame()
    assert re.search(r"b.*ReLU\s+step \d+: NaN", page.text(".tip"), re.S)


def test_cells_that_are_broken_have_the_colour_of_a_signal(opened: Any, html: str) -> None:
    page = opened(html)
    fine, broken = (colour_at(page, ".cells canvas", x, 0.75) for x in (0.3, 0.9))

    assert broken == [0xDE, 0x42, 0x12, 255]
    assert fine != broken and fine[3] == 255


def test_choosing_a_row_draws_the_series_of_its_layer(opened: Any, html: str) -> None:
    page = opened(html)
    page.page.mouse.click(*page.place(CELLS, 0.3, 0.75))
    page.frame()
    assert page.page.locator(".detail .legend .name").inner_text() == "b"
    assert "NaN or infinite" in page.text(".detail")

    page.page.locator(".rows li[aria-selected=true]").focus()
    page.page.keyboard.press("ArrowUp")
    assert page.page.locator(".detail .legend .name").inner_text() == "a"


def test_a_click_on_a_finding_shows_its_steps_and_its_layer(opened: Any, html: str) -> None:
    page = opened(html)
    page.page.locator("a.curve").nth(0).click()
    assert axis_text(page) == ["False"]
    hover_width = page.page.locator(PLOT).first.bounding_box()["width"]
    window = [
        float(page.page.locator("a.curve").nth(0).get_attribute(f"data-{end}"))
        for end in ("start", "end")
    ]
    assert window[0] < AT < window[1] and window[1] - window[0] < STEPS / 2
    assert highest_drawn(page, across(AT, *window, hover_width)) > 0.8

    page.page.locator("a.curve").nth(1).click()
    page.frame()
    assert page.page.locator(".detail .legend .name").inner_text() == "b"
    assert page.page.locator(".choice [aria-pressed=true]").inner_text() == "activation variance"


def test_the_theme_follows_the_system_and_a_click(opened: Any, html: str) -> None:
    ground = "getComputedStyle(document.documentElement).backgroundColor"
    light, dark = opened(html, color_scheme="light"), opened(html, color_scheme="dark")
    colours = [one.page.evaluate(ground) for one in (light, dark)]
    assert colours == ["rgb(252, 252, 250)", "rgb(20, 23, 26)"]

    cells = colour_at(light, ".cells canvas", 0.3, 0.25)
    light.page.locator("#theme").click()
    light.frame()
    assert light.page.evaluate(ground) == colours[1]
    assert colour_at(light, ".cells canvas", 0.3, 0.25) != cells


NARROW = {
    "a finding": MUSEUM["a_spike_with_its_symptom"],
    "several runs": MUSEUM["several_runs"],
    "hostile text": MUSEUM["hostile_text"],
    "long names": (diagnosis("long.name." * 900), diagnosis("x" * 9000)),
}


@pytest.mark.parametrize("name", NARROW)
def test_a_phone_needs_no_scrolling_sideways(name: str, opened: Any) -> None:
    page = opened(html_page.text(NARROW[name]), viewport={"width": 390, "height": 844})
    widths = page.page.evaluate(
        "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
    )

    assert widths[0] <= widths[1]


def test_on_paper_curves_are_drawings_and_everything_is_open(opened: Any) -> None:
    page = opened(html_page.text(MUSEUM["several_runs"]), color_scheme="dark")
    pdf = page.page.pdf(format="A4")
    assert pdf.startswith(b"%PDF") and len(re.findall(rb"/Type\s*/Page\b", pdf)) >= 3

    page.page.emulate_media(media="print")
    closed = page.page.locator("details:not([open])")
    page.page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert closed.count() == 0
    page.page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert closed.count() == 2  # as they were
    assert page.page.locator(".paper svg").first.is_visible()
    assert not page.page.locator(".tracks").first.is_visible()
    ground = page.page.evaluate("getComputedStyle(document.body).getPropertyValue('--page')")
    assert ground.strip() == "#fff"  # ink is for what is written


def test_without_a_script_all_text_and_drawings_are_there(opened: Any, html: str) -> None:
    page = opened(html, java_script_enabled=False)

    assert page.page.locator(".paper svg").count() >= 3
    assert page.page.locator(".paper svg").first.is_visible()
    assert page.page.locator(".finding .message").first.inner_text() == "It rose."
    assert not page.page.locator("#theme").is_visible()


def test_a_table_of_runs_is_sorted_by_a_click_and_leads_to_a_run(opened: Any) -> None:
    page = opened(html_page.text(MUSEUM["several_runs"]))
    names = page.page.locator(".runs td.name")
    assert names.all_inner_texts() == ["b", "c", "a"]
    page.page.locator(".runs th button:has-text('run')").click()
    assert names.all_inner_texts() == ["a", "b", "c"]
    page.page.locator(".runs th button:has-text('run')").click()
    assert names.all_inner_texts() == ["c", "b", "a"]

    page.page.locator(".runs a:has-text('c')").click()
    page.page.wait_for_selector("#run-2[open] .tracks .plot canvas")
    assert page.page.locator("#run-2 .cells canvas").count() >= 1


@pytest.mark.parametrize("index", range(len(ATTACKS)))
def test_no_text_of_a_log_is_obeyed(index: int, opened: Any) -> None:
    """Dialogs, errors, broken rules of the policy and requests are looked for by `opened`."""
    attack = ATTACKS[index]
    one = diagnosis(attack)
    steps = np.arange(60)
    series = (
        *one.run.series,
        Series("other", steps, steps + 1.0, name=attack, owner=attack),
        Series("activation_variance", steps, steps + 1.0, where=attack),
    )
    run = Run(attack, attack, series, (Layer(attack, attack, 0),), environment=((attack, attack),))
    page = opened(html_page.text([Diagnosis(run, one.verdict, one.findings)]))
    page.page.locator(".tools .toggle").first.click()
    page.page.mouse.click(*page.place(CELLS, 0.3, 0.5))
    page.page.locator("a.curve").first.click()
    page.frame()

    assert page.page.evaluate("document.scripts.length") == 2
    assert page.page.locator("img, iframe, object, embed").count() == 0
    assert page.page.locator(".detail .legend .name").count() == 1


def test_the_watch_over_dialogs_and_requests_can_fail(chromium: Any, tmp_path: Any) -> None:
    context = chromium.new_context()
    page = context.new_page()
    seen: list[str] = []
    page.on("dialog", lambda dialog: (seen.append(dialog.message), dialog.dismiss()))
    page.on("request", lambda request: seen.append(request.url))
    page.set_content("<script>alert('fired')</script><img src='http://127.0.0.1:9/x.png'>")
    context.close()

    assert "fired" in seen and "http://127.0.0.1:9/x.png" in seen


def test_a_long_run_is_drawn_at_once_and_a_spike_of_one_step_is_seen(opened: Any) -> None:
    page = opened(html_page.text([long_run(100_000, 200, every=50)]))
    width = page.page.locator(PLOT).first.bounding_box()["width"]
    took = page.page.evaluate("performance.now()")

    assert highest_drawn(page, across(SPIKE, high=99_999, width=width)) > 0.8
    hover(page, SPIKE / 99_999 * (STEPS - 1))
    assert legend(page) == "97.5"
    assert took < 10_000  # ms since the page was opened; it takes about one
    page.page.locator(".heat input").fill("layers.9.")
    page.frame()
    assert page.page.locator(".rows li:visible").count() == 4


ODD = {
    "everything is NaN": np.full(50, np.nan),
    "one point": np.array([1.5]),
    "huge values": np.array([1e308, -1e308, 1e300, np.inf, np.nan]),
    "zeros": np.zeros(50),
}


@pytest.mark.parametrize("name", ODD)
def test_odd_runs_are_shown_without_complaint(name: str, opened: Any) -> None:
    values = ODD[name]
    steps = 2**62 + np.arange(values.size)
    series = (
        Series("loss", steps, values),
        Series("activation_variance", steps, values, where="a"),
    )
    page = opened(html_page.text([Diagnosis(Run("x", "csv", series), Verdict.UNDECIDED)]))
    page.page.locator(PLOT).first.focus()
    page.page.keyboard.press("End")

    assert legend(page) in ("NaN", "1.5", "0")
    assert page.page.locator(".cells canvas").count() == 2


def test_a_run_without_anything_is_a_page_of_words(opened: Any) -> None:
    page = opened(html_page.text(MUSEUM["a_run_without_any_series"]))

    assert "undecided" in page.text("main") and "no steps" in page.text("main")
