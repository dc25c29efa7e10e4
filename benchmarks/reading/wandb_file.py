"""How fast a `.wandb` file is read: ours beside the way that public readers take.

Public readers frame the file themselves, as wandb's former DataStore did, parse each record with
wandb's own protobuf and each value with `json.loads`. The file has 10^5 rows of 8 values, and a
summary record for each row, as today's client writes them.
"""

from __future__ import annotations

import json
import random
import statistics
import struct
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from nndiag.readers.wandb.wandb_datastore import Datastore
from nndiag.readers.wandb.wandb_history import History

ROWS = 100_000
NAMES = ("loss", "lr", "grad_norm", "accuracy", "perplexity", "_step", "_runtime", "_timestamp")
ROUNDS = 5
BLOCK = 32768


def measure() -> dict[str, object]:
    """Median seconds of each reader, and how many times faster ours is; needs wandb.

    Raises:
        ImportError: wandb is not installed.
    """
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "run-speed.wandb"
        write(path)
        seconds: dict[str, list[float]] = {"nndiag": [], "protobuf": []}
        numbers = {}
        for _ in range(ROUNDS):  # in turn: a slow moment of the machine hits both
            for reader, read in (("nndiag", ours), ("protobuf", with_protobuf)):
                seconds[reader].append(_timed(lambda read=read: numbers.update(read(path))))
        if numbers != {"rows": ROWS, "values": ROWS * len(NAMES)}:
            raise RuntimeError(f"the readers disagree: {numbers}")
        size = path.stat().st_size
    medians = {reader: statistics.median(all_) for reader, all_ in seconds.items()}
    return {
        "format": "wandb",
        "rows": ROWS,
        "values": ROWS * len(NAMES),
        "bytes": size,
        "seconds": medians,
        "values_per_second": round(ROWS * len(NAMES) / medians["nndiag"]),
        "times_faster_than": {"wandb protobuf": medians["protobuf"] / medians["nndiag"]},
    }


def ours(path: Path) -> dict[str, int]:
    history = History()
    for batch in Datastore(path).batches():
        history.take(batch)
    table = history.table()
    return {"rows": table.height, "values": sum(map(len, table.columns.values()))}


def with_protobuf(path: Path) -> dict[str, int]:
    from wandb.proto.wandb_internal_pb2 import Record

    columns: dict[str, list[float]] = {}
    rows = 0
    for data in records_of(path):
        record = Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") == "history":
            rows += 1
            for item in record.history.item:
                name = item.key or ".".join(item.nested_key)
                columns.setdefault(name, []).append(float(json.loads(item.value_json)))
    return {"rows": rows, "values": sum(map(len, columns.values()))}


def records_of(path: Path) -> Iterator[bytes]:
    """The records of a sound file, chunk by chunk, with their checksums tested."""
    with path.open("rb") as file:
        at, parts = len(file.read(7)), []
        while True:
            left = BLOCK - at % BLOCK
            if left < 7:
                at += len(file.read(left))
            head = file.read(7)
            if len(head) < 7:
                return
            checksum, length, kind = struct.unpack("<IHB", head)
            data = file.read(length)
            if zlib.crc32(data, zlib.crc32(bytes([kind]))) != checksum:
                raise ValueError("wrong checksum")
            at += 7 + length
            parts.append(data)
            if kind in (1, 4):
                yield b"".join(parts)
                parts = []


def write(path: Path) -> None:
    """A file as wandb 0.31 writes it: the keys of a row in any order, and a summary for each."""
    from wandb.proto.wandb_internal_pb2 import Record

    rng = random.Random(0)
    with path.open("wb") as file:
        at = file.write(b":W&B\xe1\xbe\0")
        for step in range(ROWS):
            values = {name: rng.random() for name in NAMES} | {"_step": step}
            history, summary = Record(num=2 * step), Record(num=2 * step + 1)
            for name in rng.sample(NAMES, len(NAMES)):
                text = json.dumps(values[name])
                history.history.item.add(nested_key=[name], value_json=text)
                summary.summary.update.add(nested_key=[name], value_json=text)
            history.history.step.num = step
            for record in (history, summary):
                at += _append(file.write, at, record.SerializeToString())


def _append(write: Callable[[bytes], object], at: int, record: bytes) -> int:
    """Writes a record that begins at byte `at` of the file; how many bytes that took."""
    out = b""
    begins, rest = True, record
    while begins or rest:
        left = BLOCK - (at + len(out)) % BLOCK
        if left < 7:
            out += bytes(left)
            continue
        data, rest = rest[: left - 7], rest[left - 7 :]
        kind = (2 if begins else 3) if rest else (1 if begins else 4)
        checksum = zlib.crc32(bytes([kind]) + data)
        out += struct.pack("<IHB", checksum, len(data), kind) + data
        begins = False
    write(out)
    return len(out)


def _timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    print(json.dumps(measure(), indent=2))
