"""Where the numbers stand in a TensorBoard event: one `Event` message, taken apart but not copied.

    Event { wall_time, step, file_version | graph_def | summary | session_log | ... }
    Summary.Value { tag, metadata.plugin_data.plugin_name, simple_value | image | histo | tensor }

A scalar is a `simple_value`, or a `tensor` of one number (tf.summary, Keras) whose plugin is
"scalars" or unsaid; the tensors of all other plugins (histograms, images, text, hparams, audio,
mesh, pr_curves) are something else, and are only counted.

Sources: tensorboard/compat/proto/{event,summary,tensor,types}.proto.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

from nndiag.readers.wire import BYTES, FIXED32, FIXED64, VARINT, fields, signed, varint

SCALARS = "scalars"  # the plugin
MAX_TAG = 1000  # bytes of a name that are looked at
MAX_PLUGINS = 20_000  # tags whose plugin is remembered
MAX_SCALARS = 10_000  # of one event; more are counted and left out
MAX_VALUES = 100_000  # of one event, of any kind; what comes later is not looked at
_EVENT_PARTS = {
    3: "file version", 4: "graph", 6: "log message", 7: "session mark", 8: "run metadata",
    9: "graph",
}  # fmt: skip
_VALUE_PARTS = {3: "histogram", 4: "image", 5: "histogram", 6: "audio clip"}
_PLUGIN_PARTS = {
    "histograms": "histogram", "images": "image", "text": "text", "audio": "audio clip",
    "hparams": "hyper-parameter record", "pr_curves": "precision-recall curve", "mesh": "mesh",
    "graph_keras_model": "graph", "graph_run_metadata": "graph", "graphs": "graph",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Kind:
    """How a number is written."""

    of: Callable[[bytes, int, int], float]  # (buffer, start, end) -> the number
    dtype: str = ""  # numpy's name where it has a fixed width
    is_bfloat16: bool = False  # the upper half of a float32


@dataclass(frozen=True, slots=True)
class Spot:
    """One scalar in an event."""

    tag: tuple[int, int]  # [start, end) of its name in the buffer
    number: tuple[int, int]  # [start, end) of its value
    kind: Kind


@dataclass(slots=True)
class Layout:
    """What an event holds, and where."""

    time: int = -1  # where its 8 bytes stand; -1: not written, so 0
    step: tuple[int, int] = (0, 0)  # [start, end) of its varint; (0, 0): not written, so 0
    scalars: list[Spot] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)  # "image", "histogram", ...
    texts: set[str] = field(default_factory=set)  # tags of the texts among them
    values: int = 0  # of all kinds
    beyond: int = 0  # scalars after `MAX_SCALARS`

    def add(self, spot: Spot) -> None:
        if len(self.scalars) < MAX_SCALARS:
            self.scalars.append(spot)
        else:
            self.beyond += 1


def _fixed(dtype: str, form: str) -> Kind:
    read = struct.Struct(form).unpack_from
    return Kind(lambda buffer, start, end: float(read(buffer, start)[0]), dtype)


def _bfloat16(buffer: bytes, start: int, end: int) -> float:
    value: float = struct.unpack("<f", b"\0\0" + buffer[start : start + 2])[0]
    return value


def _half_in_varint(buffer: bytes, start: int, end: int) -> float:
    bits = varint(buffer, start, end)[0] & 0xFFFF
    value: float = struct.unpack("<e", bits.to_bytes(2, "little"))[0]
    return value


def _bfloat16_in_varint(buffer: bytes, start: int, end: int) -> float:
    bits = varint(buffer, start, end)[0] & 0xFFFF
    value: float = struct.unpack("<f", (bits << 16).to_bytes(4, "little"))[0]
    return value


FLOAT, DOUBLE = _fixed("<f4", "<f"), _fixed("<f8", "<d")
_SIGNED = Kind(lambda buffer, start, end: float(signed(varint(buffer, start, end)[0])))
_UNSIGNED = Kind(lambda buffer, start, end: float(varint(buffer, start, end)[0]))
# {DataType: (bytes of one number in tensor_content, its kind there,
#             the field for single numbers, their wire type, their kind there)}
_DTYPES: dict[int, tuple[int, Kind, int, int, Kind]] = {
    1: (4, FLOAT, 5, FIXED32, FLOAT),
    2: (8, DOUBLE, 6, FIXED64, DOUBLE),
    3: (4, _fixed("<i4", "<i"), 7, VARINT, _SIGNED),
    4: (1, _fixed("u1", "<B"), 7, VARINT, _SIGNED),
    5: (2, _fixed("<i2", "<h"), 7, VARINT, _SIGNED),
    6: (1, _fixed("i1", "<b"), 7, VARINT, _SIGNED),
    9: (8, _fixed("<i8", "<q"), 10, VARINT, _SIGNED),
    10: (1, _fixed("u1", "<B"), 11, VARINT, _UNSIGNED),
    14: (2, Kind(_bfloat16, "<u2", is_bfloat16=True), 13, VARINT, Kind(_bfloat16_in_varint)),
    17: (2, _fixed("<u2", "<H"), 7, VARINT, _SIGNED),
    19: (2, _fixed("<f2", "<e"), 13, VARINT, Kind(_half_in_varint)),
    22: (4, _fixed("<u4", "<I"), 16, VARINT, _UNSIGNED),
    23: (8, _fixed("<u8", "<Q"), 17, VARINT, _UNSIGNED),
}
_STRING = 7


def layout_of(buffer: bytes, start: int, end: int, plugins: dict[bytes, str]) -> Layout:
    """The layout of the event in `buffer[start:end]`.

    `plugins` is what earlier events of the file said of their tags; what this one says is added.

    Raises:
        Malformed: it is no event.
    """
    layout = Layout()
    for number, kind, first, last in fields(buffer, start, end):
        if number == 1 and kind == FIXED64:
            layout.time = first
        elif number == 2 and kind == VARINT:
            layout.step = (first, last)
        elif number == 5 and kind == BYTES:
            for part, part_kind, value, value_end in fields(buffer, first, last):
                if part == 1 and part_kind == BYTES:
                    if layout.values >= MAX_VALUES:
                        layout.others["summary too long to read whole"] += 1
                        break
                    layout.values += 1
                    _add_value(layout, buffer, value, value_end, plugins)
        elif kind == BYTES and number in _EVENT_PARTS:
            layout.others[_EVENT_PARTS[number]] += 1
    return layout


def _add_value(
    layout: Layout, buffer: bytes, start: int, end: int, plugins: dict[bytes, str]
) -> None:
    tag = name = (start, start)
    simple = tensor = (0, 0)
    plugin, other = "", ""
    for number, kind, first, last in fields(buffer, start, end):
        if kind == BYTES:
            if number == 1:
                tag = (first, last)
            elif number == 7:
                name = (first, last)
            elif number == 8:
                tensor = (first, last)
            elif number == 9:
                plugin = _plugin_of(buffer, first, last)
            else:
                other = _VALUE_PARTS.get(number, other)
        elif number == 2 and kind == FIXED32:
            simple = (first, last)
    if tag[0] == tag[1]:
        tag = name  # what TensorFlow wrote before there were tags
    if simple[1]:
        layout.add(Spot(tag, simple, FLOAT))
        return
    written = buffer[tag[0] : min(tag[1], tag[0] + MAX_TAG)]
    if plugin and (len(plugins) < MAX_PLUGINS or written in plugins):
        plugins[written] = plugin
    plugin = plugin or plugins.get(written, "")
    if tensor[1] and plugin in ("", SCALARS):
        spot = _scalar_of(buffer, *tensor)
        if spot is not None:
            layout.add(Spot(tag, *spot))
            return
        other = "tensor"
    other = _PLUGIN_PARTS.get(plugin, other or "record of a plugin")
    layout.others[other] += 1
    if other == "text" and len(layout.texts) < MAX_SCALARS:
        layout.texts.add(written.decode("utf-8", errors="replace"))


def _plugin_of(buffer: bytes, start: int, end: int) -> str:
    """SummaryMetadata.plugin_data.plugin_name; "" where it is not said."""
    for number, kind, first, last in fields(buffer, start, end):
        if number == 1 and kind == BYTES:
            for part, part_kind, name, name_end in fields(buffer, first, last):
                if part == 1 and part_kind == BYTES:
                    return buffer[name : min(name_end, name + MAX_TAG)].decode(errors="replace")
    return ""


def _scalar_of(buffer: bytes, start: int, end: int) -> tuple[tuple[int, int], Kind] | None:
    """(where the number is, how it is written) of a TensorProto of one number; else None."""
    dtype, shape = 0, True
    content: tuple[int, int] | None = None
    singles: dict[int, tuple[int, int, int]] = {}  # the last of each field: (wire type, start, end)
    for number, kind, first, last in fields(buffer, start, end):
        if number == 1 and kind == VARINT:
            dtype = varint(buffer, first, last)[0]
        elif number == 2 and kind == BYTES:
            shape = _is_of_one(buffer, first, last)
        elif number == 4 and kind == BYTES:
            content = (first, last)
        elif number in singles:
            return None  # two numbers
        else:
            singles[number] = (kind, first, last)
    if dtype not in _DTYPES or not shape:
        return None
    width, content_kind, own, own_type, own_kind = _DTYPES[dtype]
    if content is not None and content[1] > content[0]:
        return (content, content_kind) if content[1] - content[0] == width else None
    if own not in singles:
        return None
    kind, first, last = singles[own]
    if kind == BYTES:  # packed, which must hold one number only
        if not _is_one_number(buffer, first, last, own_type):
            return None
    elif kind != own_type:
        return None
    return (first, last), own_kind


def _is_one_number(buffer: bytes, start: int, end: int, kind: int) -> bool:
    if kind == VARINT:
        return end > start and varint(buffer, start, end)[1] == end
    return end - start == (4 if kind == FIXED32 else 8)


def _is_of_one(buffer: bytes, start: int, end: int) -> bool:
    """A TensorShapeProto of one element: no dimension, or each of size 1."""
    for number, kind, first, last in fields(buffer, start, end):
        if number == 3 and kind == VARINT and varint(buffer, first, last)[0]:
            return False  # of unknown rank
        if number == 2 and kind == BYTES:
            sizes = [
                varint(buffer, size, size_end)[0]
                for part, part_kind, size, size_end in fields(buffer, first, last)
                if part == 1 and part_kind == VARINT
            ]
            if sizes[-1:] != [1]:
                return False
    return True
