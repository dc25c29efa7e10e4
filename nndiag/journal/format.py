"""The run directory: its names, and the bytes of its streams. docs/journal.md describes it all.

Measurements are Arrow IPC streams (https://arrow.apache.org/docs/format/Columnar.html), written by
hand: the writer lives inside the user's training, where only the standard library may be loaded.
Each row is one record batch of constant size, so a stream is its header and k records: a reader
finds every row by multiplication, and a torn or damaged row costs that row alone.

    step: int64      t: float64 (seconds since start)      v: fixed_size_list<float>[width]
"""

from __future__ import annotations

import math
import struct
from array import array
from binascii import crc32  # not from zlib, which a build of Python may lack
from collections.abc import Mapping, Sequence
from json import dumps  # bound here: a script may patch json
from typing import Final, Literal

from nndiag.journal.flatbuffer import Pairs, Scalar, Table, build

Dtype = Literal["f4", "f8"]

RUN_SCHEMA: Final = "nndiag.run/1"
PROCESS_SCHEMA: Final = "nndiag.process/1"
STREAM_SCHEMA: Final = "nndiag.stream/1"
CAPTURE_SCHEMA: Final = "nndiag.capture/1"
ATTRIBUTION_SCHEMA: Final = "nndiag.attribution/1"
METADATA_KEY: Final = "nndiag"  # of the Arrow schema: owner and columns as JSON

RUN_FILE: Final = "run.json"
PROCESS_FILE: Final = "process.json"
EVENTS_FILE: Final = "events.jsonl"
CAPTURES_FOLDER: Final = "captures"  # of a rank; one folder for each captured batch
CAPTURE_FILE: Final = "capture.json"
BATCH_FILE: Final = "batch.safetensors"
WEIGHTS_FILE: Final = "weights.safetensors"
ATTRIBUTIONS_FOLDER: Final = "attributions"  # of a rank; a .json and a .safetensors for each
EVENT_LINE_BYTES: Final = 64 * 1024  # longest line of events.jsonl, its line feed included

# Columns of steps-N.arrows, in this order; further groups add ("lr", "group-1") and so on.
COLUMNS: Final = (
    "loss",
    "backward_calls",
    "lr",
    "grad_norm",
    "clip_threshold",
    "loss_scale",
    "step_time_s",
    "nndiag_time_s",
    "update_gradient_cosine",
    "update_ratio",
    "time_to_backward_s",
)

CHECKSUM: Final = struct.Struct("<Q")  # 8 bytes keep the next message aligned
_ITEM_SIZE: Final = {"f4": 4, "f8": 8}
_ITEM_CODE: Final = {"f4": "f", "f8": "d"}

# Numbers of Arrow's format/Schema.fbs and format/Message.fbs
_VERSION_5: Final = 4
_SCHEMA, _RECORD_BATCH = 1, 3  # MessageHeader
_INT, _FLOAT, _FIXED_SIZE_LIST = 2, 3, 16  # Type
_PRECISION: Final = {"f4": 1, "f8": 2}

Plain = None | bool | int | float | str | list["Plain"] | dict[str, "Plain"]


def rank_directory(rank: int) -> str:
    return f"rank-{rank}"


def steps_file(number: int) -> str:
    """One for each optimizer, and one more where its parameter groups change."""
    return f"steps-{number}.arrows"


def layers_file(number: int) -> str:
    """One for each set of columns."""
    return f"layers-{number}.arrows"


def stream_metadata(owner: str, columns: Sequence[tuple[str, str]]) -> dict[str, str]:
    """Metadata of a stream's Arrow schema. "schema" comes first: the reader looks for it."""
    told = {"schema": STREAM_SCHEMA, "owner": owner, "columns": [list(pair) for pair in columns]}
    return {METADATA_KEY: dumps(told)}


def plain(value: object) -> Plain:
    """`value` as JSON can hold it: NaN and infinities as strings, unknown objects as "<type>"."""
    if isinstance(value, float) and not math.isfinite(value):
        return "NaN" if value != value else "Infinity" if value > 0 else "-Infinity"
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(key): plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    return f"<{type(value).__name__}>"  # never its repr: that is the user's code


def schema_message(width: int, metadata: Mapping[str, str], dtype: Dtype) -> bytes:
    """The header of a stream whose rows hold `width` floats."""
    item = _field("item", _FLOAT, Table(Scalar("h", _PRECISION[dtype])))
    fields = [
        _field("step", _INT, Table(Scalar("i", 64), Scalar("B", 1))),  # 64 bits, signed
        _field("t", _FLOAT, Table(Scalar("h", _PRECISION["f8"]))),
        _field("v", _FIXED_SIZE_LIST, Table(Scalar("i", width)), [item]),
    ]
    pairs: list[Table] = [Table(key.encode(), text.encode()) for key, text in metadata.items()]
    return _message(_SCHEMA, Table(Scalar("h", 0), fields, pairs), body_size=0)


class RecordEncoder:
    """Rows of one stream as bytes, all of the same size: prefix, body, checksum.

    The prefix is the batch's metadata, the same for each row. The checksum is the CRC-32 of the
    body; it stands where Arrow allows padding, so other readers pass over it.
    """

    def __init__(self, width: int, dtype: Dtype) -> None:
        if width < 1:
            raise ValueError("a stream needs at least one column")
        self.width, self.dtype = width, dtype
        item_size = _ITEM_SIZE[dtype]
        padding = -width * item_size % 8
        self._body = struct.Struct(f"<qd{width}{_ITEM_CODE[dtype]}{padding}x")
        self.body_size = self._body.size
        values_size = width * item_size
        buffers = (0, 0), (0, 8), (8, 0), (8, 8), (16, 0), (16, 0), (16, values_size)
        batch = Table(
            Scalar("q", 1),
            Pairs(((1, 0), (1, 0), (1, 0), (width, 0))),  # rows and nulls of step, t, v, item
            Pairs(buffers),  # offset and size; validity is empty: nothing is null, NaN is
        )
        self.prefix = _message(_RECORD_BATCH, batch, self.body_size + CHECKSUM.size)
        self.size = len(self.prefix) + self.body_size + CHECKSUM.size

    def encode(self, step: int, t: float, values: Sequence[float]) -> bytes:
        """One row. A value beyond float32 becomes an infinity in a float32 stream."""
        try:
            body = self._body.pack(step, t, *values)
        except OverflowError:  # struct refuses what the cast of array makes infinite
            body = self._body.pack(step, t, *array("f", values))
        return self.prefix + body + CHECKSUM.pack(crc32(body))


def _field(name: str, kind: int, type_: Table, children: Sequence[Table] = ()) -> Table:
    # name, nullable, kind, type, dictionary, children; Arrow C++ refuses a missing list of children
    return Table(name.encode(), Scalar("B", 0), Scalar("B", kind), type_, None, children)


def _message(kind: int, header: Table, body_size: int) -> bytes:
    """The encapsulated message without its body: marker, size, metadata."""
    root = Table(Scalar("h", _VERSION_5), Scalar("B", kind), header, Scalar("q", body_size))
    metadata = build(root)
    return struct.pack("<Ii", 0xFFFFFFFF, len(metadata)) + metadata
