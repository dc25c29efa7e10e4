"""The page as a file: what it says, that it is valid, closed to the outside, and small."""

from __future__ import annotations

import base64
import hashlib
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markupsafe import Markup

from benchmarks.page.run import SPIKE, long_run
from nndiag.errors import UnreadableLog
from nndiag.gate import Gate
from nndiag.records import Diagnosis, Run, Series, Verdict
from nndiag.reports import html_page
from nndiag.reports.html import assets, picture
from nndiag.reports.html.sections import Section
from nndiag.settings import Settings
from tests.reports.html_data import Tags, blocks, points, unpack
from tests.reports.museum import DEAD, HOSTILE, MUSEUM, run, spiky
from tests.reports.museum import SPIKE as SPIKE_FINDING
from tests.reports.test_hostile_text import TEXTS, diagnosis, harmful

ATTACKS = (
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "\" onmouseover='alert(1)' x=`",
    "{{ 7 * 7 }}{% for x in y %}",
    "<!--",
    "]]>",
    "\u2028\u2029\u202e\x00\ud800",
    "x" * 10_000,
)


@pytest.mark.parametrize("name", MUSEUM)
def test_every_diagnosis_makes_a_valid_page(name: str) -> None:
    page = html_page.text(MUSEUM[name], [UnreadableLog(where="x.csv", what="no column is a loss")])
    tags = Tags(page)

    assert len(set(tags.ids)) == len(tags.ids)
    linked = {value[1:] for name, value in tags.attributes if name == "href" and value[:1] == "#"}
    assert linked <= set(tags.ids)
    labels = {value for name, value in tags.attributes if name == "aria-labelledby"}
    assert labels <= set(tags.ids)
    assert "x.csv: no column is a loss" in tags.text
    page.encode("utf-8")


def test_a_finding_is_there_in_words_with_its_values() -> None:
    [one] = MUSEUM["a_spike_with_its_symptom"]
    text = " ".join(Tags(html_page.text([one])).text.split())

    for told in (
        "critical", "runs/resnet", "1240 steps (0-1239)", "2 findings: loss-spike, dead-relu",
        SPIKE_FINDING.message, "confidence 97", "loss, steps 612-640",
        "lower-clip clip_grad_norm_.max_norm 10 \u2192 0.8", "lr 0.003 \u2192 0.001",
        "score 41.23 limit 6", "recovered yes", "exploding-gradient",
        "41 steps; 200 needed", "rank 1 stopped at step 800", "nndiag analyze runs/resnet",
        "nndiag explain dead-relu",
    ):  # fmt: skip
        assert told in text, told


def test_all_remedies_are_told_and_not_only_the_first() -> None:
    [one] = MUSEUM["a_spike_with_its_symptom"]
    text = Tags(html_page.text([one])).text

    assert all(remedy.name in text for remedy in SPIKE_FINDING.remedies)


def test_the_policy_admits_our_script_and_style_and_nothing_else() -> None:
    page = html_page.text(MUSEUM["a_spike_with_its_symptom"])
    policy = dict(part.strip().split(" ", 1) for part in _policy(page).split(";"))
    [style] = re.findall(r"<style>(.*?)</style>", page, re.S)
    [script] = re.findall(r"<script>(.*?)</script>", page, re.S)

    assert policy["default-src"] == "'none'"
    assert policy["script-src"] == f"'{_sha(script)}'"
    assert policy["style-src"] == f"'{_sha(style)}'"
    assert policy["img-src"] == "data:"
    assert "unsafe" not in _policy(page)


def _policy(page: str) -> str:
    [policy] = re.findall(r'http-equiv="Content-Security-Policy" content="([^"]*)"', page)
    return policy


