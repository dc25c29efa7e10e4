"""The file of a baseline: JSON that can be read in a diff.

    {"schema": "nndiag.baseline/1",
     "runs": 5,
     "findings": [{"name": "loss-spike", "series": "loss", "owner": "", "layers": [],
                   "severity": "warning", "runs": 2}],
     "curves": [{"metric": "loss", "owner": "", "series": "loss", "first": 0, "last": 999,
                 "interval": 1, "levels": [[2.1, 1.4, ...], ...], "errors": [[...], ...]}]}

One row of `levels` is one run: the medians of its curve in equal blocks of steps, `null` where it
has none. The same runs give the same text, whatever the order of their paths; nothing in it tells
when, where or by whom it was written.

History of the format:
    nndiag.baseline/1    first
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from nndiag.baseline.contents import Baseline, Known
from nndiag.curves.band import Learned
from nndiag.errors import BadUsage
from nndiag.fingerprint import Fingerprint
from nndiag.records import Severity

SCHEMA = "nndiag.baseline/1"
FAMILY = SCHEMA.partition("/")[0]
DIGITS = 6  # significant, of a level
MOST_BYTES = 50_000_000

_Value = TypeVar("_Value")


class _Wrong(Exception):
    """What does not fit in a document."""


def text(baseline: Baseline) -> str:
    """The document, ending in a newline."""
    findings = [_row(_finding(known)) for known in baseline.findings]
    curves = [_curve(curve) for curve in baseline.curves]
    parts = [
        f' "schema": {json.dumps(SCHEMA)}',
        f' "runs": {baseline.runs}',
        f' "findings": {_listed(findings, 2)}',
        f' "curves": {_listed(curves, 2)}',
    ]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def write(baseline: Baseline, path: Path) -> None:
    """Write the file. Raises `BadUsage` where that cannot be done."""
    try:
        path.write_text(text(baseline), encoding="utf-8")
    except OSError as error:
        raise BadUsage(
            where=f"--write-baseline {path}", what=f"cannot be written: {error.strerror}"
        ) from None


def read(path: Path) -> Baseline:
    """The baseline of a file. Raises `BadUsage` where there is none, or not one that we know."""
    where = f"--baseline {path}"
    learn = "learn one: nndiag check RUN... --write-baseline FILE"
    try:
        if path.stat().st_size > MOST_BYTES:
            raise BadUsage(where=where, what="is too large for a baseline", do=learn)
        document = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise BadUsage(where=where, what=f"cannot be read: {error.strerror}", do=learn) from None
    except (ValueError, RecursionError):
        raise BadUsage(where=where, what="is not JSON, so no baseline", do=learn) from None
    schema = document.get("schema") if isinstance(document, dict) else None
    if not isinstance(schema, str) or schema.partition("/")[0] != FAMILY:
        raise BadUsage(where=where, what=f"is not a baseline: its schema is not {SCHEMA}", do=learn)
    if schema != SCHEMA:
        raise BadUsage(
            where=where,
            what=f"has the format {schema}; this nndiag reads {SCHEMA}",
            do=f"update nndiag, or {learn}",
        )
    try:
        return _baseline(document)
    except _Wrong as wrong:
        raise BadUsage(where=where, what=f"is broken: {wrong}", do=learn) from None


def _finding(known: Known) -> dict[str, object]:
    what = known.what
    return {
        "name": what.name,
        "series": what.series,
        "owner": what.owner,
        "layers": list(what.layers),
        "severity": str(known.severity),
        "runs": known.runs,
    }


def _curve(curve: Learned) -> str:
    head = {
        "metric": curve.metric,
        "owner": curve.owner,
        "series": curve.label,
        "first": curve.first,
        "last": curve.last,
        "interval": _short(curve.interval),
    }
    rows = [[_row([_short(x) for x in row]) for row in m] for m in (curve.levels, curve.errors)]
    levels, errors = (_listed(table, 3) for table in rows)
    return f'{_row(head)[:-1]},\n   "levels": {levels},\n   "errors": {errors}}}'


def _row(value: object) -> str:
    return json.dumps(value, allow_nan=False)


def _listed(rows: Sequence[str], indent: int) -> str:
    if not rows:
        return "[]"
    pad = " " * indent
    return "[\n" + ",\n".join(pad + row for row in rows) + "\n" + pad[1:] + "]"


def _short(value: float) -> float | int | None:
    """A number with few digits; None for one that is not finite."""
    value = float(value)
    if not math.isfinite(value):
        return None
    rounded = float(f"{value:.{DIGITS}g}")
    return int(rounded) if rounded.is_integer() and abs(rounded) < 1e15 else rounded


def _baseline(document: dict[str, Any]) -> Baseline:
    return Baseline(
        runs=_count(document, "runs"),
        findings=tuple(_each(document, "findings", _known)),
        curves=tuple(_each(document, "curves", _learned)),
    )


def _each(document: dict[str, Any], key: str, read: Callable[[Any], _Value]) -> list[_Value]:
    entries = document.get(key)
    if not isinstance(entries, list):
        raise _Wrong(f"{key} is not a list")
    found = []
    for index, entry in enumerate(entries):
        if not isinstance(entry, dict):
            raise _Wrong(f"{key}[{index}] is not an object")
        try:
            found.append(read(entry))
        except _Wrong as wrong:
            raise _Wrong(f"{key}[{index}]: {wrong}") from None
    return found


def _known(entry: dict[str, Any]) -> Known:
    severities = {str(severity): severity for severity in Severity}
    layers = entry.get("layers")
    if not isinstance(layers, list) or not all(isinstance(layer, str) for layer in layers):
        raise _Wrong("layers is not a list of names")
    if _string(entry, "severity") not in severities:
        raise _Wrong(f"there is no severity {entry['severity']!r}")
    what = Fingerprint(
        _string(entry, "name"), _string(entry, "series"), _string(entry, "owner"), tuple(layers)
    )
    return Known(what, severities[entry["severity"]], _count(entry, "runs"))


def _learned(entry: dict[str, Any]) -> Learned:
    levels, errors = _table(entry, "levels"), _table(entry, "errors")
    if levels.shape != errors.shape or levels.shape[1] < 1:
        raise _Wrong("levels and errors are not of one shape")
    first, last = _whole(entry, "first"), _whole(entry, "last")
    if first > last or (first == last and levels.shape[1] > 1):
        raise _Wrong(f"no curve goes from step {first} to step {last}")
    interval = entry.get("interval")
    if isinstance(interval, bool) or not isinstance(interval, int | float) or not interval >= 0:
        raise _Wrong("interval is not a number of steps")
    return Learned(
        metric=_string(entry, "metric"),
        owner=_string(entry, "owner"),
        label=_string(entry, "series"),
        first=first,
        last=last,
        interval=float(interval),
        levels=levels,
        errors=np.nan_to_num(errors, nan=0.0),
    )


def _table(entry: dict[str, Any], key: str) -> np.ndarray:
    rows = entry.get(key)
    if not isinstance(rows, list) or not rows or not all(isinstance(row, list) for row in rows):
        raise _Wrong(f"{key} is not a table")
    for value in (value for row in rows for value in row):
        if isinstance(value, bool) or not isinstance(value, int | float | None):
            raise _Wrong(f"{key} holds {value!r}")
    try:
        return np.array([[math.nan if v is None else float(v) for v in row] for row in rows])
    except (ValueError, OverflowError):
        raise _Wrong(f"{key} has rows of different length, or numbers too large") from None


def _string(entry: dict[str, Any], key: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise _Wrong(f"{key} is not a text")
    return value


def _whole(entry: dict[str, Any], key: str) -> int:
    value = entry.get(key)
    if isinstance(value, bool) or not isinstance(value, int) or abs(value) >= 2**63:
        raise _Wrong(f"{key} is not a whole number")
    return value


def _count(entry: dict[str, Any], key: str) -> int:
    value = _whole(entry, key)
    if value < 0:
        raise _Wrong(f"{key} is negative")
    return value
