"""Files that are whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from nndiag.errors import BadUsage
from nndiag.exports.files import new_file, new_folder, open_new


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def write(target: Path, text: bytes = b"new", force: bool = False) -> None:
    with new_file(target, force=force) as file:
        file.write(text)


def fill(target: Path, *, force: bool = False, **files: bytes) -> None:
    with new_folder(target, force=force) as folder:
        for name, text in files.items():
            with open_new(folder / name) as file:
                file.write(text)


def test_a_new_file_and_its_folders_are_made(tmp_path):
    write(tmp_path / "a" / "b" / "steps.csv")

    assert (tmp_path / "a" / "b" / "steps.csv").read_bytes() == b"new"
    assert names(tmp_path / "a" / "b") == ["steps.csv"]


def test_what_is_there_stays_without_force(tmp_path):
    (tmp_path / "x").write_bytes(b"old")
    with pytest.raises(BadUsage, match="there already") as refused:
        write(tmp_path / "x")
    with pytest.raises(BadUsage, match="there already"):
        fill(tmp_path / "x", a=b"1")

    assert "--force" in refused.value.do
    assert (tmp_path / "x").read_bytes() == b"old" and names(tmp_path) == ["x"]
    write(tmp_path / "x", force=True)
    assert (tmp_path / "x").read_bytes() == b"new"


def test_who_was_faster_meanwhile_wins(tmp_path):
    with pytest.raises(BadUsage, match="meanwhile"), new_file(tmp_path / "x", force=False) as file:
        file.write(b"ours")
        (tmp_path / "x").write_bytes(b"theirs")

    assert (tmp_path / "x").read_bytes() == b"theirs" and names(tmp_path) == ["x"]


@pytest.mark.parametrize("force", [False, True])
def test_no_link_is_followed(tmp_path, force):
    (tmp_path / "victim").write_bytes(b"old")
    (tmp_path / "folder").mkdir()
    os.symlink(tmp_path / "victim", tmp_path / "link")
    os.symlink(tmp_path / "folder", tmp_path / "folder-link")

    with pytest.raises(BadUsage):
        write(tmp_path / "link", force=force)
    with pytest.raises(BadUsage):
        fill(tmp_path / "folder-link", force=force, a=b"1")

    assert (tmp_path / "victim").read_bytes() == b"old" and names(tmp_path / "folder") == []


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_what_was_interrupted_leaves_nothing(tmp_path, error):
    with pytest.raises(error), new_file(tmp_path / "x", force=False) as file:
        file.write(b"half")
        raise error
    with pytest.raises(error), new_folder(tmp_path / "y", force=False) as folder:
        (folder / "half").touch()
        raise error

    assert names(tmp_path) == []


def test_a_folder_that_is_there_is_filled_by_force_and_keeps_the_rest(tmp_path):
    fill(tmp_path / "out", **{"steps.csv": b"1", "layers.csv": b"2"})
    (tmp_path / "out" / "mine").write_bytes(b"mine")

    fill(tmp_path / "out", force=True, **{"steps.csv": b"3"})

    assert names(tmp_path / "out") == ["layers.csv", "mine", "steps.csv"]
    assert (tmp_path / "out" / "steps.csv").read_bytes() == b"3"


def test_a_file_is_no_folder_and_a_folder_no_file(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()

    with pytest.raises(BadUsage, match="is a file"):
        fill(tmp_path / "file", force=True, a=b"1")
    with pytest.raises(BadUsage, match="is a folder"):
        write(tmp_path / "folder", force=True)


def test_a_place_that_cannot_be_written_is_an_error_with_advice(tmp_path):
    (tmp_path / "file").touch()

    with pytest.raises(BadUsage, match="cannot be written") as refused:
        write(tmp_path / "file" / "x")
    assert "-o PATH" in refused.value.do
