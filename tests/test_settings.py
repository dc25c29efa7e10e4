from __future__ import annotations

from pathlib import Path

import pytest

from nndiag.errors import BadUsage
from nndiag.settings import Settings, load_settings


def write(folder: Path, text: str, name: str = "pyproject.toml") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_without_a_file_every_finding_is_wanted(tmp_path: Path) -> None:
    settings = load_settings(start=tmp_path)

    assert settings == Settings()


def test_the_nearest_file_upward_counts_and_nndiag_toml_comes_first(tmp_path: Path) -> None:
    below = tmp_path / "a" / "b"
    below.mkdir(parents=True)
    write(tmp_path, '[tool.nndiag]\nignore = ["converged"]')
    assert load_settings(start=below).ignore == ("converged",)

    write(tmp_path / "a", '[tool.nndiag]\nignore = ["dead-relu"]')
    assert load_settings(start=below).ignore == ("dead-relu",)

    path = write(tmp_path / "a", 'select = ["loss-spike"]', "nndiag.toml")
    settings = load_settings(start=below)
    assert (settings.select, settings.ignore, settings.source) == (("loss-spike",), (), str(path))


def test_a_file_that_does_not_speak_of_us_is_passed_over_even_when_broken(tmp_path: Path) -> None:
    below = tmp_path / "below"
    below.mkdir()
    write(below, "[project\nbroken")
    write(tmp_path, '[tool.nndiag]\nfail-on = "critical, dead-relu"')

    assert load_settings(start=below).fail_on == ("critical", "dead-relu")


def test_thresholds_reach_the_settings(tmp_path: Path) -> None:
    write(tmp_path, "[tool.nndiag.thresholds.dead-relu]\nlimit = 1\nsettled = 7")

    assert load_settings(start=tmp_path).thresholds == {"dead-relu": {"limit": 1, "settled": 7}}


def test_a_named_file_is_read_whatever_its_name(tmp_path: Path) -> None:
    path = write(tmp_path, 'ignore = ["converged"]', "other.toml")

    assert load_settings(path).ignore == ("converged",)


def test_options_take_the_place_of_the_file() -> None:
    settings = Settings(select=("loss-spike",), ignore=("converged",))
    changed = settings.with_options(select="dead-relu, converged")

    assert (changed.select, changed.ignore) == (("dead-relu", "converged"), ("converged",))
    assert settings.with_options() == settings


def test_a_gate_fails_by_severity_or_by_name() -> None:
    settings = Settings(fail_on=("critical", "dead-relu"))

    assert settings.fails("dead-relu", "info")
    assert settings.fails("loss-spike", "critical")
    assert not settings.fails("loss-spike", "warning")
    assert Settings().fails("loss-spike", "warning")
    assert not Settings(fail_on=()).fails("loss-spike", "critical")


REFUSED = {
    "selekt = []": ("no setting named 'selekt'", "did you mean select?"),
    "x = []": ("no setting named 'x'", "one of: fail-on, ignore, select"),
    "select = 3": ("must be a list of names", ""),
    "ignore = [3]": ("must be a list of names", ""),
    "thresholds = 1": ("must hold a table", ""),
    "[thresholds]\ndead-relu = 1": ("must be a table", ""),
    "select = [": ("is not valid TOML", ""),
}


@pytest.mark.parametrize(("text", "told"), REFUSED.items())
def test_a_mistake_is_told_with_its_place(text: str, told: tuple[str, str], tmp_path: Path) -> None:
    path = write(tmp_path, text, "nndiag.toml")

    with pytest.raises(BadUsage) as error:
        load_settings(start=tmp_path)
    assert error.value.where.startswith(str(path))
    assert told[0] in error.value.what
    assert told[1] in error.value.do


def test_a_missing_or_unreadable_file_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(BadUsage, match="cannot be read"):
        load_settings(tmp_path / "missing.toml")
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(BadUsage, match="not UTF-8"):
        load_settings(tmp_path / "binary.toml")
