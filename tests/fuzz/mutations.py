"""Damage to bytes: blind, and with a grammar in mind (numbers, lines, cells, JSON).

Every mutation is a function (data, rng) -> bytes. `damaged` applies a few of them; the same `rng`
gives the same bytes. Frames, protobuf, SQLite and Arrow are in `containers`.
"""

from __future__ import annotations

import json
import math
import random
import re
from collections.abc import Callable, Sequence

Mutation = Callable[[bytes, random.Random], bytes]

LARGEST = 64 * 1024  # bytes of a mutant; enough to reach every cap that is not about sheer size

NUMBERS = (
    b"NaN", b"nan", b"-nan", b"Infinity", b"-Infinity", b"inf", b"1e400", b"-1e400", b"1e308",
    b"-1.7976931348623157e308", b"5e-324", b"-0", b"-0.0", b"0", b"1", b"-1", b"0.1e-9999",
    b"9007199254740993", b"9223372036854775807", b"9223372036854775808", b"-9223372036854775809",
    b"18446744073709551616", b"1" * 400, b"9" * 5000, b"1_000", b"0x10", b"1,5", b"1,000,000",
    b"\xd9\xa1\xd9\xa2", b"1e", b".", b"+", b"--1", b"1.2.3", b"0.30000000000000004", b"1e18",
    b"4294967296", b"2147483648", b"65536", b"00012", b"1e5", b"3/10", b"99%", b"12:30:01",
)  # fmt: skip
TOKENS = (
    *NUMBERS,
    b"\x00", b"\x00" * 64, b"\xff" * 16, b"\x1b[31m", b"\x1b]0;title\x07", b"\x1b]8;;file:///\x07",
    b"\x9b31m", b"\xc2\x9b", b"\r", b"\n", b"\r\n", b"\n\n\n", b"\x0b", b"\x0c", b"\xc2\x85",
    "\u2028".encode(), "\u202e".encode(), "\u2066".encode(), "\ufeff".encode(), b"\xed\xa0\x80",
    b"\xc0\x80", b"\xf4\x90\x80\x80", b"[/red]", b"[link=file:///etc/passwd]", b"[bold",
    b"</script>",
    b"{{7*7}}", b"=cmd|' /C calc'!A0", b"@SUM(1)", b'"', b"'", b'""', b"\\", b"\\u0000", b"\\ud800",
    b",", b";", b"\t", b" ", b"  ", b":", b"=", b"{", b"}", b"[", b"]", b"[" * 200, b'{"a":' * 200,
    b"#", b"null", b"true", b'{"__proto__": 1}', b"!!python/object/apply:os.system", b"&a [*a,*a]",
    b"\x1f\x8b\x08\x00", b"PK\x03\x04", b"BZh9", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd",
    b"SQLite format 3\x00", b":W&B", b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff\xfe\x00\x00",
    b"\x89HDF\r\n", b"ARROW1", b"\x80\x04\x95", b"../../../../etc/passwd", b"file:///dev/zero",
)  # fmt: skip
# How SQLite's write-ahead log and rollback journal begin.
WAL = bytes.fromhex("377f0682002de21800001000000000000000000000000000")
JOURNAL = bytes.fromhex("d9d505f920a163d7ffffffff00000000000000010000020000001000")
# What the readers look for: so that mutants reach the choice of the loss and of the axis.
WORDS = (
    b"loss", b"train_loss", b"val_loss", b"train/loss", b"eval_loss", b"loss_G", b"loss_D", b"lr",
    b"D_A", b"G_A", b"total_loss", b"loss_cls", b"loss_box", b"step", b"global_step", b"iter",
    b"iteration", b"epoch", b"batch", b"_step", b"_runtime", b"_timestamp", b"accuracy", b"rmse",
    b"grad_norm", b"best val loss", b"train", b"val", b"valid", b"test", b"mode", b"phase",
    b"metric", b"name", b"value", b"tag", b"key", b"log_history", b"timestamp", b"NaN",
)  # fmt: skip
SIZES = (
    0, 1, 2, 6, 7, 8, 16, 127, 128, 255, 256, 32761, 32767, 32768, 65535, 65536, 2**24, 2**31 - 1,
    2**31, 2**32 - 1, 2**40, 2**53, 2**62, 2**63 - 1, 2**63, 2**64 - 1,
)  # fmt: skip
# What can stand where a JSON value stood.
HOSTILE_VALUES: tuple[object, ...] = (
    None, True, False, 0, -1, 1, 2**53 + 1, 2**63, -(2**63) - 1, 2**64, 10**400, math.nan, math.inf,
    -math.inf, -0.0, 5e-324, 1.7e308, "", "NaN", "inf", "1e999", "1_000", "\u0661", "0.5", "loss",
    "\ud800", "\x00", "\x1b[31m", "\u202e", "[/red]", "</script>", "a" * 300, [], {}, [[]], [{}],
    [1], [0.5, None, "x"], {"": 0}, {"loss": 0.5}, {"value": 1, "name": "loss"}, {"0": 1, "1": 2},
    {"values": [1, 2], "start_step": 2**70, "step_interval": -1}, {"values": 3},
    {"loss": {"loss": 1}}, {"mode": "val"}, [[1, 2], [3, 4]],
)  # fmt: skip
_NUMBER = re.compile(rb"[-+]?[0-9]+(?:\.[0-9]*)?(?:[eE][-+]?[0-9]+)?")
_WORD = re.compile(rb"[A-Za-z_][A-Za-z_/]+")


