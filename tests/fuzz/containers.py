"""Damage inside a sound container: right checksums and lengths around payloads that are not.

Blind mutants of a framed format hardly ever get past its checksum. These do: the frames are taken
apart, one payload is damaged, and the frames are made anew.
"""

from __future__ import annotations

import random
import sqlite3
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

from tests.fuzz.mutations import BLIND, NUMBERS, SIZES, TEXT, TOKENS, WORDS, damaged

Field = tuple[int, int, int | bytes]  # number, wire type, value

WANDB_HEADER = b":W&B\xe1\xbe\x00"
WANDB_BLOCK = 32768
_CASTAGNOLI = [0] * 256
for _i in range(256):
    _crc = _i
    for _ in range(8):
        _crc = _crc >> 1 ^ (0x82F63B78 if _crc & 1 else 0)
    _CASTAGNOLI[_i] = _crc


# --- TensorBoard: records with CRC-32C ------------------------------------------------------------


def crc32c_masked(data: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CASTAGNOLI[(crc ^ byte) & 0xFF]
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def event_frame(payload: bytes) -> bytes:
    size = struct.pack("<Q", len(payload))
    sums = struct.pack("<I", crc32c_masked(size)), struct.pack("<I", crc32c_masked(payload))
    return size + sums[0] + payload + sums[1]


def event_payloads(data: bytes) -> list[bytes]:
    """The payloads of a TensorBoard file, as far as it is whole."""
    found, at = [], 0
    while at + 16 <= len(data):
        [size] = struct.unpack_from("<Q", data, at)
        if at + 16 + size > len(data):
            break
        found.append(data[at + 12 : at + 12 + size])
        at += 16 + size
    return found


def change_event(data: bytes, rng: random.Random) -> bytes:
    payloads = event_payloads(data)
    if not payloads:
        return data
    at = rng.randrange(len(payloads))
    changed = _changed_record(payloads[at], payloads, rng)
    # the other frames stay as they are: a CRC in Python is slow
    sizes = [len(payload) + 16 for payload in payloads]
    start = sum(sizes[:at])
    frame = event_frame(changed[:65536])
    return data[:start] + frame + data[start + sizes[at] * rng.choice((1, 1, 1, 0)) :]


# --- W&B: LevelDB's log format with another header ------------------------------------------------


def wandb_records(data: bytes) -> list[bytes]:
    """The records of a `.wandb` file, as far as it is whole."""
    found: list[bytes] = []
    parts: list[bytes] = []
    at = len(WANDB_HEADER)
    while at + 7 <= len(data):
        left = WANDB_BLOCK - at % WANDB_BLOCK
        if left < 7:
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        part = data[at + 7 : at + 7 + size]
        if not 1 <= kind <= 4 or len(part) < size:
            break
        at += 7 + size
        parts = [part] if kind in (1, 2) else [*parts, part]
        if kind in (1, 4):
            found.append(b"".join(parts))
            parts = []
    return found


def wandb_file(records: list[bytes]) -> bytes:
    out = bytearray(WANDB_HEADER)
    for record in records:
        begins, rest = True, record
        while begins or rest:
            left = WANDB_BLOCK - len(out) % WANDB_BLOCK
            if left < 7:
                out += bytes(left)
                continue
            part, rest = rest[: left - 7], rest[left - 7 :]
            kind = (1 if begins else 4) if not rest else (2 if begins else 3)
            out += struct.pack("<IHB", zlib.crc32(part, zlib.crc32(bytes([kind]))), len(part), kind)
            out += part
            begins = False
    return bytes(out)


def change_wandb_record(data: bytes, rng: random.Random) -> bytes:
    records = wandb_records(data)
    if not records:
        return data
    at = rng.randrange(len(records))
    changed = _changed_record(records[at], records, rng)
    records[at : at + rng.choice((1, 1, 1, 0))] = [changed[:65536]]
    return wandb_file(records)


def _changed_record(record: bytes, others: list[bytes], rng: random.Random) -> bytes:
    """A payload damaged as a message, blindly, or replaced by another one."""
    chance = rng.random()
    if chance < 0.75:
        return change_message(record, rng)
    return damaged(record, BLIND, rng) if chance < 0.95 else rng.choice(others)


# --- protobuf -------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def fields_of(message: bytes) -> list[Field] | None:
    """The fields of a message; None if these bytes are none."""
    found: list[Field] = []
    at = 0
    try:
        while at < len(message):
            tag, at = _varint(message, at)
            value: int | bytes
            match tag & 7:
                case 0:
                    value, at = _varint(message, at)
                case 1:
                    value, at = message[at : at + 8], at + 8
                case 2:
                    size, at = _varint(message, at)
                    value, at = message[at : at + size], at + size
                case 5:
                    value, at = message[at : at + 4], at + 4
                case _:
                    return None
            if not tag >> 3 or at > len(message):
                return None
            found.append((tag >> 3, tag & 7, value))
    except IndexError:
        return None
    return found


def message_of(fields: list[Field]) -> bytes:
    out = bytearray()
    for number, kind, value in fields:
        out += varint(number << 3 | kind)
        if isinstance(value, int):
            out += varint(value)
        else:
            out += (varint(len(value)) if kind == 2 else b"") + value
    return bytes(out)


def change_message(message: bytes, rng: random.Random, depth: int = 8) -> bytes:
    """A message with one field changed, dropped, doubled or renumbered, at any depth."""
    fields = fields_of(message)
    if not fields or not depth:
        return damaged(message, TEXT if rng.random() < 0.7 else BLIND, rng)
    at = rng.randrange(len(fields))
    number, kind, value = fields[at]
    if isinstance(value, bytes) and kind == 2 and rng.random() < 0.75:
        fields[at] = number, kind, change_message(value, rng, depth - 1)
        return message_of(fields)
    match rng.randrange(8):
        case 0:
            del fields[at]
        case 1:
            fields[at:at] = [fields[at]] * rng.choice((1, 1, 200))
        case 2:
            fields[at] = rng.choice((0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 536870911)), kind, value
        case 3:
            fields.append(rng.choice(fields))
            rng.shuffle(fields)
        case 4:
            fields[at:at] = [(rng.randrange(1, 16), 2, b"")] * rng.choice((1, 5000))
        case 5:
            for _ in range(rng.choice((2, 200))):
                fields = [(number, 2, message_of(fields))]
        case 6:
            return message_of(fields[:at]) + _bad_field(number, rng)
        case _:
            fields[at] = number, kind, _hostile_value(kind, rng)
    return message_of(fields)


def _hostile_value(kind: int, rng: random.Random) -> int | bytes:
    if kind == 0:
        return rng.choice(SIZES)
    if kind in (1, 5):
        code = ("<d", "<q") if kind == 1 else ("<f", "<i")
        real = float(rng.choice(("nan", "inf", "-inf", "-0.0", "1e38", "1e-45", "0.5")))
        return struct.pack(code[0], real) if rng.random() < 0.7 else struct.pack(code[1], -1)
    return rng.choice((*TOKENS, *WORDS, *NUMBERS, b"", bytes(4096), rng.randbytes(30)))


def _bad_field(number: int, rng: random.Random) -> bytes:
    """A field that promises more than there is, never ends, or is of no known kind."""
    size = varint(rng.choice(SIZES))
    return rng.choice(
        (
            varint(number << 3 | 2) + size + b"x",
            varint(number << 3) + b"\xff" * rng.choice((9, 10, 11, 500)),
            varint(number << 3 | rng.choice((3, 4, 6, 7))) + b"x",
            varint(number << 3 | 1) + b"123",
        )
    )


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise IndexError


# --- SQLite ---------------------------------------------------------------------------------------

CELLS: tuple[object, ...] = (
    None, 0, -1, 2**63 - 1, -(2**63), 1e308, -1e308, float("inf"), float("-inf"), 5e-324, "", "nan",
    "NaN", "loss", "train_loss", "\x00", "\x1b[31m", "\u202e", "[/red]", "../../etc/passwd", b"",
    b"\xff\xfe\x00", "x" * 5000, "[" * 5000, '{"loss": 1e999}', '{"loss": NaN}', '{"a": ' * 3000,
    '{"loss": ' + "9" * 5000 + "}", "[]", "{}", "null", "1e400", 2**53 + 1, "0.5", "1_000",
)  # fmt: skip


def change_database(data: bytes, rng: random.Random, scratch: Path) -> bytes:
    """A sound database with other cells, rows or tables. `scratch`: a file to work in."""
    scratch.write_bytes(data)
    connection = sqlite3.connect(scratch, isolation_level=None)
    try:
        connection.execute("pragma journal_mode=off")
        connection.execute("pragma synchronous=off")
        for statement, values in _statements(connection, rng):
            try:
                connection.execute(statement, values)
            except (sqlite3.Error, OverflowError, UnicodeEncodeError):
                continue  # a constraint of the seed: this change is not to be had
    except sqlite3.DatabaseError:
        return data  # an earlier mutation has spoilt it
    finally:
        connection.close()
    return scratch.read_bytes()


def _statements(
    connection: sqlite3.Connection, rng: random.Random
) -> Iterator[tuple[str, tuple[object, ...]]]:
    rows = connection.execute("select name from sqlite_master where type = 'table'").fetchall()
    filled = [n for (n,) in rows if _count(connection, n)] or [n for (n,) in rows]
    if not filled:
        return
    for _ in range(rng.choice((1, 1, 2, 4))):
        table = rng.choice(filled)
        quoted = '"' + table.replace('"', '""') + '"'
        columns = [row[1] for row in connection.execute(f"pragma table_info({quoted})")]
        if not columns:
            continue
        column = '"' + rng.choice(columns).replace('"', '""') + '"'
        count = max(_count(connection, table), 1)
        one = f"rowid = (select rowid from {quoted} limit 1 offset {rng.randrange(count)})"
        match rng.randrange(12):
            case 0:
                yield f"delete from {quoted} where {one}", ()
            case 1:
                yield f"delete from {quoted}", ()
            case 2:
                yield f"drop table {quoted}", ()
                return
            case 3:
                yield f"alter table {quoted} drop column {column}", ()
            case 4:
                yield f"alter table {quoted} rename column {column} to other", ()
            case 5:
                yield f"alter table {quoted} rename to old", ()
                view = "select 1" if rng.random() < 0.5 else f"select * from {quoted}"
                yield f"create view {quoted} as {view}", ()
                return
            case 6:
                yield f"update {quoted} set {column} = ?", (rng.choice(CELLS),)
            case 7:
                yield f"insert into {quoted} select * from {quoted}", ()
            case 8:
                yield "pragma user_version = 99", ()
            case _:
                yield f"update {quoted} set {column} = ? where {one}", (rng.choice(CELLS),)


def _count(connection: sqlite3.Connection, table: str) -> int:
    quoted = '"' + table.replace('"', '""') + '"'
    try:
        [count] = connection.execute(f"select count(*) from {quoted}").fetchone()
    except sqlite3.Error:
        return 0
    return int(count)


# --- our own streams: rows with a CRC-32 ----------------------------------------------------------


def change_row(data: bytes, rng: random.Random) -> bytes:
    """Another number in some row of an nndiag stream, with the checksum that fits."""
    from nndiag.errors import UnreadableLog
    from nndiag.journal.format import RecordEncoder
    from nndiag.journal.stream import decode_stream

    try:
        stream = decode_stream(data, "seed")
    except UnreadableLog:
        return data
    encoder = RecordEncoder(len(stream.columns), "f8" if stream.values.itemsize == 8 else "f4")
    start = data.find(encoder.prefix)
    if start < 0 or not len(stream.steps):
        return data
    rows = list(zip(stream.steps.tolist(), stream.t.tolist(), stream.values.tolist(), strict=True))
    at = rng.randrange(len(rows))
    step, t, values = rows[at]
    column = rng.randrange(len(values))
    hostile = float(rng.choice(("nan", "inf", "-inf", "-0.0", "1e308", "-1", "0", "5e-324")))
    match rng.randrange(4):
        case 0:
            step = rng.choice((-(2**63), -1, 0, 2**53 + 1, 2**63 - 1, rows[0][0], step + 10**9))
        case 1:
            rows.insert(at, rng.choice(rows))
        case 2:
            for row in rows[at:]:
                row[2][column] = hostile
        case _:
            values[column] = hostile
    rows[at] = step, t, values
    return data[:start] + b"".join(encoder.encode(*row) for row in rows)
