"""How fast event files are read: ours beside TensorBoard's EventAccumulator, nothing sampled away.

10^6 scalars of 10 tags, once as `simple_value` (torch's add_scalar), once as float tensors
(tf.summary, Keras). EventAccumulator reads the first tenth of them, or the measurement would take
minutes; both are compared by values per second, measured in turn. All values must be equal.
"""

from __future__ import annotations

import statistics
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from nndiag.readers.tensorboard import tensorboard_events
from nndiag.readers.tensorboard.crc32c import masked_of
from nndiag.readers.tensorboard.event_scalars import EventFile

VALUES = 1_000_000
PART = 100_000  # values that EventAccumulator reads
ROUNDS = 3
TAGS = (
    "train/loss", "train/accuracy", "val/loss", "lr", "grad_norm", "epoch", "throughput",
    "encoder.layers.0.weight/norm", "encoder.layers.11.weight/norm", "memory/allocated_gib",
)  # fmt: skip
Points = dict[str, list[tuple[int, float, float]]]  # tag -> (step, wall time, value)


def measure() -> dict[str, object]:
    """Values per second of each reader and how many times faster ours is; needs tensorboard.

    Raises:
        ImportError: tensorboard is not installed.
    """
    by_kind = {kind: _of_kind(kind) for kind in ("simple_value", "tensor")}
    return {
        "format": "tensorboard",
        "values": VALUES,
        "kinds": by_kind,
        "values_per_second": min(one["values_per_second"] for one in by_kind.values()),
        "times_faster_than": {
            "EventAccumulator": min(one["times_faster"] for one in by_kind.values())
        },
    }


def _of_kind(kind: str) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        whole, part = Path(folder) / "whole.tfevents", Path(folder) / "part.tfevents"
        write(whole, kind, VALUES)
        write(part, kind, PART)
        if points(part) != official_points(part):
            raise RuntimeError(f"{kind}: the readers disagree")
        seconds: dict[str, list[float]] = {"decoded": [], "run": [], "official": []}
        for _ in range(ROUNDS):  # in turn: a slow moment of the machine hits all
            seconds["decoded"].append(_timed(lambda: EventFile(whole).read()))
            seconds["run"].append(_timed(lambda: tensorboard_events.read(whole, None)))
            seconds["official"].append(_timed(lambda: official(part)))
        size = whole.stat().st_size
    median = {what: statistics.median(all_) for what, all_ in seconds.items()}
    ours, theirs = VALUES / median["run"], PART / median["official"]
    return {
        "bytes": size,
        "seconds_to_decode": median["decoded"],
        "seconds_to_a_run": median["run"],
        "values_per_second": round(ours),
        "official_values_per_second": round(theirs),
        "times_faster": ours / theirs,
    }


def points(path: Path) -> Points:
    """Every value as we decode it."""
    file = EventFile(path)
    found, _ = file.read()
    own: Points = {tag: [] for tag in file.names}
    columns = (found.tags.tolist(), found.steps.tolist(), found.times.tolist())
    for tag, step, at, value in zip(*columns, found.values.tolist(), strict=True):
        own[file.names[tag]].append((step, at, value))
    return own


def official(path: Path) -> object:
    """TensorBoard's reader, filled."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    reader = EventAccumulator(str(path), size_guidance={"scalars": 0, "tensors": 0})
    return reader.Reload()


def official_points(path: Path) -> Points:
    """Every value as TensorBoard gives it."""
    from tensorboard.util.tensor_util import make_ndarray

    reader = official(path)
    simple = {
        tag: [(e.step, e.wall_time, e.value) for e in reader.Scalars(tag)]  # type: ignore[attr-defined]
        for tag in reader.Tags()["scalars"]  # type: ignore[attr-defined]
    }
    tensors = {
        tag: [
            (e.step, e.wall_time, float(make_ndarray(e.tensor_proto)))
            for e in reader.Tensors(tag)  # type: ignore[attr-defined]
        ]
        for tag in reader.Tags()["tensors"]  # type: ignore[attr-defined]
    }
    return {**simple, **tensors}


def write(path: Path, kind: str, values: int) -> None:
    """An event file of `values` scalars, one event each, as its writer makes it."""
    with path.open("wb") as file:
        file.writelines(_frames(kind, values))


def _frames(kind: str, values: int) -> Iterator[bytes]:
    from tensorboard.compat.proto.event_pb2 import Event
    from tensorboard.compat.proto.summary_pb2 import Summary

    yield _frame(Event(wall_time=1.7e9, file_version="brain.Event:2").SerializeToString())
    numbers = np.random.default_rng(0).random(values).astype(np.float32).tolist()
    for i, number in enumerate(numbers):
        one = Summary.Value(tag=TAGS[i % len(TAGS)])
        if kind == "simple_value":
            one.simple_value = number
        else:
            one.tensor.dtype = 1
            one.tensor.tensor_shape.SetInParent()
            one.tensor.float_val.append(number)
            one.metadata.plugin_data.plugin_name = "scalars"
        step = i // len(TAGS)
        event = Event(wall_time=1.7e9 + i / 64, step=step, summary=Summary(value=[one]))
        yield _frame(event.SerializeToString())


def _frame(data: bytes) -> bytes:
    length = struct.pack("<Q", len(data))
    checksums = (struct.pack("<I", masked_of(part)) for part in (length, data))
    return length + next(checksums) + data + next(checksums)


def _timed(read: Callable[[], object]) -> float:
    start = time.perf_counter()
    read()
    return time.perf_counter() - start


if __name__ == "__main__":
    import json

    print(json.dumps(measure(), indent=2))
