"""Flat JSON records of the same keys: what `measurements` makes of them is worked out once."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from operator import itemgetter
from typing import Any

from nndiag.readers.tables.row_batches import Convert, Shape
from nndiag.readers.tables.rows import TAGS, as_number, measurements

MOST_SHAPES = 1000  # that are remembered
MOST_FIELDS = 200  # of a record; one with more is unlike any other
LONGEST_KEYS = 10_000  # characters, all together
LONGEST_TAG = 40  # characters, as `split_of` has it

_float: Convert = float  # type: ignore[assignment]
_PLAIN = frozenset([int, float, str, bool, type(None)])
_Cells = Callable[[Sequence[object]], Sequence[object]]


class RecordShapes:
    """The shapes of the records of one log: their keys, the types of their values, their split."""

    def __init__(self) -> None:
        self._known: dict[tuple[object, ...], tuple[Shape, _Cells] | None] = {}

    def find(self, record: Mapping[str, Any]) -> tuple[Shape, Sequence[object]] | None:
        """The shape of a record and its cells; None if it is one for `measurements`."""
        keys, values = tuple(record), tuple(record.values())
        kind = (keys, *map(type, values), *map(record.get, TAGS.intersection(keys)))
        try:
            known = self._known[kind]
        except KeyError:
            known = _shape_of(record)
            if len(self._known) < MOST_SHAPES and _is_small(record):
                self._known[kind] = known
        except TypeError:  # a tag that is no text
            return None
        if known is None:
            return None
        shape, cells = known
        return shape, cells(values)


def _is_small(record: Mapping[str, Any]) -> bool:
    """Its keys and its tags do not fill our memory, a thousand times."""
    tags = (record[tag] for tag in TAGS.intersection(record))
    return (
        len(record) <= MOST_FIELDS
        and sum(map(len, record)) <= LONGEST_KEYS
        and all(len(tag) <= LONGEST_TAG for tag in tags if isinstance(tag, str))
    )


def _shape_of(record: Mapping[str, Any]) -> tuple[Shape, _Cells] | None:
    if (
        len(record) > MOST_FIELDS
        or "value" in record
        or not _PLAIN.issuperset(map(type, record.values()))
    ):
        return None
    kept = [i for i, value in enumerate(record.values()) if type(value) in (int, float, str)]
    names = [name for name, _ in measurements(record)]
    if not kept or len(names) != len(kept) or len(set(names)) < len(names):
        return None
    convert = [as_number if type(value) is str else _float for value in record.values()]
    shape = Shape(names, convert=[convert[i] for i in kept])
    if len(kept) == len(record):
        return shape, tuple
    if len(kept) == 1:
        only = kept[0]
        return shape, lambda values: (values[only],)
    return shape, itemgetter(*kept)
