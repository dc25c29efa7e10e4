"""CSV: numbers with all their digits, nothing where nothing was recorded, `nan`, `inf`, `-inf`.

Text that a spreadsheet would take for a formula gets an apostrophe in front.
Source: OWASP, "CSV Injection".
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from nndiag.exports.tables import STEP, Column, Steps, Tables
from nndiag.records import Series

SUFFIX = ".csv"
ROWS = 1 << 16  # that are put into one piece of text
FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
FINDINGS = (
    *("name", "severity", "confidence", "step_start", "step_end", "series", "owner", "layers"),
    *("message", "remedy", "remedies", "evidence"),
)


def table(name: str, tables: Tables) -> Iterator[str]:
    """The text of a table, piece by piece."""
    if name == "steps":
        yield from _steps(tables.steps)
    elif name == "layers":
        yield _row([STEP, "metric", "where", "owner", "value"])
        for series in tables.layers:
            yield from _long(series)
    else:
        yield _row(FINDINGS)
        for finding in tables.findings:
            yield _row([_cell_of(finding, field) for field in FINDINGS])


def _steps(steps: Steps) -> Iterator[str]:
    yield _row([STEP, *(column.name for column in steps.columns)])
    for start in range(0, steps.steps.size, ROWS):
        part = slice(start, start + ROWS)
        texts = [list(map(str, steps.steps[part].tolist()))]
        texts += [_numbers(column, part) for column in steps.columns]
        yield "\n".join(map(",".join, zip(*texts, strict=True))) + "\n"


def _numbers(column: Column, part: slice) -> list[str]:
    """The shortest text that gives the same float64 back."""
    texts = list(map(repr, column.values[part].tolist()))
    for i in np.flatnonzero(~column.is_there[part]).tolist():
        texts[i] = ""
    return texts


def _long(series: Series) -> Iterator[str]:
    where = _row([series.label, series.where, series.owner]).rstrip("\n")
    for start in range(0, len(series), ROWS):
        steps = series.steps[start : start + ROWS].tolist()
        values = series.values[start : start + ROWS].tolist()
        yield "".join(f"{s},{where},{v!r}\n" for s, v in zip(steps, values, strict=True))


def _cell_of(finding: dict[str, Any], field: str) -> str | float | None:
    if field == "layers":
        return "; ".join(finding["layers"])
    if field == "remedy":
        return finding["remedies"][0]["text"] if finding["remedies"] else ""
    value = finding[field]
    return json.dumps(value) if isinstance(value, list | dict) else value


def _row(cells: Sequence[str | float | None]) -> str:
    return ",".join(map(_cell, cells)) + "\n"


def _cell(value: str | float | None) -> str:
    if value is None:
        return ""
    if not isinstance(value, str):
        return repr(value)
    text = f"'{value}" if value.startswith(FORMULA) else value
    if any(mark in text for mark in '",\r\n') or text != text.strip():
        return '"' + text.replace('"', '""') + '"'
    return text
