"""Tensor files: what the safetensors library writes we read, and the other way round."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from nndiag.errors import UnreadableLog
from nndiag.journal.tensor_reader import read_tensors
from nndiag.journal.tensors import ITEM_BYTES, write_tensors

NUMPY = {
    "F64": "f8", "F32": "f4", "F16": "f2", "I64": "i8", "I32": "i4", "I16": "i2", "I8": "i1",
    "U8": "u1", "BOOL": "?",
}  # fmt: skip


@dataclass(frozen=True)
class Written:
    name: str
    dtype: str
    array: np.ndarray

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    def content(self) -> memoryview:
        return memoryview(self.array.tobytes())


@st.composite
def tensors(draw: st.DrawFn) -> list[Written]:
    names = draw(st.lists(st.text(max_size=12), unique=True, max_size=5))
    found = []
    for name in names:
        if name == "__metadata__":
            continue
        dtype = draw(st.sampled_from(sorted(NUMPY)))
        shape = tuple(draw(st.lists(st.integers(0, 4), max_size=4)))
        size = int(np.prod(shape)) * np.dtype(NUMPY[dtype]).itemsize
        raw = np.frombuffer(draw(st.binary(min_size=size, max_size=size)), "u1")
        if dtype == "BOOL":
            raw = raw & 1
        found.append(Written(name, dtype, raw.view(NUMPY[dtype]).reshape(shape)))
    return found


ANY_FOLDER = settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


@ANY_FOLDER
@given(tensors())
def test_the_safetensors_library_reads_what_we_write(tmp_path: Path, given: list[Written]):
    safetensors = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "ours"
    path.unlink(missing_ok=True)

    size = write_tensors(str(path), given, {"made": "here"})

    assert size == path.stat().st_size
    assert path.stat().st_mode & 0o777 == 0o600
    theirs = safetensors.load_file(path)
    assert set(theirs) == {one.name for one in given}
    for one in given:
        assert theirs[one.name].shape == one.shape
        assert theirs[one.name].tobytes() == one.array.tobytes()


@ANY_FOLDER
@given(tensors())
def test_we_read_what_the_safetensors_library_writes(tmp_path: Path, given: list[Written]):
    safetensors = pytest.importorskip("safetensors.numpy")
    path = tmp_path / "theirs"
    safetensors.save_file({one.name: one.array for one in given}, path, {"made": "there"})

    found = read_tensors(path)

    assert set(found) == {one.name for one in given}
    for one in given:
        assert found[one.name].dtype == one.dtype
        assert found[one.name].array().shape == one.shape
        assert found[one.name].array().tobytes() == one.array.tobytes()


def test_bfloat16_is_read_as_the_library_has_it(tmp_path: Path):
    torch = pytest.importorskip("torch")
    safetensors = pytest.importorskip("safetensors.torch")
    values = torch.randn(3, 5).bfloat16()
    safetensors.save_file({"x": values}, tmp_path / "half")

    [found] = read_tensors(tmp_path / "half").values()

    assert found.dtype == "BF16"
    assert np.array_equal(found.array(), values.float().numpy())


def file_of(header: object, numbers: bytes = b"", length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + numbers


def entry(dtype: object = "F32", shape: object = (2,), place: object = (0, 8)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": place}


EIGHT = b"\0" * 8
DAMAGED = {
    "nothing": b"",
    "too short": b"\0" * 7,
    "a huge length": file_of({"a": entry()}, EIGHT, 2**64 - 1),
    "a length beyond the file": file_of({"a": entry()}, EIGHT, 1000),
    "a length into the header": file_of({"a": entry()}, EIGHT, 20),
    "no JSON": file_of(b"\x80\x04K\x01.", EIGHT),  # a pickle
    "deep JSON": file_of(b"[" * 200_000),
    "deep JSON in an entry": file_of(b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"),
    "a list": file_of([entry()], EIGHT),
    "an entry that is none": file_of({"a": 3}, EIGHT),
    "an unknown type": file_of({"a": entry("F8")}, EIGHT),
    "a type that is a list": file_of({"a": entry(["F32"])}, EIGHT),
    "a type that is an object": file_of({"a": entry({"F32": 1})}, EIGHT),
    "a negative shape": file_of({"a": entry(shape=(-2,))}, EIGHT),
    "a shape of floats": file_of({"a": entry(shape=(2.0,))}, EIGHT),
    "a shape of booleans": file_of({"a": entry("U8", (True,), (0, 1))}, b"\0"),
    "a shape of the largest numbers": file_of({"a": entry(shape=(2**47,) * 5000)}, EIGHT),
    "an empty tensor of the largest shape": file_of({"a": entry("U8", (0, 2**47, 2**47), (0, 0))}),
    "many dimensions": file_of({"a": entry("U8", (1,) * 65, (0, 1))}, b"\0"),
    "a shape that is too small": file_of({"a": entry(shape=(1,))}, EIGHT),
    "negative offsets": file_of({"a": entry(place=(-8, 0))}, EIGHT),
    "offsets the wrong way round": file_of({"a": entry(place=(8, 0))}, EIGHT),
    "offsets beyond the file": file_of({"a": entry(place=(8, 16))}, EIGHT),
    "one offset": file_of({"a": entry(place=(0,))}, EIGHT),
    "shared bytes": file_of({"a": entry(), "b": entry()}, EIGHT),
    "bytes of none": file_of({"a": entry()}, EIGHT + b"\0"),
    "a gap": file_of({"a": entry(place=(4, 12))}, EIGHT + EIGHT),
    "cut": file_of({"a": entry()}, EIGHT[:5]),
    "NaN for an offset": file_of({"a": entry(place=(float("nan"), 8))}, EIGHT),
    "a number of many digits": file_of(b'{"a":' + b"9" * 10_000 + b"}"),
    "UTF-16": file_of(json.dumps({"a": entry()}).encode("utf-16"), EIGHT),
}  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_what_cannot_be_is_unreadable(tmp_path: Path, content: bytes):
    path = tmp_path / "damaged"
    path.write_bytes(content)

    try:
        found = read_tensors(path)
    except UnreadableLog as error:
        assert str(path) in error.where
    else:  # the same text in another encoding is as good
        assert content[8:10] == b"\xff\xfe" and list(found) == ["a"]


def test_every_cut_and_every_flipped_bit_is_read_or_unreadable(tmp_path: Path):
    path = tmp_path / "damaged"
    write_tensors(
        str(path),
        [
            Written("a", "F32", np.arange(6, dtype="f4").reshape(2, 3)),
            Written("b", "BOOL", np.array([True, False, True])),
            Written("c", "I64", np.zeros((0, 2), "i8")),
        ],
    )
    whole = path.read_bytes()
    damaged = [whole[:end] for end in range(len(whole))]
    for place in range(len(whole)):
        for bit in range(8):
            copy = bytearray(whole)
            copy[place] ^= 1 << bit
            damaged.append(bytes(copy))
    readable = 0
    for content in damaged:
        path.write_bytes(content)
        try:
            for tensor in read_tensors(path).values():
                assert tensor.array().nbytes <= 4 * len(whole)
            readable += 1
        except UnreadableLog:
            pass

    assert 0 < readable < len(damaged)


def test_links_pipes_and_folders_are_not_opened(tmp_path: Path):
    real = tmp_path / "real"
    write_tensors(str(real), [])
    (tmp_path / "link").symlink_to(real)
    os.mkfifo(tmp_path / "pipe")

    assert read_tensors(real) == {}
    for name in ("link", "pipe", ".", "missing"):
        with pytest.raises(UnreadableLog):
            read_tensors(tmp_path / name)


def test_a_large_file_with_nothing_in_it_costs_no_memory(tmp_path: Path):
    with open(tmp_path / "hollow", "wb") as file:
        file.write(struct.pack("<Q", 100))
        file.truncate(1 << 33)

    with pytest.raises(UnreadableLog, match="nothing written"):
        read_tensors(tmp_path / "hollow")


def test_a_file_of_ours_is_never_written_over(tmp_path: Path):
    write_tensors(str(tmp_path / "one"), [])

    with pytest.raises(FileExistsError):
        write_tensors(str(tmp_path / "one"), [])


def test_a_tensor_that_cannot_be_fetched_leaves_no_file(tmp_path: Path):
    class Broken(Written):
        def content(self) -> memoryview:
            raise OSError("no such device")

    with pytest.raises(OSError, match="no such device"):
        write_tensors(str(tmp_path / "one"), [Broken("a", "F32", np.zeros(2, "f4"))])

    assert not (tmp_path / "one").exists()


def test_every_kind_of_number_is_known_to_both_sides():
    assert {*NUMPY, "BF16"} == set(ITEM_BYTES)