def _sha(text: str) -> str:
    return "sha256-" + base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def test_nothing_is_loaded_and_nothing_is_inline() -> None:
    page = html_page.text(MUSEUM["several_runs"])
    tags = Tags(page)

    for name, value in tags.attributes:
        assert name != "style" and not name.startswith("on"), (name, value)
        if name in ("src", "href", "action", "srcset"):
            assert value[:1] == "#" or value.startswith("data:"), value
    assert not re.search(r"\b(eval|innerHTML|outerHTML|insertAdjacentHTML|document\.write)\b", page)
    assert not re.search(r"url\(|@import|https?://", page)


@settings(max_examples=60, deadline=None)
@given(st.one_of(TEXTS, st.sampled_from(ATTACKS)))
def test_no_text_of_a_log_is_markup(nasty: str) -> None:
    plain = html_page.text([diagnosis("plain")])
    page = html_page.text([diagnosis(f"{nasty}.")])  # where there is no text, there is no part
    tags = Tags(page)

    assert tags.tags == Tags(plain).tags
    assert [name for name, _ in tags.attributes] == [name for name, _ in Tags(plain).attributes]
    assert harmful(page) == set()
    assert len(blocks(page)) == 1
    page.encode("utf-8")


def test_hostile_layers_and_owners_are_only_text_in_the_data_too() -> None:
    steps = np.arange(50)
    for attack in ATTACKS:
        series = (
            Series("loss", steps, 1.0 / (1 + steps), owner=attack, name=attack),
            Series("activation_variance", steps, 1.0 + steps, where=attack),
            Series("other", steps, 1.0 + steps, name=attack),
        )
        page = html_page.text([Diagnosis(Run(attack, attack, series), Verdict.HEALTHY)])
        [block] = re.findall(r'<script type="application/json">(.*?)</script>', page, re.S)

        assert not set("<>&'\u2028\u2029") & set(block) and block.isascii()
        [data] = blocks(page)
        assert len(data["layers"]["names"][0]) <= 600
        assert harmful(data["layers"]["names"][0]) == set()


def test_this_check_of_hostile_text_can_fail() -> None:
    assert harmful(HOSTILE)
    with pytest.raises(AssertionError):
        Tags("<p><b>x</p></b>")


def test_a_long_run_of_many_layers_stays_below_two_megabytes() -> None:
    page = html_page.text([long_run(100_000, 200, every=20)])

    assert len(page.encode()) < html_page.MOST_BYTES
    [data] = blocks(page)
    loss = data["tracks"][0]["lines"][0]
    steps, values = points(loss)
    assert values.max() == 97.5 and steps[values.argmax()] == SPIKE
    assert len(data["layers"]["names"]) == 200
    [heat] = [one for one in data["layers"]["maps"] if one["key"] == "grad_norm"]
    high = unpack(heat["high"]).reshape(200, heat["columns"])
    assert high.max() == np.float32(4321.0) and high.max(axis=1).argmax() == 37
    assert "nothing is averaged" in page and "never a mean" in page


def test_a_run_shown_as_it_was_logged_says_nothing_of_thinning() -> None:
    assert "averaged" not in Tags(html_page.text(MUSEUM["a_healthy_run"])).text


def test_several_runs_have_a_table_worst_first_and_a_part_each() -> None:
    page = html_page.text(MUSEUM["several_runs"])
    text = " ".join(Tags(page).text.split())

    assert "3 runs: 1 critical, 1 warning, 1 healthy" in text
    rows = re.findall(r'<td class="name">(.*?)</td>', page)
    assert [re.sub("<.*?>", "", row) for row in rows] == ["b", "c", "a"]
    assert page.count('<details class="run') == 3
    assert page.count(" open>") == 1


def test_hundreds_of_runs_stay_small_and_say_which_are_shown_in_full() -> None:
    sick = Diagnosis(run(spiky(), path="runs/sick"), Verdict.CRITICAL, (SPIKE_FINDING, DEAD))
    many = [Diagnosis(run(path=f"runs/seed-{i:04}"), Verdict.HEALTHY) for i in range(1200)]
    page = html_page.text([*many, sick])

    assert len(page.encode()) < html_page.MOST_BYTES
    assert page.count('<td class="name">') == html_page.ROWS_SHOWN
    assert page.index("sick") < page.index("seed-0000")
    assert f"The worst {html_page.RUNS_IN_FULL} of 1201 runs are shown in full" in page
    assert "201 more runs" in page


