"""JSON lines: an object a row. A key is missing where nothing was recorded.

JSON has no number for NaN and infinities: they are the strings "NaN", "Infinity", "-Infinity".
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator

from nndiag.exports.tables import STEP, Column, Steps, Tables
from nndiag.records import Series

SUFFIX = ".jsonl"
ROWS = 1 << 16  # that are put into one piece of text


def table(name: str, tables: Tables) -> Iterator[str]:
    """The text of a table, piece by piece."""
    if name == "steps":
        yield from _steps(tables.steps)
    elif name == "layers":
        for series in tables.layers:
            yield from _long(series)
    else:
        for finding in tables.findings:
            yield json.dumps(finding, allow_nan=False) + "\n"


def _steps(steps: Steps) -> Iterator[str]:
    for start in range(0, steps.steps.size, ROWS):
        part = slice(start, start + ROWS)
        texts = [[f'"{STEP}":{step}' for step in steps.steps[part].tolist()]]
        texts += [_members(column, part) for column in steps.columns]
        rows = zip(*texts, strict=True)
        yield "".join("{" + ",".join(filter(None, row)) + "}\n" for row in rows)


def _members(column: Column, part: slice) -> list[str]:
    """`"name":value` of each row; nothing where nothing was recorded."""
    key = json.dumps(column.name)
    is_there = column.is_there[part].tolist()
    values = column.values[part].tolist()
    return [
        f"{key}:{number(value)}" if there else ""
        for value, there in zip(values, is_there, strict=True)
    ]


def _long(series: Series) -> Iterator[str]:
    texts = {"metric": series.label, "where": series.where, "owner": series.owner}
    place = json.dumps(texts, separators=(",", ":"))[1:-1]
    for start in range(0, len(series), ROWS):
        steps = series.steps[start : start + ROWS].tolist()
        values = series.values[start : start + ROWS].tolist()
        yield "".join(
            f'{{"{STEP}":{step},{place},"value":{number(value)}}}\n'
            for step, value in zip(steps, values, strict=True)
        )


def number(value: float) -> str:
    """A float64 as JSON, with all its digits."""
    if math.isfinite(value):
        return repr(value)
    return '"NaN"' if math.isnan(value) else '"Infinity"' if value > 0 else '"-Infinity"'
