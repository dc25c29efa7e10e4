"""The file of a baseline: small, stable, readable, and never believed blindly."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from nndiag.baseline import contents, document
from nndiag.errors import BadUsage
from nndiag.records import Diagnosis, Finding, Severity, Verdict
from tests import synthetic

SPIKE = Finding("loss-spike", Severity.WARNING, 0.9, "a spike", 10, 20, series="loss")
DEAD = Finding("dead-relu", Severity.CRITICAL, 0.9, "dead", layers=("net.3", "net.5"), owner="G")


def runs(*seeds: int) -> list[Diagnosis]:
    return [
        Diagnosis(synthetic.run("healthy", seed=seed), Verdict.WARNING, (SPIKE, DEAD))
        for seed in seeds
    ]


BASE = contents.learn(runs(1, 2, 3))


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    document.write(BASE, tmp_path / "base.json")
    back = document.read(tmp_path / "base.json")

    assert (back.runs, back.findings) == (BASE.runs, BASE.findings)
    for one, other in zip(BASE.curves, back.curves, strict=True):
        assert (one.metric, one.label, one.first, one.last) == (
            other.metric,
            other.label,
            other.first,
            other.last,
        )
        np.testing.assert_allclose(one.levels, other.levels, rtol=1e-5)
    assert document.text(back) == document.text(BASE)


def test_the_order_of_the_paths_does_not_show() -> None:
    assert document.text(contents.learn(runs(3, 1, 2))) == document.text(BASE)


def test_it_is_small_and_has_a_line_for_each_run_of_a_curve() -> None:
    text = document.text(BASE)

    assert len(text) < 4000
    assert json.loads(text)["schema"] == "nndiag.baseline/1"
    assert max(map(len, text.splitlines())) < 300


def test_a_run_without_a_level_is_null_in_the_file(tmp_path: Path) -> None:
    levels = BASE.curves[0].levels.copy()
    levels[1, 3] = np.nan
    holed = contents.Baseline(1, (), (type(BASE.curves[0])(*_fields(BASE.curves[0], levels)),))
    document.write(holed, tmp_path / "base.json")

    assert "null" in (tmp_path / "base.json").read_text()
    assert np.isnan(document.read(tmp_path / "base.json").curves[0].levels[1, 3])


def _fields(curve: object, levels: np.ndarray) -> list[object]:
    values = {name: getattr(curve, name) for name in curve.__slots__}  # type: ignore[attr-defined]
    return list({**values, "levels": levels}.values())


def broken(**changes: object) -> str:
    return json.dumps({**json.loads(document.text(BASE)), **changes})


GOOD = json.loads(document.text(BASE))
WRONG = {
    "no JSON": ("{", "is not JSON"),
    "not an object": ("[1, 2]", "is not a baseline"),
    "some other JSON": ('{"loss": [1, 2]}', "is not a baseline"),
    "another of our formats": ('{"schema": "nndiag.report/1"}', "is not a baseline"),
    "a newer one": ('{"schema": "nndiag.baseline/2"}', "this nndiag reads nndiag.baseline/1"),
    "no runs": (broken(runs="five"), "runs is not a whole number"),
    "findings that are none": (broken(findings=[1]), r"findings[0] is not an object"),
    "a severity that does not exist": (
        broken(findings=[{**GOOD["findings"][0], "severity": "mild"}]),
        "no severity 'mild'",
    ),
    "curves that are none": (broken(curves={}), "curves is not a list"),
    "rows of different length": (
        broken(curves=[{**GOOD["curves"][0], "levels": [[1.0, 2.0], [1.0]]}]),
        "different length",
    ),
    "levels that are text": (
        broken(curves=[{**GOOD["curves"][0], "levels": [["a"]]}]),
        "levels holds 'a'",
    ),
    "a curve that goes back": (
        broken(curves=[{**GOOD["curves"][0], "first": 900, "last": 3}]),
        "no curve goes from step 900 to step 3",
    ),
}


@pytest.mark.parametrize(("text", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_file_is_one_clear_error(text: str, says: str, tmp_path: Path) -> None:
    path = tmp_path / "base.json"
    path.write_text(text)

    with pytest.raises(BadUsage) as caught:
        document.read(path)
    assert str(path) in caught.value.where and says in caught.value.what
    assert "--write-baseline" in caught.value.do


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(BadUsage, match="No such file"):
        document.read(tmp_path / "none.json")
    with pytest.raises(BadUsage, match="Is a directory"):
        document.read(tmp_path)
    with pytest.raises(BadUsage, match="cannot be written"):
        document.write(BASE, tmp_path / "no" / "base.json")
