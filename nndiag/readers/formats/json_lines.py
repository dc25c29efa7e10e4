"""JSON lines, and single JSON documents that hold a table: an array of objects, an object of lists.

mmdetection, mmengine, detectron2, DETR, LLaMA-Factory write one object a line whatever the file is
called; Keras' History is an object of lists; Megatron's golden values are objects of steps.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from nndiag.errors import UnreadableLog
from nndiag.readers.lines.text_lines import TextLines, suffix_of, text_of, whole_of
from nndiag.readers.tables.columns import run_of
from nndiag.readers.tables.record_shapes import RecordShapes
from nndiag.readers.tables.row_batches import RowBatches
from nndiag.readers.tables.rows import as_number, measurements
from nndiag.readers.tables.table import MOST_OF_LINES, Table, TableBuilder
from nndiag.records import Run

name = "jsonl"

MAX_LINE = 1 << 20  # characters of one line
MAX_DOCUMENT = 128 << 20  # bytes of one document: JSON takes some ten times as much in memory
MAX_BAD_FRACTION = 0.5  # of the lines: above it, these are no JSON lines
BATCH = 8192  # records of a document that go to the table together
SEARCH_DEPTH = 3  # objects around the table of a document
# what json.loads raises for text that is no JSON, is too deep, or has an integer of 5000 digits
BROKEN = (ValueError, RecursionError, OverflowError)

Json = object
# json.loads without its own two searches for blanks, which take a quarter of its time
_scan = json.JSONDecoder().scan_once  # type: ignore[attr-defined]


def recognises(path: Path, head: bytes) -> str | None:
    """Why this looks like JSON; None if it does not."""
    text = text_of(head).lstrip()
    if text[:1] not in ("{", "["):
        return None
    lines = [line for line in text.splitlines()[:20] if line.strip()]
    if any(_is_object(line) for line in lines[:3]):
        return "one JSON object a line"
    if suffix_of(path) in (".json", ".jsonl", ".ndjson"):
        return "a JSON document"
    start = text[1:2000].lstrip()[:1]
    return "a JSON document" if start in ('"', "{", "[", "}", "]") else None


def read(path: Path, loss: str | None = None) -> Run:
    """The run in JSON lines or in a JSON document; `loss` names the series to take for the loss.

    Raises:
        UnreadableLog: it holds no records, no loss, or no series called `loss`.
    """
    return run_of(table_of_file(path), path=str(path), format=name, loss=loss)


def table_of_file(path: Path) -> Table:
    """JSON lines, or the table in a JSON document.

    Raises:
        UnreadableLog: it cannot be read, or holds no records.
    """
    return _from_lines(path) or _from_document(path)


def _is_object(line: str) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except BROKEN:
        return False


def _from_lines(path: Path) -> Table | None:
    """One object a line; None if that is not what it is."""
    lines, builder = TextLines(path, MAX_LINE), TableBuilder(MOST_OF_LINES)
    batches, shapes = RowBatches(builder), RecordShapes()
    bad = objects = 0
    last_is_bad = False
    for block in lines.blocks():
        for record in _records(block.decode("utf-8", errors="replace")):
            last_is_bad = not isinstance(record, dict)
            if isinstance(record, dict):
                objects += 1
                known = shapes.find(record)
                if known is None:
                    batches.add(measurements(record))
                else:
                    batches.add_one(*known)
            else:
                bad += 1
                if bad >= 20 and bad > 10 * objects:
                    return None
        batches.flush()
    if not objects or bad > MAX_BAD_FRACTION * (objects + bad):
        return None
    if objects == 1 and not bad and not _is_one_record(path):
        return None
    remarks = []
    if last_is_bad and lines.ends_torn:
        bad -= 1
        remarks.append("the last line is cut off: left out")
    if bad:
        remarks.append(f"{bad} lines left out that are no JSON objects")
    if lines.damage:
        remarks.append(lines.damage)
    return builder.table(*remarks)


def _records(text: str) -> Iterator[Json]:
    """What each line holds, None for what is no JSON; blank lines are passed over."""
    at = 0
    while at < len(text):
        end = text.find("\n", at)
        if end < 0:
            end = len(text)
        try:
            record, stop = _scan(text, at)
        except (StopIteration, *BROKEN):
            stop = -1
        if stop == end:
            yield record
        else:
            line = text[at:end].strip()
            if line and line not in ("[", "]"):
                yield _record_in(line.rstrip(","))
        at = end + 1


def _record_in(line: str) -> Json:
    try:
        record: Json = json.loads(line)
    except BROKEN:
        return None
    return record


def _is_one_record(path: Path) -> bool:
    """A file of a single line: a log of one record, and not a table in one document."""
    document = document_of(path)
    columns = _objects_of_lists(document, SEARCH_DEPTH)
    return not any(_arrays(document, SEARCH_DEPTH)) and not any(columns)


def document_of(path: Path) -> Json:
    """A whole JSON document.

    Raises:
        UnreadableLog: it is too large, too deep, or no JSON.
    """
    text = whole_of(path, MAX_DOCUMENT)
    try:
        document: Json = json.loads(text)
    except RecursionError:
        raise UnreadableLog(where=str(path), what="JSON nested too deeply for a log") from None
    except (ValueError, OverflowError) as error:
        what = f"is no JSON: {str(error)[:100]}" if text.strip() else "is empty"
        raise UnreadableLog(where=str(path), what=what) from None
    return document


def table_of(records: Sequence[object], *remarks: str) -> Table:
    """An array of objects as a table."""
    builder, others = TableBuilder(), 0
    batches, shapes = RowBatches(builder), RecordShapes()
    for i, record in enumerate(records, start=1):
        if isinstance(record, Mapping):
            known = shapes.find(record)
            if known is None:
                batches.add(measurements(record))
            else:
                batches.add_one(*known)
        else:
            others += 1
        if i % BATCH == 0:
            batches.flush()
    batches.flush()
    said = [f"{others} entries left out that are no objects"] if others else []
    return builder.table(*remarks, *said)


def _from_document(path: Path) -> Table:
    document = document_of(path)
    records = max(_arrays(document, SEARCH_DEPTH), key=len, default=[])
    columns = max(_objects_of_lists(document, SEARCH_DEPTH), key=len, default={})
    if records and len(records) >= max(map(len, columns.values()), default=0):
        return table_of(records)
    if columns:
        return _table_of_lists(columns)
    raise UnreadableLog(
        where=str(path),
        what="JSON without a table of numbers in it",
        do="known: an array of objects, an object of lists of numbers, one object a line",
    )


def _arrays(document: Json, depth: int) -> Iterator[Sequence[object]]:
    """Arrays of objects in a document."""
    if isinstance(document, list):
        if any(isinstance(entry, dict) for entry in document):
            yield document
    elif isinstance(document, dict) and depth:
        for value in document.values():
            yield from _arrays(value, depth - 1)


def _objects_of_lists(document: Json, depth: int) -> Iterator[dict[str, dict[int, object]]]:
    """Objects whose values are series: {"loss": [0.5, 0.4]}, {"loss": {"1": 0.5, "2": 0.4}}."""
    if not isinstance(document, dict):
        return
    columns = {}
    for key, value in document.items():
        points = _points(value)
        if points:
            columns[str(key)] = points
    if columns:
        yield columns
    if depth:
        for value in document.values():
            yield from _objects_of_lists(value, depth - 1)


def _points(value: Json) -> dict[int, object]:
    """A series by its steps; empty if it is none."""
    start, interval = 0, 1
    if isinstance(value, dict) and "values" in value:  # Megatron: start_step, step_interval, values
        first, every = as_number(value.get("start_step")), as_number(value.get("step_interval"))
        start = int(first) if first is not None and abs(first) < 2**53 else 0
        interval = int(every) if every is not None and 1 <= every < 2**53 else 1
        value = value["values"]
    if isinstance(value, list):
        if not any(as_number(entry) is not None for entry in value):
            return {}
        return {start + i * interval: entry for i, entry in enumerate(value)}
    if not isinstance(value, dict) or not all(k.isdecimal() and len(k) < 16 for k in value):
        return {}
    return {int(key): entry for key, entry in value.items()}


def _table_of_lists(columns: dict[str, dict[int, object]]) -> Table:
    builder = TableBuilder()
    steps = sorted({step for points in columns.values() for step in points})
    has_own_steps = any(key in columns for key in ("step", "steps", "epoch", "iteration", "iter"))
    for step in steps:
        row = [
            (key, as_number(points[step]))
            for key, points in columns.items()
            if points.get(step) is not None
        ]
        builder.add(row if has_own_steps else [("step", float(step)), *row])
    return builder.table()
