"""Captured batches on disk are whole or not there, and the training does not mind either way."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from nndiag.adapters.base import Capture, NamedTensor
from nndiag.journal import tensors
from nndiag.journal.tensor_reader import read_tensors
from nndiag.watcher import capture_files


def tensor(name: str, numbers: bytes) -> NamedTensor:
    return NamedTensor(name, "U8", (len(numbers),), lambda: memoryview(numbers))


def capture(name: str) -> Capture:
    return Capture(name, {"step": 3}, [tensor("input/0", b"abc")], [tensor("weight", b"xyz")])


def test_a_capture_is_a_private_folder_and_replaces_another(tmp_path: Path) -> None:
    capture_files.write(str(tmp_path), capture("step-3"))
    capture_files.write(str(tmp_path), capture("step-9"), replaces="step-3")

    folder = tmp_path / "captures"
    assert [path.name for path in folder.iterdir()] == ["step-9"]
    assert {path.name for path in (folder / "step-9").iterdir()} == {
        "capture.json", "batch.safetensors", "weights.safetensors",
    }  # fmt: skip
    assert folder.stat().st_mode & 0o777 == 0o700
    stored = read_tensors(folder / "step-9" / "weights.safetensors")
    assert bytes(stored["weight"].content) == b"xyz"


@pytest.mark.parametrize("call", range(4))
def test_what_cannot_be_written_whole_is_not_there(
    call: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Header and numbers of two files: any of the four writes may meet a full disk."""
    real, calls = os.write, []

    def full(file: int, content: bytes) -> int:
        calls.append(file)
        if len(calls) > call:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(file, content)

    monkeypatch.setattr(tensors, "_write", full)
    with pytest.raises(OSError, match="No space"):
        capture_files.write(str(tmp_path), capture("step-3"))

    assert len(calls) == call + 1
    assert list((tmp_path / "captures").iterdir()) == []


def test_a_short_write_is_gone_on_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.write
    monkeypatch.setattr(tensors, "_write", lambda file, content: real(file, content[:5]))
    numbers = bytes(range(200))

    tensors.write_tensors(str(tmp_path / "x"), [tensor("t", numbers)])

    assert bytes(read_tensors(tmp_path / "x")["t"].content) == numbers


def test_a_link_in_place_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "captures").symlink_to(tmp_path / "elsewhere")

    with pytest.raises(OSError, match="symbolic link"):
        capture_files.write(str(tmp_path), capture("step-3"))

    assert list((tmp_path / "elsewhere").iterdir()) == []