def cut(data: bytes, rng: random.Random) -> bytes:
    return data[: rng.randrange(len(data) + 1)]


def behead(data: bytes, rng: random.Random) -> bytes:
    return data[_short(rng, len(data)) :]


def flip(data: bytes, rng: random.Random) -> bytes:
    """One to eight bits."""
    if not data:
        return data
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 8))):
        out[rng.randrange(len(out))] ^= 1 << rng.randrange(8)
    return bytes(out)


def overwrite(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    noise = rng.randbytes(_short(rng, 16) + 1)
    return data[:at] + noise + data[at + len(noise) :]


def insert(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.choice(TOKENS) + data[at:]


def delete(data: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(data) + 1)
    return data[:at] + data[at + 1 + _short(rng, len(data)) :]


def duplicate(data: bytes, rng: random.Random) -> bytes:
    """A part of it again, somewhere: records out of order, or very many of one."""
    at = rng.randrange(len(data) + 1)
    part = data[at : at + 1 + _short(rng, len(data))]
    times = rng.choice((1, 1, 1, 2, 50))
    to = rng.randrange(len(data) + 1)
    return data[:to] + part * times + data[to:]


def write_size(data: bytes, rng: random.Random) -> bytes:
    """An integer that a length or a count could be, over any bytes."""
    width = rng.choice((1, 2, 4, 8))
    order = rng.choice(("little", "big"))
    size = (rng.choice(SIZES) % 256**width).to_bytes(width, order)  # type: ignore[arg-type]
    at = rng.randrange(len(data) + 1)
    return data[:at] + size + data[at + width :]


def change_number(data: bytes, rng: random.Random) -> bytes:
    return _replace(data, _NUMBER, NUMBERS, rng)


def change_word(data: bytes, rng: random.Random) -> bytes:
    return _replace(data, _WORD, WORDS + TOKENS, rng)


def rename_everywhere(data: bytes, rng: random.Random) -> bytes:
    """A word by another, all over: a column or a key gets another name."""
    found = _some_match(data, _WORD, rng)
    return data.replace(found[0], rng.choice(WORDS + TOKENS)) if found else data


def move_lines(data: bytes, rng: random.Random) -> bytes:
    """Lines dropped, doubled, swapped, sorted the other way round, or joined."""
    lines = data.splitlines(keepends=True)
    if len(lines) < 2:
        return data
    i, j = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(6):
        case 0:
            del lines[i]
        case 1:
            lines.insert(j, lines[i])
        case 2:
            lines[i], lines[j] = lines[j], lines[i]
        case 3:
            lines.reverse()
        case 4:
            lines[i] = lines[i].rstrip(b"\r\n")
        case _:
            lines[min(i, j) : max(i, j)] *= 2
    return b"".join(lines)


def recode(data: bytes, rng: random.Random) -> bytes:
    """Other line ends, another encoding, a byte order mark: what editors do to texts."""
    ends = data.replace(b"\r\n", b"\n")
    match rng.randrange(6):
        case 0:
            return ends.replace(b"\n", b"\r\n")
        case 1:
            return ends.replace(b"\n", b"\r")
        case 2:
            return b"\xef\xbb\xbf" + data
        case 3:
            return data.decode("latin-1").encode(rng.choice(("utf-16", "utf-16-le", "utf-16-be")))
        case 4:
            return data.decode("latin-1").encode(rng.choice(("utf-32", "utf-8")))
        case _:
            return data.rstrip(b"\n")


def change_cell(data: bytes, rng: random.Random) -> bytes:
    """A cell of a table replaced, dropped, doubled; or a whole column."""
    delimiter = max((b",", b"\t", b";", b" "), key=data.count)
    lines = data.split(b"\n")
    row = rng.randrange(len(lines))
    column = rng.randrange(lines[row].count(delimiter) + 1)
    whole = rng.random() < 0.3
    what = rng.randrange(3)
    new = rng.choice((*NUMBERS, *TOKENS, *WORDS, b""))
    for i in range(len(lines)) if whole else (row,):
        cells = lines[i].split(delimiter)
        if column < len(cells):
            cells[column : column + 1] = ([new], [], [cells[column]] * 2)[what]
            lines[i] = delimiter.join(cells)
    return b"\n".join(lines)


def change_json(data: bytes, rng: random.Random) -> bytes:
    """Another value somewhere in valid JSON: in one line of it, or in the whole document."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    try:
        lines[at] = json.dumps(_changed(json.loads(lines[at]), rng)).encode("ascii")
        return b"\n".join(lines)
    except (ValueError, RecursionError):
        pass
    try:
        return json.dumps(_changed(json.loads(data), rng)).encode("ascii")
    except (ValueError, RecursionError):
        return change_number(data, rng)


def _changed(document: object, rng: random.Random) -> object:
    """`document` with one of its values, keys or lists changed; it is changed in place."""
    node, home, key = document, None, None
    while isinstance(node, dict | list) and node and (home is None or rng.random() < 0.8):
        home = node
        key = rng.choice(list(node)) if isinstance(node, dict) else rng.randrange(len(node))
        node = node[key]  # type: ignore[index]
    value = rng.choice(HOSTILE_VALUES)
    match rng.randrange(6):
        case 0 if isinstance(home, dict):
            home[rng.choice(WORDS).decode()] = home.pop(key)
        case 1 if isinstance(home, dict):
            home[rng.choice(TOKENS).decode("latin-1")] = value
        case 2 if isinstance(home, list) and isinstance(key, int):
            home[key:key] = [node] * rng.choice((1, 2, 30))
        case 3 if isinstance(home, list) and isinstance(key, int):
            del home[key]
        case 4:
            for _ in range(rng.choice((1, 5, 70))):
                node = [node] if rng.random() < 0.5 else {"loss": node}
            value = node
    if home is None:
        return value
    if key in home if isinstance(home, dict) else key < len(home):
        home[key] = value
    return document


def splice(data: bytes, other: bytes, rng: random.Random) -> bytes:
    """The beginning of one, the end of another."""
    return data[: rng.randrange(len(data) + 1)] + other[rng.randrange(len(other) + 1) :]


BLIND: tuple[Mutation, ...] = (
    cut, behead, flip, flip, overwrite, insert, insert, delete, duplicate, write_size,
)  # fmt: skip
TEXT: tuple[Mutation, ...] = (
    change_number, change_number, change_word, rename_everywhere, move_lines, recode, insert,
)  # fmt: skip
TABLE: tuple[Mutation, ...] = (*TEXT, change_cell, change_cell)
JSON: tuple[Mutation, ...] = (*TEXT, change_json, change_json, change_json, change_json)


def damaged(data: bytes, ways: Sequence[Mutation], rng: random.Random) -> bytes:
    """`data` after one to four mutations: mostly those of its grammar, and some blind ones."""
    for _ in range(rng.choice((1, 1, 2, 3, 4))):
        data = rng.choice(ways if rng.random() < 0.7 else BLIND)(data, rng)[:LARGEST]
    return data


def _short(rng: random.Random, most: int) -> int:
    """0..most, small ones more often."""
    return min(most, int(rng.expovariate(1 / 24)))


def _some_match(
    data: bytes, pattern: re.Pattern[bytes], rng: random.Random
) -> re.Match[bytes] | None:
    at = rng.randrange(len(data) + 1)
    return pattern.search(data, at) or pattern.search(data)


def _replace(
    data: bytes, pattern: re.Pattern[bytes], by: Sequence[bytes], rng: random.Random
) -> bytes:
    found = _some_match(data, pattern, rng)
    return data[: found.start()] + rng.choice(by) + data[found.end() :] if found else data