def test_large_runs_share_the_room_of_a_page() -> None:
    page = html_page.text([long_run(20_000, 200, every=20, seed=i) for i in range(5)])

    assert len(page.encode()) < html_page.MOST_BYTES
    assert len(blocks(page)) == 5


def test_what_a_gate_says_is_told() -> None:
    page = html_page.text(MUSEUM["several_runs"], gate=Gate(Settings()))

    assert "check: <b>failed</b>" in page
    assert "check:" not in html_page.text(MUSEUM["several_runs"])


def test_a_known_finding_is_called_known() -> None:
    [one] = MUSEUM["a_spike_with_its_symptom"]
    known = tuple(finding.with_(known=True) for finding in one.findings)

    page = html_page.text([Diagnosis(one.run, one.verdict, known)])
    assert page.count(", known</span>") == len(known)


def test_what_a_search_left_out_and_an_interruption_are_told() -> None:
    skipped = [UnreadableLog(where="a.json", what="no series in it looks like a loss")]
    page = html_page.text(MUSEUM["several_runs"], skipped=skipped, unfinished=2)

    assert "a.json: no series in it looks like a loss" in page
    assert "Interrupted: 2 runs not analysed." in page


def test_the_same_runs_give_the_same_page() -> None:
    assert html_page.text(MUSEUM["several_runs"]) == html_page.text(MUSEUM["several_runs"])


def test_a_section_made_elsewhere_stands_after_the_layers() -> None:
    [one] = MUSEUM["a_healthy_run"]
    section = Section("attributions", "Attributions", Markup("<p>{}</p>").format("<i>"))
    page = html_page.text([one], sections={one.run.path: [section]})

    Tags(page)
    assert page.index("run-1-layers") < page.index("run-1-attributions") < page.index("run-1-about")
    assert "<p>&lt;i&gt;</p>" in page


def test_the_colours_of_the_picture_are_those_of_light_pages() -> None:
    [stops] = re.findall(r"--heat: ([^;]*);", assets.read("light.css"))

    assert stops.replace("#", "").split() == list(picture._STOPS)


def test_light_and_dark_have_the_same_tokens() -> None:
    light, dark = (
        set(re.findall(r"(--[\w-]+):", assets.read(name))) for name in ("light.css", "dark.css")
    )
    used = set(re.findall(r"var\((--[\w-]+)", assets.style()))

    assert light == dark
    assert used <= light | {"--sans", "--mono", "--side", "--tone", "--line"}


@pytest.mark.parametrize("theme", ["light.css", "dark.css"])
@pytest.mark.parametrize("name", "ink soft accent critical warning info healthy undecided".split())
def test_text_has_the_contrast_of_level_aa(theme: str, name: str) -> None:
    tokens = dict(re.findall(r"--([\w-]+): (#\w{6});", assets.read(theme)))

    for ground in ("page", "panel"):
        assert _contrast(tokens[name], tokens[ground]) >= 4.5, ground


def _contrast(a: str, b: str) -> float:
    """WCAG 2.2, relative luminance."""

    def light(colour: str) -> float:
        parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
        return sum(w * p for w, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))

    dark, bright = sorted((light(a), light(b)))
    return (bright + 0.05) / (dark + 0.05)


def test_every_part_of_the_page_is_package_data() -> None:
    folder = files("nndiag.reports.html") / "assets"
    there = {one.name for one in folder.iterdir()}

    styles = ("style.css", "attributions.css", "light.css", "dark.css")
    assert there == {*assets.SCRIPTS, *assets.TEMPLATES, *styles}
    assert Path(str(folder)).is_relative_to(Path(html_page.__file__).parent)  # so in the wheel
    assert "</script" not in assets.script() and "</style" not in assets.style()
