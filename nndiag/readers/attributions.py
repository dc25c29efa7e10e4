"""Attributions of a run directory, as `nndiag watch --attribute` and `nndiag attribute` left them.

Neither torch nor captum is needed to read them, and nothing in them is executed.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from nndiag.errors import UnreadableLog
from nndiag.journal.format import ATTRIBUTION_SCHEMA, ATTRIBUTIONS_FOLDER
from nndiag.journal.reader import open_run, read_object
from nndiag.journal.tensor_reader import StoredTensor, read_tensors
from nndiag.readers.run_series import number
from nndiag.readers.run_structure import items, objects, text, whole
from nndiag.records import AttributedInput, AttributedSample, Attribution, OddInput
from nndiag.vocabulary.methods import NOT_KEPT

MOST_ODD = 20  # odd inputs, and dimensions of one
MOST = 200  # of one run
LONGEST = 500  # characters of a text
MOST_POSITIONS = 1 << 24  # of the map of an image: reports go over all of them
JSON_BYTES, TENSOR_BYTES = 8 << 20, 1 << 30  # of one attribution
KINDS = ("image", "tabular", "sequence", "tokens", "ids")

JsonObject = Mapping[str, Any]


def attributions_of(run: str) -> tuple[list[Attribution], list[UnreadableLog]]:
    """Every attribution in a run directory, by step, and what could not be read of them.

    Raises `UnreadableLog` where `run` is no run directory.
    """
    found: list[Attribution] = []
    errors: list[UnreadableLog] = []
    for path in _files(run):
        try:
            found.append(read_attribution(path))
        except UnreadableLog as error:
            errors.append(error)
    found.sort(key=lambda one: (one.why == "end", one.step, one.path))
    return found, errors


def read_attribution(path: str) -> Attribution:
    """One of them, from the path of its JSON. Raises `UnreadableLog`."""
    told = read_object(path, ATTRIBUTION_SCHEMA, most=JSON_BYTES)
    stored = read_tensors(f"{path.removesuffix('.json')}.safetensors", most=TENSOR_BYTES)
    samples = tuple(map(_sample, objects(told, "samples")))
    inputs = tuple(_input(one, stored, len(samples), path) for one in objects(told, "inputs"))
    return Attribution(
        path=path,
        step=whole(told, "step"),
        why=_text(told, "why"),
        model=_text(told, "model"),
        method=_text(told, "method"),
        of=_text(told, "of"),
        layer=_text(told, "layer"),
        inputs=inputs,
        units=_of_samples(stored.get("units"), len(samples), path),
        samples=samples,
        batch=_losses(stored.get("losses"), path),
        elements=_of_samples(stored.get("elements"), len(samples), path),
        batch_size=whole(told, "batch_size"),
        loss=_float(told, "loss"),
        before=_float(told, "before"),
        odd=tuple(filter(None, map(_odd, objects(told, "odd_inputs"))))[:MOST_ODD],
        differs_at_rest=told.get("differs_at_rest") is True,
        rank=_rank(path),
        relative_delta=number(told.get("relative_delta")),
        steps=whole(told, "integral_steps"),
        seconds=_float(told, "seconds"),
        notes=tuple(n[:LONGEST] for n in items(told, "notes") if isinstance(n, str))[:20],
        failed=_text(told, "failed"),
        do=_text(told, "do"),
        owner=_text(told, "owner"),
    )


def kept_nothing_because(run: str) -> str:
    """Why a batch of a run could not be kept, as the run noted it; "" where nothing is known.

    Raises `UnreadableLog` where `run` is no run directory.
    """
    for rank in open_run(run).ranks:
        try:
            events, _ = rank.events()
        except UnreadableLog:
            continue
        for event in events:
            told = text(event, "text") if event.get("event") == "note" else ""
            begin = next((one for one in NOT_KEPT if told.startswith(one)), "")
            if begin:
                return told.removeprefix(begin)[:LONGEST]
    return ""


def _files(run: str) -> list[str]:
    """The JSON files, in no order."""
    paths = []
    for rank in open_run(run).ranks:
        folder = os.path.join(rank.path, ATTRIBUTIONS_FOLDER)
        try:
            names = sorted(os.listdir(folder))
        except OSError:
            continue
        paths += [os.path.join(folder, name) for name in names if name.endswith(".json")]
    return [path for path in paths if not os.path.basename(path).startswith(".")][:MOST]


def _input(
    told: JsonObject, stored: Mapping[str, StoredTensor], samples: int, path: str
) -> AttributedInput:
    name = _text(told, "name")
    values = stored.get(f"values/{name}")
    kind = text(told, "kind")
    if values is None or kind not in KINDS:
        raise UnreadableLog(where=path, what=f"the input {name[:40]} is not there")
    array = _array(values, path)
    found = _floats(stored.get(f"attributions/{name}"), path)
    baseline = _floats(stored.get(f"baseline/{name}"), path)
    fits = array.shape[:1] == (samples,) and array.ndim >= (3 if kind == "image" else 1)
    fits = fits and (found is None or found.shape == array.shape)
    fits = fits and (kind != "image" or prod(array.shape[-2:]) <= MOST_POSITIONS)
    if not fits or (baseline is not None and baseline.shape != array.shape[1:]):
        raise UnreadableLog(where=path, what=f"the input {name[:40]} has another shape")
    return AttributedInput(name, kind, array, found, baseline)


def _of_samples(stored: StoredTensor | None, samples: int, path: str) -> np.ndarray | None:
    """(S, U, ...) of the units of a layer."""
    array = _floats(stored, path)
    if array is not None and (array.ndim < 2 or array.shape[0] != samples):
        raise UnreadableLog(where=path, what="its units do not fit its samples")
    return array


def _losses(stored: StoredTensor | None, path: str) -> np.ndarray | None:
    array = _floats(stored, path)
    if array is not None and array.ndim != 1:
        raise UnreadableLog(where=path, what="the losses of its batch are not one for each sample")
    return array


def _floats(stored: StoredTensor | None, path: str) -> np.ndarray | None:
    if stored is None:
        return None
    array = _array(stored, path)
    if array.dtype.kind != "f":
        raise UnreadableLog(where=path, what="its numbers are of another kind")
    return array


def _array(stored: StoredTensor, path: str) -> np.ndarray:
    """Of a shape with a 0 in it the other sizes cost a file nothing, and a report gigabytes."""
    if 0 in stored.shape:
        raise UnreadableLog(where=path, what="an array of it holds no numbers")
    return stored.array()


def _sample(told: JsonObject) -> AttributedSample:
    return AttributedSample(
        row=whole(told, "row"),
        loss=_float(told, "loss"),
        what=_text(told, "what"),
        at_sample=_float(told, "at_sample"),
        at_baseline=_float(told, "at_baseline"),
        delta=number(told.get("delta")),
    )


def _odd(told: JsonObject) -> OddInput | None:
    index = items(told, "index")
    if len(index) > MOST_ODD or not all(type(i) is int and 0 <= i < 2**48 for i in index):
        return None
    return OddInput(
        row=whole(told, "row"),
        name=_text(told, "name"),
        index=tuple(index),
        value=_float(told, "value"),
        usual=_float(told, "usual"),
    )


def _rank(path: str) -> int:
    """Of `.../rank-3.1/attributions/x.json` 3."""
    found = re.fullmatch(r"rank-([0-9]{1,6})(\.[0-9]+)?", Path(path).absolute().parent.parent.name)
    return int(found[1]) if found else 0


def _float(told: JsonObject, key: str) -> float:
    value = number(told.get(key))
    return float("nan") if value is None else value


def _text(told: JsonObject, key: str) -> str:
    return text(told, key)[:LONGEST]
