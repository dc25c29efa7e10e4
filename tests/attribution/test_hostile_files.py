"""Captures and attributions that somebody else wrote, or that were damaged: read, or unreadable.

Never another exception, nothing executed, no more memory than the file is worth.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import random
import resource
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("captum")

import torch

from nndiag.attribution.attribute import Request
from nndiag.attribution.captured import put_together, read_capture
from nndiag.attribution.model_call import CannotAttribute
from nndiag.attribution.run import Batches, attribute_all
from nndiag.errors import UnreadableLog
from nndiag.readers.attributions import read_attribution
from nndiag.reports import attribution, attribution_json
from tests.attribution import trainings as t
from tests.attribution.trainings import trained

JUNK: list[Any] = [
    None, True, -1, 0, 2**70, 1.5, "x", "NaN", [], {}, [[]], [None], [["a", 1]], {"a": 1},
    "\x1b[2J", ["\ud800"], {"tensor": []}, {"tensor": {}}, [{}], float("nan"), "../../etc/passwd",
]  # fmt: skip


@pytest.fixture(scope="module")
def rank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rank directory with two captures, and the attributions of both."""
    folder = tmp_path_factory.mktemp("run") / "rank-0"
    folder.mkdir()
    known = trained("lstm words")
    for why in ("spike", "end"):
        t.capture(folder, known.model, known.loss_of, why=why)
    written = attribute_all(known.model, Batches(str(folder), Request(samples=2)))
    assert len(written) == 2
    return folder


