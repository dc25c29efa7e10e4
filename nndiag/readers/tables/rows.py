"""What one record of a log says: nested objects made flat, and the split it stands under."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from nndiag.readers.tables.table import MAX_NAME, number
from nndiag.vocabulary import canonical, describe

MAX_DEPTH = 4  # objects in objects; a deeper one holds settings, not measurements
MAX_FIELDS = 5000  # of one record
TAGS = frozenset(["mode", "phase", "split", "stage", "subset", "dataset", "set"])
_NAME_KEYS = ("metric", "name", "tag", "key")
_PREFIXED = frozenset(["loss", "accuracy", "error"])

Pairs = Iterator[tuple[str, float | None]]


def measurements(record: Mapping[str, object]) -> Pairs:
    """(name, value) of every number in a record; (name, None) for a text.

    {"phase": "val", "loss": 0.5} gives "val/loss", and {"name": "loss", "value": 0.5} "loss".
    """
    split = split_of(record)
    long = _long_form(record)
    for name, value in _flat(long or record, "", MAX_DEPTH):
        if split and describe(name).family in _PREFIXED and not describe(name).split:
            name = f"{split}/{name}"
        yield name, value


def split_of(record: Mapping[str, object]) -> str:
    """The held-out split that a record says it belongs to; "" for training and for silence."""
    for key in TAGS.intersection(record):
        value = record[key]
        if isinstance(value, str) and len(value) <= 40:
            split = describe(value).split
            if split in ("val", "test"):
                return split
    return ""


def _long_form(record: Mapping[str, object]) -> Mapping[str, object] | None:
    """{"step": 1, "metric": "loss", "value": 0.5} as {"step": 1, "loss": 0.5}."""
    if "value" not in record:
        return None
    for key in _NAME_KEYS:
        name = record.get(key)
        if isinstance(name, str) and name and name not in record:
            others = {k: v for k, v in record.items() if k not in (key, "value")}
            return {**others, name: record["value"]}
    return None


def _flat(record: Mapping[str, object], prefix: str, depth: int) -> Pairs:
    for count, (key, value) in enumerate(record.items()):
        if count >= MAX_FIELDS:
            return
        # a longer one is no column; whole, it would stay in the caches of the vocabulary
        name = f"{prefix}{key}"[: MAX_NAME + 1]
        if isinstance(value, Mapping):
            if depth > 1:
                yield from _flat(value, f"{name}/", depth - 1)
        elif isinstance(value, list):
            if len(value) == 1:  # "loss": [0.5]
                yield name, as_number(value[0])
        elif value is not None and not isinstance(value, bool):
            yield name, as_number(value)


def as_number(value: object) -> float | None:
    """A JSON value as a number; None if it is none."""
    if isinstance(value, str):
        return number(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # an integer of 400 digits
        return None


def is_known(name: str) -> bool:
    """A name that says something of a training."""
    return canonical(name) != "other" or describe(name).family in ("loss", "error", "accuracy")
