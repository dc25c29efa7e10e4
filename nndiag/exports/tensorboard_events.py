"""A TensorBoard event file: scalars for all series, and the findings as texts.

Written here, without TensorBoard: frames of TFRecord around protobuf messages whose only moving
parts are step and value, so that numpy fills thousands at a time. Values are float32, as
TensorBoard's own `SummaryWriter` writes them, and as its readers expect them.

Sources: tensorboard/compat/proto/{event,summary,tensor}.proto; the frame is described in
readers/tensorboard/tfrecord.py.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from nndiag.exports.tables import Tables
from nndiag.exports.tags import tagged
from nndiag.readers.tensorboard.crc32c import masked_of, masked_of_rows

FILE = "events.out.tfevents.0.nndiag"  # TensorBoard looks for "tfevents" in a name
VERSION = b"brain.Event:2"
TEXTS = "nndiag/findings"
ROWS = 1 << 14  # events that are put together at once
MOST_TAG = 1000  # bytes; a longer name is cut
_STRING = 7  # DT_STRING


def events(tables: Tables, now_s: float) -> Iterator[bytes]:
    """The file, piece by piece. Series have no clock: all events are of the time `now_s`."""
    yield _framed(_time(now_s) + _bytes(3, VERSION))
    for tag, series in tagged(tables.diagnosis.run):
        for start in range(0, len(series), ROWS):
            part = slice(start, start + ROWS)
            yield from _scalars(tag, series.steps[part], series.values[part], now_s)
    for number, finding in enumerate(tables.findings, 1):
        step = finding["step_start"] or 0
        text = _as_markdown(finding).encode("utf-8", "replace")
        value = _bytes(1, f"{TEXTS}/{number}-{finding['name']}".encode("utf-8", "replace"))
        value += _bytes(9, _bytes(1, _bytes(1, b"text")))  # metadata, of the plugin "text"
        value += _bytes(
            8, _number(1, _STRING) + _bytes(2, _bytes(2, _number(1, 1))) + _bytes(8, text)
        )
        yield _framed(_time(now_s) + _number(2, step) + _bytes(5, _bytes(1, value)))


def _scalars(tag: str, steps: np.ndarray, values: np.ndarray, now_s: float) -> Iterator[bytes]:
    """One event a step. Steps increase, so those whose number is as long stand together."""
    unsigned = steps.astype(np.uint64)
    width = np.ones(steps.size, np.int64)  # bytes of each step as a varint
    for i in range(1, 10):
        width += unsigned >> np.uint64(7 * i) > 0
    bounds = np.flatnonzero(np.diff(width, prepend=-1, append=-1))
    for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True):
        yield _alike(tag, unsigned[first:last], values[first:last], int(width[first]), now_s)


def _alike(tag: str, steps: np.ndarray, values: np.ndarray, width: int, now_s: float) -> bytes:
    """Events whose steps take `width` bytes: all of one length."""
    name = tag.encode("utf-8", "replace")[:MOST_TAG]
    value = _bytes(1, name) + b"\x15"  # simple_value, whose 4 bytes end the event
    summary = b"\x0a" + _varint(len(value) + 4) + value
    before = _time(now_s) + b"\x10"
    behind = b"\x2a" + _varint(len(summary) + 4) + summary
    data = before + bytes(width) + behind + bytes(4)
    rows = np.tile(np.frombuffer(data, np.uint8), (steps.size, 1))
    for i in range(width):
        more = 0x80 if i < width - 1 else 0
        byte = (steps >> np.uint64(7 * i)) & np.uint64(0x7F)
        rows[:, len(before) + i] = byte.astype(np.uint8) | np.uint8(more)
    with np.errstate(over="ignore"):  # beyond float32 it is infinite
        rows[:, -4:] = values.astype("<f4").view(np.uint8).reshape(-1, 4)
    head = struct.pack("<Q", len(data))
    head += struct.pack("<I", masked_of(head))
    framed = np.empty((steps.size, len(head) + len(data) + 4), np.uint8)
    framed[:, : len(head)] = np.frombuffer(head, np.uint8)
    framed[:, len(head) : -4] = rows
    framed[:, -4:] = masked_of_rows(rows).astype("<u4").view(np.uint8).reshape(-1, 4)
    return framed.tobytes()


def _text(tag: str, text: str) -> bytes:
    """The value of a text: a tensor of one string, for the plugin "text". It has no dimension:
    TensorBoard makes a table of one that has."""
    tensor = _number(1, _STRING) + _bytes(2, b"") + _bytes(8, text.encode("utf-8", "replace"))
    plugin = _bytes(1, _bytes(1, b"text"))
    return _bytes(1, tag.encode("utf-8", "replace")) + _bytes(9, plugin) + _bytes(8, tensor)


def _as_markdown(finding: Mapping[str, Any]) -> str:
    """TensorBoard shows texts as Markdown."""
    first, last = finding["step_start"], finding["step_end"]
    steps = (
        "" if first is None else f", step {first}" if last == first else f", steps {first}-{last}"
    )
    lines = [f"**{finding['name']}** ({finding['severity']}{steps})", _sentence(finding["message"])]
    if finding["layers"]:
        lines.append("Layers: " + ", ".join(f"`{layer}`" for layer in finding["layers"]))
    lines += [
        f"{i}. {r['name']}: {_sentence(r['text'])}" for i, r in enumerate(finding["remedies"], 1)
    ]
    return "\n\n".join(lines)


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]


def _framed(data: bytes) -> bytes:
    head = struct.pack("<Q", len(data))
    return head + struct.pack("<I", masked_of(head)) + data + struct.pack("<I", masked_of(data))


def _time(seconds: float) -> bytes:
    return b"\x09" + struct.pack("<d", seconds)


def _number(field: int, value: int) -> bytes:
    return _varint(field << 3) + _varint(value)


def _bytes(field: int, data: bytes) -> bytes:
    return _varint(field << 3 | 2) + _varint(len(data)) + data


def _varint(value: int) -> bytes:
    """A number as protobuf has it; a negative one as 2^64 + value."""
    value &= 0xFFFF_FFFF_FFFF_FFFF
    encoded = bytearray()
    while value > 0x7F:
        encoded.append(value & 0x7F | 0x80)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