def every_place(told: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Paths to all values of a JSON document."""
    inner = (
        told.items()
        if isinstance(told, dict)
        else enumerate(told)
        if isinstance(told, list)
        else ()
    )
    return [path, *(found for key, one in inner for found in every_place(one, (*path, key)))]


def changed(told: Any, path: tuple[Any, ...], value: Any) -> Any:
    if not path:
        return value
    copy = dict(told) if isinstance(told, dict) else list(told)
    copy[path[0]] = changed(told[path[0]], path[1:], value)
    return copy


def flipped(content: bytes, chance: random.Random) -> bytes:
    copy = bytearray(content)
    for _ in range(chance.randint(1, 3)):
        copy[chance.randrange(len(copy))] ^= 1 << chance.randrange(8)
    return bytes(copy)


def use_capture(folder: Path) -> None:
    """Read it, and have it attributed: what is written in it decides which code runs."""
    captured = read_capture(str(folder))
    weights = captured.weights()
    with contextlib.suppress(CannotAttribute):
        t.ask(trained("lstm words").model, captured, "saliency", weights, samples=1)


def use_attribution(path: Path) -> None:
    found = read_attribution(str(path))
    attribution.report([found])
    attribution_json.text([found])


def survives(use: Callable[[Path], None], path: Path) -> bool:
    try:
        use(path)
    except UnreadableLog:
        return False
    return True


def test_any_value_in_a_capture_may_be_junk(rank: Path, tmp_path: Path):
    whole = json.loads((rank / "captures" / "step-7" / "capture.json").read_text())
    folder = tmp_path / "step-7"
    shutil.copytree(rank / "captures" / "step-7", folder)
    chance, survived = random.Random(0), 0
    cases = [(path, junk) for path in every_place(whole) for junk in JUNK]
    for path, junk in chance.sample(cases, 250):
        (folder / "capture.json").write_text(json.dumps(changed(whole, path, junk)))
        survived += survives(use_capture, folder)

    assert 0 < survived < 250


def test_any_value_in_an_attribution_may_be_junk(rank: Path, tmp_path: Path):
    [path] = (rank / "attributions").glob("step-7*.json")
    whole = json.loads(path.read_text())
    copy = tmp_path / path.name
    shutil.copy(path.with_suffix(".safetensors"), copy.with_suffix(".safetensors"))
    survived = 0
    cases = [(place, junk) for place in every_place(whole) for junk in JUNK]
    for place, junk in random.Random(0).sample(cases, 300):
        copy.write_text(json.dumps(changed(whole, place, junk)))
        survived += survives(use_attribution, copy)

    assert 0 < survived < 300


@pytest.mark.parametrize("name", ["capture.json", "batch.safetensors", "weights.safetensors"])
def test_a_damaged_file_of_a_capture_is_read_or_unreadable(rank: Path, tmp_path: Path, name: str):
    folder = tmp_path / "step-7"
    shutil.copytree(rank / "captures" / "step-7", folder)
    whole, chance, survived = (folder / name).read_bytes(), random.Random(1), 0
    header = whole[: 8 + int.from_bytes(whole[:8], "little")] if "json" not in name else whole
    for _ in range(60):
        damaged = flipped(header, chance) + whole[len(header) :]
        (folder / name).write_bytes(
            damaged if chance.random() < 0.8 else damaged[: -chance.randint(1, 99)]
        )
        survived += survives(use_capture, folder)

    assert survived < 60


@pytest.mark.parametrize("ending", [".json", ".safetensors"])
def test_a_damaged_attribution_is_read_or_unreadable(rank: Path, tmp_path: Path, ending: str):
    [path] = (rank / "attributions").glob("step-7*.json")
    copy = tmp_path / path.name
    for one in (path, path.with_suffix(".safetensors")):
        shutil.copy(one, tmp_path / one.name)
    damaged = copy.with_suffix(ending)
    whole, chance = damaged.read_bytes(), random.Random(2)
    for _ in range(200):
        damaged.write_bytes(flipped(whole, chance))
        survives(use_attribution, copy)


def test_numbers_that_are_all_nan_are_told(rank: Path, tmp_path: Path):
    [path] = (rank / "attributions").glob("end*.json")
    copy = tmp_path / path.name
    shutil.copy(path, copy)
    whole = path.with_suffix(".safetensors").read_bytes()
    begin = 8 + int.from_bytes(whole[:8], "little")
    copy.with_suffix(".safetensors").write_bytes(whole[:begin] + b"\xff" * (len(whole) - begin))

    use_attribution(copy)


def test_links_and_pipes_in_place_of_captures(rank: Path, tmp_path: Path):
    captures = tmp_path / "captures"
    captures.mkdir()
    (captures / "step-1").symlink_to(rank / "captures" / "step-7")
    (captures / "step-2").mkdir()
    os.mkfifo(captures / "step-2" / "capture.json")
    shutil.copytree(rank / "captures" / "step-7", captures / "step-3")
    (captures / "step-3" / "batch.safetensors").unlink()
    (captures / "step-3" / "batch.safetensors").symlink_to(
        rank / "captures" / "step-7" / "batch.safetensors"
    )
    os.mkfifo(captures / "step-4")
    said: list[str] = []

    written = attribute_all(
        trained("lstm words").model, Batches(str(tmp_path), Request()), said.append
    )

    assert written == []
    assert sum(text.startswith("left out") for text in said) == 4


def test_a_deep_description_of_the_call_is_unreadable():
    deep: Any = {"value": 1}
    for _ in range(30):
        deep = {"list": [deep]}

    with pytest.raises(UnreadableLog):
        put_together(deep, {})


@pytest.mark.parametrize(
    "described",
    [{"call": "os.system"}, {"tensor": "missing"}, {"value": [1]}, {"dict": [[1, {"value": 1}]]},
     {"dict": [["a"]]}, {"tuple": 3}, {}, {"tensor": "0", "value": 1}, [], "x"],
)  # fmt: skip
def test_another_form_of_the_call_is_unreadable(described: Any):
    with pytest.raises(UnreadableLog):
        put_together(described, {"0": torch.zeros(1)})


def test_hostile_files_take_no_memory_to_speak_of(tmp_path: Path):
    """200,000 names in the header, and a JSON of nothing but brackets."""
    names = {
        f"input/{i}": {"dtype": "F32", "shape": [0], "data_offsets": [0, 0]} for i in range(70_000)
    }
    text = json.dumps(names).encode()
    folder = tmp_path / "step-1"
    folder.mkdir()
    (folder / "batch.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    (folder / "capture.json").write_bytes(
        b'{"schema": "nndiag.capture/1", "x": [' + b"[]," * 2_000_000 + b"0]}"
    )
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(UnreadableLog):
        read_capture(str(folder))

    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400_000  # KiB


NO_NUMBERS = {
    "a map of nothing": ("image", [1, 0, 20_000, 20_000]),
    "units of nothing": ("units", [1, 0, 20_000, 20_000]),
    "elements of nothing": ("elements", [1, 0, 2**40, 64]),
    "a table of nothing": ("tabular", [1, 0, 2**40, 64]),
    "losses of nothing": ("losses", [0]),
    "a map of lines": ("image", [1, 1, 1, (1 << 24) + 1]),
}


@pytest.mark.parametrize(("kind", "shape"), NO_NUMBERS.values(), ids=NO_NUMBERS)
def test_a_shape_that_costs_the_file_nothing_costs_the_reader_nothing(
    tmp_path: Path, kind: str, shape: list[int]
):
    is_input = kind in ("image", "tabular")
    names = ["values/0", "attributions/0"] if is_input else [kind]
    size = 4 * math.prod(shape)
    entries = {
        name: {"dtype": "F32", "shape": shape, "data_offsets": [i * size, (i + 1) * size]}
        for i, name in enumerate(names)
    }
    header = json.dumps(entries).encode()
    with open(tmp_path / "x.safetensors", "wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size * len(names))  # a file with a hole
    inputs = [{"name": "0", "kind": kind}] if is_input else []
    told = {"schema": "nndiag.attribution/1", "samples": [{"row": 0}], "inputs": inputs}
    (tmp_path / "x.json").write_text(json.dumps(told))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    with pytest.raises(UnreadableLog):
        use_attribution(tmp_path / "x.json")

    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # KiB
